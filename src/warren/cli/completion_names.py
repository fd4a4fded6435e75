"""Arguments that complete themselves with the names of networks, members, services and connectors this machine
knows of.

The agent is asked over its socket, which takes milliseconds; a coordinator is never asked while somebody types. Without
an agent nothing is offered.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from warren.proto.control.local import AgentStatus

_WITHIN_S: Final = 0.5


class _Name(click.ParamType[str]):
    name = "name"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem[Any]]:
        from click.shell_completion import CompletionItem

        status = _status(ctx)
        if status is None:
            return []
        return [CompletionItem(name) for name in self._names(status, ctx) if name.startswith(incomplete)]

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:
        if self._what == "network":
            return sorted(network.network for network in status.networks)
        wanted = ctx.params.get("network")
        return sorted(
            {
                peer.name if self._what == "member" else peer.fqdn
                for network in status.networks
                if self._what == "node" or wanted in {None, network.network, network.network_id}
                for peer in network.peers
            }
        )


class _Selector(_Name):
    """A selector of members, which is checked."""

    name = "selector"

    def __init__(self) -> None:
        super().__init__("selector")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from warren.cli.network_values import SELECTOR

        return str(SELECTOR.convert(value, param, ctx))

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:
        wanted = ctx.params.get("network")
        found: set[str] = set()
        for network in status.networks:
            if wanted in {None, network.network, network.network_id}:
                names = (network.name, *(peer.name for peer in network.peers))
                tags = chain(network.tags, *(peer.tags for peer in network.peers))
                found |= {*(f"member:{name}" for name in names), *(f"tag:{tag}" for tag in tags)}
        return ["members", *sorted(found)]


class _Served(_Name):
    """A service or connector, as far as this machine has to do with it."""

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:
        wanted = ctx.params.get("network")
        names = set()
        for network in status.networks:
            if wanted not in {None, network.network, network.network_id}:
                continue
            for stream in status.streams:
                if not stream.id.startswith(f"{network.network}: "):
                    continue
                for text in (stream.id.removeprefix(f"{network.network}: "), stream.target):
                    kind, _, name = text.partition(" ")
                    if kind == self._what:
                        names.add(name)
        return sorted(names)


NETWORK: Final = _Name("network")
MEMBER: Final = _Name("member")
"""Of the network that the argument before it names."""
NODE: Final = _Name("node")
"""By its full name, in whatever network."""
SELECTORS: Final = _Selector()
SERVICE: Final = _Served("service")
CONNECTOR: Final = _Served("connector")


def _status(ctx: click.Context) -> AgentStatus | None:
    from warren.cli.access_agent import status
    from warren.errors import WarrenError

    try:
        return status(ctx.params.get("run"), within_s=_WITHIN_S)
    except WarrenError:
        return None
