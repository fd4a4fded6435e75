"""The page of ``warren status``: lines from values, at a glance and at 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final

import click

from warren.cli import output
from warren.cli.output import clean
from warren.cli.status_streams import stream_lines
from warren.proto.control.local import AgentStatus, CoordinatorLink, Membership, Peer, Relay

_COLOURS: Final = {
    "up": "green",
    "connected": "green",
    "idle": None,
    "starting": "yellow",
    "degraded": "yellow",
    "unknown": "yellow",
    "unreachable": "red",
    "expired": "red",
    "revoked": "red",
}
_TITLES: Final = ("NAME", "STATE", "RTT", "HANDSHAKE", "RECEIVED", "SENT", "LEASE")
_WIDE_TITLES: Final = ("ADDRESSES", "PATH")
_RIGHT: Final = ("RTT", "HANDSHAKE", "RECEIVED", "SENT", "LEASE")
_FACT_WIDTH: Final = 11


def page(status: AgentStatus, now: datetime, width: int | None) -> list[str]:
    """All of it. ``width`` is that of the terminal (None: unlimited); where a peer does not fit on one line it takes
    two.
    """
    if not status.networks:
        return ["This machine is in no network; `warren up 'warren-ticket:…'` joins one."]
    lines: list[str] = []
    for network in status.networks:
        if lines:
            lines.append("")
        lines += _header(network, now)
        lines += ["", *_peers(network.peers, now, width)] if network.peers else ["", "  nobody else is in it"]
    if status.streams:
        said = {task.reason for network in status.networks for task in network.tasks if task.state != "done"} - {""}
        lines += ["", *stream_lines(status.streams, width, said)]
    if status.engine == "rootless":
        lines += [
            "",
            f"rootless, since {clean(status.engine_why)}: `warren exec COMMAND` runs programs in these networks",
        ]
    return lines


# The header


def _header(network: Membership, now: datetime) -> list[str]:
    title = click.style(clean(network.network), bold=True)
    lines = [f"{title}  {_state(network.state)}  {clean(network.fqdn)}"]
    lines += [f"  {click.style(name.ljust(_FACT_WIDTH), dim=True)}  {fact}" for name, fact in _facts(network, now)]
    title = click.style("warning".ljust(_FACT_WIDTH), fg="yellow")
    lines += [f"  {title}  {clean(warning)}" for warning in network.warnings]
    for task in network.tasks:
        if task.state != "done":
            colour = "red" if task.state == "failed" else "yellow"
            reason = f": {clean(task.reason)}" if task.reason else ""
            lines.append(f"  {click.style(task.state.ljust(_FACT_WIDTH), fg=colour)}  {clean(task.name)}{reason}")
    return lines


def _facts(network: Membership, now: datetime) -> Iterator[tuple[str, str]]:
    if network.addresses:
        yield "addresses", _list(tuple(address.partition("/")[0] for address in network.addresses))
    yield "interface", f"{clean(network.interface)} ({clean(network.engine)} engine, UDP port {network.listen_port})"
    if network.lease_ends is not None and network.state != "revoked":
        left = output.until(network.lease_ends, now)
        yield "lease", click.style("has ended", fg="red") if left == "ended" else f"for another {left}"
    yield "coordinator", _coordinator(network.coordinator, now)
    if network.reachability != "unknown":  # nothing more to say than what follows
        yield "reachable", clean(network.reachability)
    if network.udp_blocked:
        yield "UDP", click.style("seems to be blocked in this network: members are reached by TCP only", fg="yellow")
    if network.relays:
        yield "relays", ", ".join(map(_relay, network.relays))
    if network.stated:
        yield "stated", _list(network.stated)
    if network.coordinator.observed:
        yield "observed", f"{clean(network.coordinator.observed)} (by the coordinator)"
    extra = {"tags": network.tags, "routes": network.routes}
    for name, texts in extra.items():
        if texts:
            yield name, _list(texts)
    done = sum(task.state == "done" for task in network.tasks)
    if network.tasks:
        yield "tasks", f"{done} of {len(network.tasks)} done"
    connected = sum(peer.state == "connected" for peer in network.peers)
    yield "members", f"{len(network.peers) + 1} with this one, {connected} connected to it"


def _coordinator(link: CoordinatorLink, now: datetime) -> str:
    for_ = f" for {output.span((now - link.since).total_seconds())}" if link.since is not None else ""
    if link.connected:
        return f"connected{for_} to {clean(link.url)}"
    why = f": {clean(link.error)}" if link.error else ""
    return click.style(f"not connected{for_}{why}", fg="yellow")


# The peers


def _peers(peers: tuple[Peer, ...], now: datetime, width: int | None) -> list[str]:
    ordered = sorted(peers, key=lambda peer: peer.name)
    reasons = list(_reasons(ordered))
    if reasons:
        return [*_table(ordered, now, width), "", *reasons]
    return _table(ordered, now, width)


def _table(ordered: list[Peer], now: datetime, width: int | None) -> list[str]:
    titles = (*_TITLES[:2], *_WIDE_TITLES, *_TITLES[2:])
    rows = [_row(peer, now) for peer in ordered]
    wide = [[*row[:2], _list(peer.addresses), _path(peer), *row[2:]] for peer, row in zip(ordered, rows, strict=True)]
    if width is None or output.table_width(titles, wide) + 2 <= width:
        return [f"  {line}".rstrip() for line in output.table(titles, wide, right=_RIGHT)]
    first, *narrow = output.table(_TITLES, rows, right=_RIGHT, flexible=("NAME",), margin=2)
    lines = [f"  {first}"]
    for peer, line in zip(ordered, narrow, strict=True):
        lines += [f"  {line}", f"    {' '.join(map(clean, peer.addresses))}", f"    {_path(peer)}"]
        if width >= output.visible_length(lines[-1]) + output.visible_length(lines[-2]) - 2:
            path = lines.pop().strip()
            lines[-1] += f"  {path}"
    return lines


def _row(peer: Peer, now: datetime) -> list[str]:
    return [
        clean(peer.name),
        _state(peer.state),
        output.milliseconds(peer.rtt_ms) or "-",
        "-" if peer.handshake_age_s is None else f"{output.span(peer.handshake_age_s)} ago",
        output.size(peer.rx_bytes),
        output.size(peer.tx_bytes),
        output.until(peer.lease_ends, now),
    ]


def _path(peer: Peer) -> str:
    if peer.path == "relayed":
        return f"relayed via {clean(peer.relay)}"
    return f"direct {clean(peer.endpoint)}" if peer.path == "direct" else "none"


def _reasons(peers: Iterable[Peer]) -> Iterator[str]:
    """Why nobody is reached who is not."""
    for peer in peers:
        if peer.state == "unreachable" and peer.why:
            yield f"  {click.style('no way'.ljust(_FACT_WIDTH), fg='red')}  {clean(peer.name)}: {clean(peer.why)}"


def _relay(relay: Relay) -> str:
    over = f" over {relay.transport.upper()}" if relay.transport in {"tls", "tcp"} else ""
    match relay.state:
        case "ready":
            rtt = f" ({output.milliseconds(relay.rtt_ms)})" if relay.rtt_ms is not None else ""
            return f"{clean(relay.name)}{over}{rtt}"
        case "standby":
            return f"{clean(relay.name)} (not needed)"
        case "asking":
            return f"{clean(relay.name)} (being asked{over})"
    return click.style(f"{clean(relay.name)} ({clean(relay.why)})", fg="yellow")


def _state(state: str) -> str:
    return click.style(state, fg=_COLOURS.get(state))


def _list(texts: tuple[str, ...]) -> str:
    return ", ".join(map(clean, texts))
