"""``warren status``: the networks of this machine and who is in them, from the agent."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import click

from warren.cli import access_agent, output
from warren.cli.completion_names import NETWORK
from warren.errors import OperationFailed, Unreachable, UsageError

if TYPE_CHECKING:
    from warren.proto.control.local import AgentStatus

_EVERY_S: Final = 2.0


@click.command("status")
@click.argument("network", required=False, type=NETWORK)
@click.option("--watch", "-w", is_flag=True, help="Go on showing it, every two seconds, until Ctrl-C.")
@access_agent.run_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; with --watch one line each time.")
@click.option("--metrics", is_flag=True, help="Print metrics in Prometheus' text form, for a textfile collector.")
def command(network: str | None, watch: bool, run: str | None, as_json: bool, metrics: bool) -> None:
    """Show the networks of this machine: its own addresses and tasks, every other member, and the streams it carries.

    RTT is the round trip of the path. LEASE is how long the member is one without hearing from the coordinator.
    """

    def look() -> AgentStatus:
        return _only(access_agent.status(run), network)

    if metrics and (watch or as_json):
        raise UsageError("--metrics is printed once, and alone: leave --watch and --json out")
    if metrics:
        from warren.cli.status_metrics import page

        click.echo(page(look()), nl=False)
    elif watch:
        _watch(look, as_json)
    elif as_json:
        output.emit(look())
    else:
        for line in _page(look()):
            click.echo(line)


def _only(status: AgentStatus, network: str | None) -> AgentStatus:
    """With ``network`` (its name or key) alone. Raises OperationFailed when this machine is not in it."""
    if network is None:
        return status
    import msgspec

    found = tuple(known for known in status.networks if network in {known.network, known.network_id})
    if not found:
        names = ", ".join(known.network for known in status.networks)
        raise OperationFailed(f"this machine is not in a network called {network}; it is in: {names or 'none'}")
    labels = tuple(f"{known.network}: " for known in found)
    streams = tuple(stream for stream in status.streams if stream.id.startswith(labels))
    return msgspec.structs.replace(status, networks=found, streams=streams)


def _page(status: AgentStatus) -> list[str]:
    from warren.cli.status_page import page

    return page(status, output.utc_now(), output.terminal_width())


def _watch(look: Callable[[], AgentStatus], as_json: bool) -> None:
    """Until Ctrl-C. An agent that is restarted meanwhile is no reason to stop."""
    on_terminal = output.terminal_width() is not None
    while True:
        try:
            status = look()
        except Unreachable as error:
            if as_json:
                raise
            lines = [str(error)]
        else:
            if as_json:
                import msgspec

                click.echo(msgspec.json.encode(status).decode())
                lines = []
            else:
                lines = _page(status)
        if on_terminal and not as_json:
            # Line by line over the old page, then what is left of it: nothing flickers.
            shown = fitting(lines, *shutil.get_terminal_size())
            sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in shown) + "\x1b[J")
        else:
            for line in lines:
                click.echo(line)
        sys.stdout.flush()
        time.sleep(_EVERY_S)


def fitting(lines: list[str], columns: int, rows: int) -> list[str]:
    """As many of ``lines`` as the terminal shows without scrolling, and how many are left out."""
    left = rows - 2  # the cursor below, and the line that says how many
    for number, line in enumerate(lines):
        left -= max(1, -(-output.visible_length(line) // columns))
        if left < 0:
            return [*lines[:number], f"… and {len(lines) - number} more lines; without --watch all are shown"]
    return lines
