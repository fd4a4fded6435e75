"""``warren ping``: whether another member answers, how fast, and by which path."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Final

import click

from warren.cli import access_agent, output
from warren.cli.completion_names import NODE
from warren.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warren.cli.ping_echo import Account
    from warren.proto.control.local import AgentStatus, Peer

_LAST_ANSWER_S: Final = 2.0
"""How long the last request is waited for."""


@click.command("ping")
@click.argument("node", type=NODE)
@click.option(
    "--count", "-c", metavar="N", type=click.IntRange(0), default=5, show_default=True, help="How often; 0: no end."
)
@click.option(
    "--interval",
    "-i",
    "interval_s",
    metavar="S",
    type=click.FloatRange(0.01, 3600),
    default=1.0,
    show_default=True,
    help="Seconds from one to the next.",
)
@click.option("-4", "family", flag_value=4, type=int, help="To its IPv4 address.")
@click.option("-6", "family", flag_value=6, type=int, help="To its IPv6 address, the default where it has both.")
@access_agent.run_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
def command(node: str, count: int, interval_s: float, family: int | None, run: str | None, as_json: bool) -> None:
    """Ping NODE through the tunnel: a member by its short or full name, or an address of it or behind it.

    The exit status is 1 when nothing was answered.
    """
    target = _find(run, node, family)
    if not as_json:
        click.echo(f"PING {target.title}")
    account = _run(target, count, interval_s, run=run, quiet=as_json)
    if not as_json:
        click.echo(_summary(account))
    state, path = _path_to(access_agent.status(run), target.address)
    if as_json:
        output.emit(_as_value(target, account, state, path))
    elif state:
        click.echo(output.clean(f"path: {path} ({state})"))
    if not account.received:
        raise OperationFailed(f"{node} does not answer; {_what_to_do(state)}")


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    address: IPv4Address | IPv6Address

    @property
    def title(self) -> str:
        return f"{self.name} ({self.address})" if self.name != str(self.address) else self.name


def _find(run: str | None, node: str, family: int | None) -> _Target:
    """Raises OperationFailed when the agent knows no such member, or it has no address of that family."""
    try:
        literal = ip_address(node)
    except ValueError:
        found = [ip_address(text) for text in access_agent.ask(run, lambda agent: agent.resolve(node))]
    else:
        if not _path_to(access_agent.status(run), literal)[0]:
            raise OperationFailed(f"{node} is not in a network of this machine, nor behind a member; use plain ping")
        found = [literal]
    suitable = [address for address in found if family in {None, address.version}]
    if not suitable:
        has = " and ".join(map(str, found))
        raise OperationFailed(f"{node} has no IPv{family} address; it has {has}" if has else f"{node} has no address")
    return _Target(node, max(suitable, key=lambda address: address.version))


def _run(target: _Target, count: int, interval_s: float, *, run: str | None, quiet: bool) -> Account:
    """Send and wait; Ctrl-C ends it early."""
    from socket import SOCK_DGRAM

    from warren.cli.ping_echo import TOKEN_BYTES, Account, EchoSocket, icmp_of

    account = Account()
    family, protocol = icmp_of(target.address)
    ready = access_agent.overlay_socket(run, family, SOCK_DGRAM, protocol)
    with EchoSocket(target.address, os.urandom(TOKEN_BYTES), ready) as echoes:
        try:
            while not count or account.sent < count:
                now = time.monotonic()
                last = account.sent + 1 == count
                why = echoes.send(account.send(now))
                if why and not quiet:
                    click.echo(f"not sent: {why}")
                until = now + (max(_LAST_ANSWER_S, interval_s) if last else interval_s)
                while (left := until - time.monotonic()) > 0 and (account.waiting or not last):
                    sequence = echoes.receive(left)
                    rtt_ms = None if sequence is None else account.receive(sequence, time.monotonic())
                    if rtt_ms is not None and not quiet:
                        click.echo(f"{target.address} answers: seq={sequence} time={output.milliseconds(rtt_ms)}")
        except KeyboardInterrupt:
            if not quiet:
                click.echo()
    return account


def _path_to(status: AgentStatus, address: IPv4Address | IPv6Address) -> tuple[str, str]:
    """State of and path to the member that has that address, or that it is behind; empty for no member."""
    for network in status.networks:
        if address in {ip_interface(own).ip for own in network.addresses}:
            return "this machine", "none"
        for peer in network.peers:
            if any(address in place for place in _places(peer)):
                return peer.state, f"relayed via {peer.relay}" if peer.relay else f"{peer.path} {peer.endpoint}".strip()
    return "", ""


def _what_to_do(state: str) -> str:
    if state == "connected":
        return "the tunnel to it works, so see whether the policy (`warren network show`) and its firewall let icmp in"
    return "`warren status` shows how this machine stands with it"


def _places(peer: Peer) -> Iterator[IPv4Network | IPv6Network]:
    """The peer's addresses, with the whole /64 that each member has, and the routes it offers."""
    for text in peer.addresses:
        address = ip_interface(text).ip
        yield ip_network((address, 32 if address.version == 4 else 64), strict=False)
    for route in peer.routes:
        yield ip_network(route)


def _summary(account: Account) -> str:
    line = f"{account.sent} sent, {account.received} received, {account.lost_percent:.0f} % lost"
    if not account.rtts_ms:
        return line
    figures = (min(account.rtts_ms), sum(account.rtts_ms) / account.received, max(account.rtts_ms))
    return f"{line}; round trip {' / '.join(map(output.milliseconds, figures))} (least, mean, most)"


def _as_value(target: _Target, account: Account, state: str, path: str) -> dict[str, object]:
    return {
        "node": target.name,
        "address": str(target.address),
        "sent": account.sent,
        "received": account.received,
        "rtts_ms": [round(rtt_ms, 3) for rtt_ms in account.rtts_ms],
        "state": state,
        "path": path,
    }
