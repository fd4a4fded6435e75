"""``warren up``: join by a ticket, and be the agent of this machine."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from warren.agent.config import Wanted
    from warren.proto.control.local import Joined

_TICKET_CHARACTERS_MAX = 16_384


@click.command("up")
@click.argument("ticket", metavar="[TICKET]", required=False)
@click.option("--name", metavar="NAME", help="What this node would like to be called; by default its host name.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "userspace", "rootless"]),
    help="What moves packets. [default: auto, or as agent.toml has it]",
)
@click.option("--state", metavar="DIR", help="What must last: keys, documents. [default: see below]")
@click.option("--run", metavar="DIR", help="Where the control socket is. [default: see below]")
@click.option("--json", "as_json", is_flag=True, help="Print the result, and log lines, as JSON.")
def command(
    ticket: str | None, name: str | None, engine: Wanted | None, state: str | None, run: str | None, as_json: bool
) -> None:
    """Join a network with a TICKET, and stay in all networks of this machine until stopped.

    Without an agent on this machine this command becomes it, in the foreground; with one it hands the ticket over and
    ends. A ticket comes from `warren network invite`. Afterwards `warren up` alone is enough; it starts from what it
    knows also when no coordinator answers. With `-` the ticket is read from standard input: other users of this machine
    can see what a command was given, and a ticket that may be used again is a secret.

    \b
    Ctrl-C or SIGTERM  stops the agent and removes what it made in this host
    SIGHUP             reads agent.toml again
    kill -9            leaves the networks up; the next `warren up` takes them over

    Root's agent uses the engine `userspace`: all programs of this machine reach the network. An ordinary user's uses
    `rootless`, which needs no rights and changes nothing in this machine: programs run by `warren exec` reach the
    network, as do forwards. `auto` takes the first of them that works here.

    The directories are also taken from WARREN_STATE and WARREN_RUN. By default they are /var/lib/warren and /run/warren
    for root, and for others $XDG_STATE_HOME/warren (~/.local/state/warren) and $XDG_RUNTIME_DIR/warren
    (/tmp/warren-UID).

    \b
    Example:
      warren up 'warren-ticket:…'
      warren status
    """
    from warren import log
    from warren.agent.places import places

    if as_json:
        os.environ[log.FORMAT_VARIABLE] = "json"  # for the data planes too
    where = places(state, run)
    if ticket == "-":
        ticket = sys.stdin.readline(_TICKET_CHARACTERS_MAX).strip()
    if ticket is not None:
        from warren.model.tickets import read_ticket

        read_ticket(ticket, 0.0)  # what is no ticket is said before anything is touched
        joined = _hand_over(where.socket, ticket, name, engine)
        if joined is not None:
            _tell(joined, as_json=as_json)
            return
    log.configure()
    from warren.agent import app

    app.run(where, ticket, name, lambda joined: _tell(joined, as_json=as_json) if as_json else None, engine)


def _hand_over(socket: Path, ticket: str, name: str | None, engine: Wanted | None) -> Joined | None:
    """Let the agent that runs join; None: none runs. Raises UsageError when it has another engine than is wanted."""
    import asyncio
    import stat

    from warren.api.varlink import VarlinkClient
    from warren.api.varlink_agent import AgentClient
    from warren.errors import Unreachable, UsageError

    async def session() -> Joined | None:
        try:
            client = await VarlinkClient.connect(socket, "the agent")
        except Unreachable:
            return None
        async with client:
            agent = AgentClient(client)
            if engine not in {None, "auto"} and (its := (await agent.status()).engine) != engine:
                raise UsageError(f"the agent that runs here has the engine {its}; stop it first (`warren down`)")
            return await agent.join(ticket, name)

    try:
        if not stat.S_ISSOCK(socket.stat().st_mode):
            return None
    except OSError:
        return None
    return asyncio.run(session())


def _tell(joined: Joined, *, as_json: bool) -> None:
    import msgspec

    if as_json:
        click.echo(msgspec.json.encode(joined).decode())
    else:
        addresses = ", ".join(address.partition("/")[0] for address in joined.addresses)
        click.echo(f"joined {joined.network} as {joined.name} ({addresses}), interface {joined.interface}")
