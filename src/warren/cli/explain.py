"""``warren explain``: why one member reaches another the way it does, or does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from warren.cli import access_agent, output
from warren.cli.completion_names import NODE
from warren.cli.output import clean
from warren.errors import OperationFailed, UsageError

if TYPE_CHECKING:
    from warren.proto.control.local import AgentStatus, Attempt, Explanation

_FACT_WIDTH: Final = 10
_KINDS: Final = {
    "host": "its own address",
    "stated": "stated by its operator",
    "mapped": "mapped by its gateway",
    "srflx": "as a server sees it",
    "prflx": "as it was seen here",
    "relay": "at a relay",
}
_COLOURS: Final = {"valid": "green", "failed": "red", "checking": "yellow", "waiting": None}


@click.command("explain")
@click.argument("a", metavar="A", type=NODE)
@click.argument("b", metavar="[B]", required=False, type=NODE)
@access_agent.run_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(a: str, b: str | None, run: str | None, as_json: bool) -> None:
    """Explain the path between A and B: what was tried, what answered, what is used and why.

    One of the two is this machine; with one name alone, the other is.

    \b
    Example:
      warren explain bob
      warren explain alice bob --json
    """
    if a == b:
        raise UsageError(f"{a} and {b} are one and the same")
    peer = a if b is None else _other(access_agent.status(run), a, b)
    found = access_agent.ask(run, lambda agent: agent.explain(peer))
    if as_json:
        output.emit(found)
        return
    for line in page(found):
        click.echo(line)


def _other(status: AgentStatus, a: str, b: str) -> str:
    """Which of the two is not this machine."""
    own = {
        name
        for network in status.networks
        for name in (network.name, network.fqdn, f"{network.name}.{network.network}")
        if name
    }
    for mine, other in ((a, b), (b, a)):
        if mine.rstrip(".").lower() in own:
            return other
    known = ", ".join(sorted({network.name for network in status.networks if network.name})) or "in no network"
    raise OperationFailed(
        f"neither {a} nor {b} is this machine (it is {known}), and only the two themselves know what they tried: run"
        f" `warren explain {a} {b}` on one of them"
    )


def page(found: Explanation) -> list[str]:
    """All of it, for people."""
    title = f"{clean(found.node)} and {clean(found.peer)} in {clean(found.network)}"
    lines = [click.style(title, bold=True)]
    lines += [f"  {click.style(name.ljust(_FACT_WIDTH), dim=True)}  {fact}" for name, fact in _facts(found)]
    if found.attempts:
        lines += ["", *_attempts(found.attempts)]
    return lines


def _facts(found: Explanation) -> Iterator[tuple[str, str]]:
    yield "path", _path(found)
    if found.why:
        yield "because", clean(found.why)
    if found.verdict:
        can = "A direct path must be possible." if found.verdict_direct else "There can be no direct path."
        if found.path == "direct" and not found.verdict_direct:
            can = "By their NATs alone there would be no direct path."
        yield "possible", f"{can} {clean(found.verdict_why)}"
    elif "no-udp" in (*found.nat.split(), *found.peer_nat.split()):
        yield "possible", "not judged: UDP is blocked on one side, so nobody knows what its NAT does"
    elif found.path != "none":
        yield "possible", "not judged: one of the two does not know what its NAT does (that takes a relay)"
    if found.hard:
        yield "hard NAT", clean(found.hard)
    tunnel = (
        "no handshake yet" if found.handshake_age_s is None else f"handshake {output.span(found.handshake_age_s)} ago"
    )
    yield "tunnel", f"{found.state}, {tunnel}"
    for title, nat in ((found.node, found.nat), (found.peer, found.peer_nat)):
        yield "NAT", f"of {clean(title)}: {clean(nat) or 'not known'}"
    for relay in found.relays:
        if relay.state == "failed":
            yield "relay", click.style(f"{clean(relay.name)}: {clean(relay.why)}", fg="yellow")
    if not found.coordinator.connected:
        yield "signals", "no coordinator is connected: only other members can pass signals on"


def _path(found: Explanation) -> str:
    if found.path == "none":
        return click.style("none", fg="red")
    facts = [f"through the relay {clean(found.relay)}" if found.path == "relayed" else f"at {clean(found.endpoint)}"]
    if found.rtt_ms is not None:
        facts.append(f"round trip {output.milliseconds(found.rtt_ms)}")
    if found.mtu is not None:
        facts.append(f"packets of {found.mtu} bytes fit")
    if found.since_s is not None:
        facts.append(f"for {output.span(found.since_s)}")
    return f"{found.path}, {', '.join(facts)}"


def _attempts(attempts: tuple[Attempt, ...]) -> list[str]:
    rows = [
        [
            "*" if one.selected else "",
            clean(one.source),
            clean(one.target),
            _KINDS[one.kind],
            click.style(one.state, fg=_COLOURS[one.state]),
            f"{one.answered}/{one.sent}",
            "-" if one.rtt_ms is None else output.milliseconds(one.rtt_ms),
            clean(one.note),
        ]
        for one in attempts
    ]
    titles = ("", "FROM", "TO", "WHICH IS", "STATE", "ANSWERED", "RTT", "NOTE")
    return [f"  {line}".rstrip() for line in output.table(titles, rows, right=("ANSWERED", "RTT"))]
