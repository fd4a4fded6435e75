"""Groups of commands that import a command's file when it is called, and not to say that it is there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Section = Mapping[str, tuple[str, str]]
"""Commands by name: where one is (``module`` or ``module:attribute``, else ``command``), and one sentence on it."""


class LazyGroup(click.Group):
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
