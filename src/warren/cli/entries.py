"""What ``warren service`` and ``warren connector`` say in one manner: which members an entry is at, what keeps which of
them from it, and what is perhaps not meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from warren.cli import output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from warren.api.rest import AdminClient
    from warren.proto.control.administration import ConnectorEntry, ServiceEntry

E = TypeVar("E", "ServiceEntry", "ConnectorEntry")
F = TypeVar("F", bound="Callable[..., Any]")

WAIT_S_MAX: Final = 300
_NAMES_MAX: Final = 8
"""In a line."""
_EVERY_S: Final = 0.5
"""Members say how it stands a second after it has changed."""
_SAID_AFTER_S: Final = 2.0
"""Until then what they say of something that was changed may be of how it was before."""


def wait_option(function: F) -> F:
    """``--wait TIME``."""
    from warren.cli.network_values import WAIT

    return click.option(
        "--wait",
        "wait_s",
        metavar="TIME",
        type=WAIT,
        default="5s",
        show_default=True,
        help="How long to wait for the members to say whether it works; 0: not at all.",
    )(function)


async def when_said(entry: E, again: Callable[[], Awaitable[Iterable[E]]], within_s: float) -> E:
    """``entry``, which was just added, as it is when its members have said how it stands, ``within_s`` at most.

    ``again`` asks for all entries. What goes wrong then is nobody's concern: the entry is there.
    """
    import asyncio

    from warren.errors import WarrenError

    try:
        async with asyncio.timeout(within_s):
            while any(one.state == "pending" for one in entry.hindered):
                await asyncio.sleep(_EVERY_S)
                entry = next((one for one in await again() if one.name == entry.name), entry)
    except (TimeoutError, WarrenError):
        pass
    return entry


async def applied(
    client: AdminClient, network: str, subjects: Collection[str], within_s: float, *, anew: bool
) -> list[str]:
    """What keeps which member from the services and connectors among ``subjects`` (``service web`` …), which a file has
    just added, or not ``anew`` changed; asked until they have said so, ``within_s`` at most.
    """
    import asyncio

    from warren.errors import WarrenError

    found: dict[str, ServiceEntry | ConnectorEntry] = {}
    try:
        async with asyncio.timeout(within_s):
            if not anew:
                await asyncio.sleep(min(_SAID_AFTER_S, within_s / 2))
            while True:
                found = {f"service {one.name}": one for one in await client.services(network)}
                found |= {f"connector {one.name}": one for one in await client.connectors(network)}
                found = {name: one for name, one in found.items() if name in subjects}
                if not any(one.state == "pending" for entry in found.values() for one in entry.hindered):
                    break
                await asyncio.sleep(_EVERY_S)
    except (TimeoutError, WarrenError):
        pass
    return [f"{name}: {line}" for name, entry in found.items() for line in hindrances(entry)]


def selected(selectors: Sequence[str], count: int) -> str:
    """``tag:web (2)``: selectors, and how many members they pick."""
    return f"{', '.join(selectors)} ({count})"


def members(names: Sequence[str], count: int) -> str:
    """``web1, web2 …``: the ``names`` an entry has room for, of ``count`` members."""
    return ", ".join(names) + (" …" if count > len(names) else "") if names else "nobody yet"


def working(entry: ServiceEntry | ConnectorEntry) -> str:
    """``1 of 2``: of how many members it works at how many."""
    return f"{entry.working_count} of {_count(entry)}"


def hindrances(entry: ServiceEntry | ConnectorEntry) -> list[str]:
    """A line for each reason, with the members at which it does not work, and one for those that it has no room for."""
    by_reason: dict[str, list[str]] = {}
    for one in entry.hindered:
        by_reason.setdefault(one.reason, []).append(one.member)
    more = _count(entry) - entry.working_count - len(entry.hindered)
    lines = [f"at {_some(names)}: {reason}" for reason, names in by_reason.items()]
    return [*lines, f"at {more} more, as their `warren status` tells"] if more > 0 else lines


def _count(entry: ServiceEntry | ConnectorEntry) -> int:
    from warren.proto.control.administration import ServiceEntry

    return entry.served_by_count if isinstance(entry, ServiceEntry) else entry.taken_by_count


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_MAX])
    return shown if len(names) <= _NAMES_MAX else f"{shown} and {len(names) - _NAMES_MAX} more"


def warn(warnings: Iterable[str]) -> None:
    """What is perhaps not meant goes to stderr: what was asked for is done."""
    for warning in warnings:
        click.echo(click.style(output.clean(f"warning: {warning}"), fg="yellow"), err=True)
