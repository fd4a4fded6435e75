"""A small Internet with a coordinator, relays, and members at sites of a kind; and what is measured while it breaks."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass
from functools import partial

from warren.lab import Host, Lab
from warren.lab.nat import NatKind
from warren.lab.network import Network
from warren.lab.remote import Call
from warren.lab.site import INSIDE, Internet, Site
from warren.lab.site_kinds import SiteKind

_NUMBER = struct.Struct("!Q")
_PATIENCE_S = 60.0


class World:
    """``relays`` of them are there, named r1, r2 …, besides whatever the coordinator brings."""

    def __init__(self, lab: Lab, *, relays: int = 1) -> None:
        self.lab = lab
        self.internet = Internet(lab)
        self.server = self.internet.server("server")
        self.url = f"https://{self.internet.address('server')}:443"
        self.network = Network(self.server, "home", url=self.url)
        self.relays = [self.internet.server(f"r{number + 1}") for number in range(relays)]
        self._addresses: dict[str, str] = {}

    def start(self) -> None:
        url6 = f"https://[{self.internet.address('server', 6)}]:443"
        self.network.start("--url", url6, "--listen", "0.0.0.0:443", "--listen", "[::]:443", "--no-relay")
        for host in self.relays:
            name = host.name
            addresses = [self.internet.address(name), self.internet.address(name, 6)]
            self.network.start_relay(host, addresses=addresses)

    def site(self, name: str, kind: SiteKind | NatKind | str, lan: str = "192.168.1.0/24") -> Site:
        return self.internet.site(name, kind, lan=lan)

    def join(self, *hosts: Host, env: dict[str, str] | None = None) -> None:
        """All at once; returns when they know each other."""
        ticket = self.network.ticket("--uses", str(len(hosts)))
        for host in hosts:
            self.network.join(host, ticket=ticket, wait=False)
        for host in hosts:
            self.network.wait_up(host)
        everybody = [node.host for node in self.network.nodes.values()]
        for host in everybody:
            others = [one for one in everybody if one is not host]
            host.wait_for(partial(self.network.knows, host, others), _PATIENCE_S)

    def address(self, host: Host) -> str:
        if host.name not in self._addresses:
            self._addresses[host.name] = self.network.address(host)
        return self._addresses[host.name]

    # What a host sees

    def peer(self, host: Host, other: Host) -> dict[str, object]:
        peers = self.network.status(host)["peers"]
        return next((dict(one) for one in peers if one["name"] == other.name), {})

    def path(self, host: Host, other: Host) -> str:
        return str(self.peer(host, other).get("path", "none"))

    def pings(self, host: Host, other: Host, within_s: float = 30.0) -> None:
        """Raises OperationFailed when ``other`` does not answer in time."""
        host.wait_for(["ping", "-n", "-c1", "-W1", self.address(other)], within_s)

    def wait_path(self, host: Host, other: Host, path: str, within_s: float = 60.0) -> None:
        """Keeps the pair busy meanwhile: nobody looks for paths that nobody uses."""
        ping = host.start(["ping", "-n", "-q", "-i", "0.2", self.address(other)], name="busy")
        try:
            host.wait_for(lambda: self.path(host, other) == path, within_s)
        finally:
            ping.stop(5.0)

    def stream(self, sender: Host, receiver: Host, seconds: float) -> Stream:
        """Numbered datagrams, one each 20 ms, in the background."""
        return Stream(sender, receiver, self.address(receiver), seconds)


def to_relays_only(site: Site) -> None:
    """The router of ``site`` lets UDP go to the port of relays, and nowhere else."""
    router = site.router
    router.run(["nft", "add", "table", "inet", "strict"])
    router.run(["nft", "add", "chain", "inet", "strict", "out", "{ type filter hook forward priority -10; }"])
    router.run(["nft", "add", "rule", "inet", "strict", "out", "iifname", INSIDE, "udp", "dport", "!=", "3478", "drop"])


@dataclass(frozen=True, slots=True)
class Received:
    """When each datagram arrived, of the machine's monotonic clock, by number; what came twice counts once."""

    at: dict[int, float]
    sent: int

    @property
    def lost(self) -> int:
        return self.sent - len(self.at)

    def longest_gap_s(self, after: float = 0.0) -> float:
        """The longest time without an arrival, of what arrived later than ``after``; the time up to then counts."""
        times = sorted(time for time in self.at.values() if time > after)
        before = max((time for time in self.at.values() if time <= after), default=times[0] if times else after)
        return max((b - a for a, b in zip([before, *times], times, strict=False)), default=float("inf"))


class Stream:
    """Begins at once; :meth:`result` waits for its end."""

    def __init__(self, sender: Host, receiver: Host, address: str, seconds: float) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._sink = receiver.socket(family, socket.SOCK_DGRAM)
        self._sink.bind((address, 0))
        port = self._sink.getsockname()[1]
        self._seconds = seconds
        self._receiving: Call[dict[int, float]] = receiver.begin(_collect, self._sink, seconds + 1.0)
        self._sending: Call[int] = sender.begin(_send, family, (address, port), seconds)

    def result(self) -> Received:
        try:
            sent = self._sending.result(self._seconds + 30.0)
            return Received(self._receiving.result(self._seconds + 30.0), sent)
        finally:
            self._sink.close()


def _send(family: int, target: tuple[str, int], seconds: float) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        number, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):  # a host without a way out says so; the gap tells
                sender.sendto(_NUMBER.pack(number), target)
            number += 1
            time.sleep(0.02)
    return number


def _collect(sink: socket.socket, seconds: float) -> dict[int, float]:
    found: dict[int, float] = {}
    sink.settimeout(0.2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            (number,) = _NUMBER.unpack(sink.recv(64))
        except TimeoutError:
            continue
        found.setdefault(number, time.monotonic())
    return found
