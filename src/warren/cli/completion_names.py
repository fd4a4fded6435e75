"""Arguments that complete themselves with the names of networks and members this machine knows of.

The agent is asked over its socket, which takes milliseconds; a coordinator is never asked while somebody types. Without
an agent nothing is offered.
"""

from __future__ import annotations

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


NETWORK: Final = _Name("network")
MEMBER: Final = _Name("member")
"""Of the network that the argument before it names."""
NODE: Final = _Name("node")
"""By its full name, in whatever network."""


def _status(ctx: click.Context) -> AgentStatus | None:
    from warren.cli.access_agent import status
    from warren.errors import WarrenError

    try:
        return status(ctx.params.get("run"), within_s=_WITHIN_S)
    except WarrenError:
        return None
