"""Groups of commands: each command stands there with a whole sentence, and a slip of the finger is recognised.

A :class:`LazyGroup` imports a command's file when it is called, and not to say that it is there.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Section = Mapping[str, tuple[str, str]]
"""Commands by name: where one is (``module`` or ``module:attribute``, else ``command``), and one sentence on it."""


class Group(click.Group):
    """Knows its commands, and says of each the first sentence of its help."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"no_args_is_help": False, "subcommand_metavar": "COMMAND …", **settings})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            meant = " or ".join(f"'{name}'" for name in get_close_matches(args[0], known))
            ctx.fail(f"No such command '{args[0]}'." + (f" Did you mean {meant}?" if meant else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(command)) for name, command in commands])


class LazyGroup(Group):
    """Knows its commands by name and one sentence, in the order and under the titles of ``sections``."""

    def __init__(self, *args: Any, sections: Mapping[str, Section], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._sections = sections
        self._places = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self._places:
            return None
        module, _, attribute = self._places[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute or "command")
        assert isinstance(command, click.Command)  # noqa: S101 - what each file of this package defines
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        column = max(map(len, self._places))
        for title, section in self._sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(column), summary) for name, (_, summary) in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[Any]]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in self._places.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


def _first_sentence(command: click.Command | None) -> str:
    text = "" if command is None else inspect.cleandoc(command.help or "")
    return " ".join(re.split(r"(?<=\.)\s|\n\n", text, maxsplit=1)[0].split())
