"""Arguments that complete themselves with the names of networks, members, services, connectors and forwards this
machine knows of.

The agent is asked over its socket, which takes milliseconds; a coordinator is never asked while somebody types. Without
an agent nothing is offered. What cannot be such a name at all is wrong usage, which nobody need be asked about.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from warren.proto.control.local import AgentStatus

_WITHIN_S: Final = 0.5
_REFERENCE: Final = re.compile(r"[A-Za-z0-9._:%+/=-]{1,255}")
"""A name, short or full, a key, or an address: what is there and what is not looks like that."""


class _Name(click.ParamType[str]):
    name = "name"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not _REFERENCE.fullmatch(str(value)):
            self.fail(f"{str(value)[:80]!r} cannot be the name of a {self._what}", param, ctx)
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


class _Id(_Name):
    """Of something that this machine knows nothing of."""

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return []


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

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from warren.cli.network_values import NAME

        return str(NAME.convert(value, param, ctx))

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


class _Target(_Name):
    """Where a forward goes: a member (whose port is to follow) or a service. Checked together with where it listens."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        return str(value)

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:  # noqa: ARG002
        members = {peer.name for network in status.networks for peer in network.peers}
        services = {
            text.removeprefix("service ")
            for stream in status.streams
            for text in (stream.id.partition(": ")[2], stream.target)
            if text.startswith("service ")
        }
        return sorted(members | services)


class _Forward(_Target):
    """A forward that there is, by where it listens."""

    def _names(self, status: AgentStatus, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [
            stream.id.removeprefix(f"{stream.kind} ") for stream in status.streams if stream.origin in {"kept", "held"}
        ]


NETWORK: Final = _Name("network")
MEMBER: Final = _Name("member")
"""Of the network that the argument before it names."""
NODE: Final = _Name("node")
"""By its full name, in whatever network."""
INVITE: Final = _Id("invite")
SELECTORS: Final = _Selector()
SERVICE: Final = _Served("service")
CONNECTOR: Final = _Served("connector")
TARGET: Final = _Target("target")
FORWARD: Final = _Forward("forward")


def _status(ctx: click.Context) -> AgentStatus | None:
    from warren.cli.access_agent import status
    from warren.errors import WarrenError

    try:
        return status(ctx.params.get("run"), within_s=_WITHIN_S)
    except WarrenError:
        return None
