"""``warren down``: stop the agent, or leave a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import access_agent
from warren.cli.completion_names import NETWORK

if TYPE_CHECKING:
    from pathlib import Path

_LEFT_WITHIN_S: Final = 60.0
"""The coordinator has to confirm."""
_STOPPED_WITHIN_S: Final = 30.0
_LOOK_EVERY_S: Final = 0.1


@click.command("down")
@click.argument("network", metavar="[NETWORK]", required=False, type=NETWORK)
@click.option("--leave", is_flag=True, help="Give up the membership in NETWORK, and forget it.")
@access_agent.run_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(network: str | None, leave: bool, run: str | None, as_json: bool) -> None:
    """Stop the agent of this machine and remove what it made in this host; `warren up` starts it again.

    With --leave it goes on, but gives up its membership in NETWORK: its address is free for others then, and coming
    back takes a new ticket.

    \b
    Example:
      warren down
      warren down home --leave
    """
    import json

    from warren.agent.places import places
    from warren.errors import UsageError

    if leave and network is None:
        raise UsageError("say which network to leave: `warren down NETWORK --leave`; `warren status` lists them")
    if network is not None and not leave:
        raise UsageError(f"`warren down` alone stops the agent; `warren down {network} --leave` leaves that network")
    if network is not None:
        leaving = network
        access_agent.ask(run, lambda agent: agent.leave(leaving), within_s=_LEFT_WITHIN_S)
        said = f"This machine is in {network} no longer; to come back it needs a new ticket."
    else:
        access_agent.ask(run, lambda agent: agent.stop())
        _wait_gone(places(run=run).socket)
        said = "The agent has stopped; `warren up` starts it again."
    click.echo(json.dumps({"done": said}) if as_json else said)


def _wait_gone(socket: Path) -> None:
    """Returns when the agent has removed its socket, which it does when all else is done."""
    import time

    from warren.errors import Unreachable

    for _ in range(round(_STOPPED_WITHIN_S / _LOOK_EVERY_S)):
        if not socket.exists():
            return
        time.sleep(_LOOK_EVERY_S)
    raise Unreachable(f"the agent was told to stop, but is still there after {_STOPPED_WITHIN_S:.0f} s; see its log")
