"""``warren forward``: ports of this host that lead into the networks, and ports in the networks that lead to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from warren.cli import access_agent, output
from warren.cli.completion_names import FORWARD, TARGET
from warren.errors import UsageError

if TYPE_CHECKING:
    from warren.api.varlink_agent import AgentClient
    from warren.proto.control.local import Stream

_AGENT_ENDED = "the agent has ended: this forward does not come back with the next one, as one made with --keep does"
_MAKE_WITHIN_S = 60.0
"""The stream process is started first, if there is none."""


@click.command("forward")
@click.argument("listen", required=False, metavar="[[ADDR:]PORT]")
@click.argument("target", required=False, metavar="[TARGET:PORT[/udp]]", type=TARGET)
@click.option("--keep", is_flag=True, help="Until it is removed, also when the agent is restarted.")
@click.option("--socks", metavar="[ADDR:]PORT", help="A SOCKS5 server for programs of this host instead.")
@click.option("--list", "listed", is_flag=True, help="List the forwards that there are.")
@click.option(
    "--remove",
    metavar="[ADDR:]PORT",
    type=FORWARD,
    help="Remove the forward that listens there (/udp behind it: of UDP).",
)
@access_agent.run_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    listen: str | None,
    target: str | None,
    keep: bool,
    socks: str | None,
    listed: bool,
    remove: str | None,
    run: str | None,
    as_json: bool,
) -> None:
    """Forward a port to a member, a service, or what is behind a member, as long as this command runs.

    ADDR is 127.0.0.1 unless said otherwise: an address of this host, * for all of them, or `overlay` for the addresses
    that members reach this node at. unix:/PATH is a place to listen, too. TARGET is a member or a service by its name,
    or an address; a service has a port of its own. What comes from the overlay goes to this host's side: to an address
    or name as this host reaches it, or to unix:/PATH.

    \b
    Examples:
      warren forward 5432 db:5432             a member's database at 127.0.0.1:5432
      warren forward 8000 page                a service
      warren forward '*:5353' dns.home:53/udp
      warren forward overlay:80 localhost:8080 --keep
      warren forward --socks 1080
    """
    manners = [listen is not None, socks is not None, listed, remove is not None]
    if sum(manners) != 1 or (target is None) == (listen is not None) or (keep and (listed or remove is not None)):
        raise UsageError(
            "say [ADDR:]PORT TARGET:PORT, or one of --socks, --list and --remove; see `warren forward --help`"
        )
    _check(listen, target, socks, remove)
    if listed:
        _show(access_agent.ask(run, lambda agent: agent.forwards()), as_json)
    elif remove is not None:
        place = remove
        access_agent.ask(run, lambda agent: agent.unforward(place))
        if as_json:
            output.emit({"removed": place})
        else:
            click.echo(output.clean(f"The forward at {place} is removed."))
    elif keep:
        at = socks or listen or ""
        made = access_agent.ask(run, lambda agent: agent.forward(at, target), within_s=_MAKE_WITHIN_S)
        _tell(made, as_json)
    else:
        _hold(run, socks or listen or "", target, as_json)


def _check(listen: str | None, target: str | None, socks: str | None, remove: str | None) -> None:
    """What cannot be understood needs no agent to be refused. Raises UsageError."""
    from warren.agent.streams.forward_text import parse_forward, parse_place, parse_socks

    try:
        if listen is not None and target is not None:
            parse_forward(listen, target)
        elif socks is not None:
            parse_socks(socks)
        elif remove is not None:
            parse_place(remove)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _hold(run: str | None, listen: str, target: str | None, as_json: bool) -> None:
    """Until Ctrl-C, or until somebody removes it."""
    from warren.errors import Unreachable

    async def hold(agent: AgentClient) -> None:
        told = False
        try:
            async for stream in agent.hold_forward(listen, target):
                _tell(stream, as_json)
                told = True
        except Unreachable:
            if told:
                raise Unreachable(_AGENT_ENDED) from None
            raise

    access_agent.ask(run, hold, within_s=math.inf)
    if not as_json:
        click.echo("The forward was removed.")


def _tell(stream: Stream, as_json: bool) -> None:
    if as_json:
        output.emit(stream)
        return
    from warren.cli.status_streams import goal

    where = ", ".join(stream.places) or stream.id
    click.echo(output.clean(f"{where} leads to {goal(stream)}"))


def _show(streams: tuple[Stream, ...], as_json: bool) -> None:
    from warren.cli.status_streams import stream_lines

    if as_json:
        output.emit(streams)
        return
    lines = stream_lines(streams, output.terminal_width())
    for line in lines or ["There is no forward; `warren forward [ADDR:]PORT TARGET:PORT` makes one."]:
        click.echo(line)
