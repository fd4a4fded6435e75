"""Two Connectivity machines and a network that a test can listen to, forge in and cut."""

from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import ip_address

from warren.model.tunnel import TransportAddress
from warren.paths.connectivity import Connectivity
from warren.paths.events import Check, Event, Selected, SignalWanted
from warren.paths.values import Base, Path, RemoteCandidate, Settings

PORT = 51820
KEY = b"k" * 32


def at(text: str, port: int = PORT) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


def host(text: str, interface: int = 1) -> Base:
    return Base(address=ip_address(text), interface=interface)


class PathPair:
    """``a`` (it controls) at 192.0.2.1 and ``b`` at 192.0.2.2, in each other's sight. What they send is in ``wire``."""

    A = b"a" * 32
    B = b"b" * 32

    def __init__(self, seed: int = 1, settings: Settings | None = None) -> None:
        chance = random.Random(seed)
        self.now = 100.0
        self.a = Connectivity(node=self.A, random=chance.randbytes, now=self.now, settings=settings)
        self.b = Connectivity(node=self.B, random=chance.randbytes, now=self.now, settings=settings)
        self.bases = {self.a: host("192.0.2.1"), self.b: host("192.0.2.2")}
        self.events: dict[Connectivity, list[Event]] = {self.a: [], self.b: []}
        self.wire: list[tuple[float, Connectivity, Check]] = []
        """When, by whom, what."""
        self.counters = (0, 0)
        """What a sent to b and got, as told last by ``count``."""
        self.passes: Callable[[Connectivity, Check], bool] = lambda machine, check: True
        for machine, base in self.bases.items():
            machine.set_bases((base,), self.now)
        self.a.set_peer(self.B, (KEY,), (RemoteCandidate("host", at("192.0.2.2")),), "", self.now)
        self.b.set_peer(self.A, (KEY,), (RemoteCandidate("host", at("192.0.2.1")),), "", self.now)

    def count(self, sent: int, came: int) -> None:
        """So many bytes more went from a to b, and came back."""
        self.counters = (self.counters[0] + sent, self.counters[1] + came)
        self.a.traffic(self.B, *self.counters, self.now)

    def address(self, machine: Connectivity) -> TransportAddress:
        base = self.bases[machine]
        if base.address is None:
            raise ValueError("not a host base")
        return TransportAddress(base.address, PORT)

    def collect(self) -> list[tuple[Connectivity, Check]]:
        """Takes what both have to send and say."""
        found = []
        for machine in (self.a, self.b):
            self.events[machine] += machine.take_events()
            for check in machine.take_transmits():
                self.wire.append((self.now, machine, check))
                found.append((machine, check))
        return found

    def deliver(self, checks: list[tuple[Connectivity, Check]]) -> None:
        """Without delay, to whom they are addressed."""
        for machine, check in checks:
            other = self.b if machine is self.a else self.a
            if (
                check.remote == self.address(other)
                and check.base == self.bases[machine]
                and self.passes(machine, check)
            ):
                other.receive(check.data, self.address(machine), self.bases[other], self.now)

    def settle(self) -> None:
        for _ in range(1000):
            found = self.collect()
            if not found:
                return
            self.now += 0.001
            self.deliver(found)
        raise AssertionError("they never come to rest")

    def run(self, seconds: float) -> None:
        """Until then, with all timers; signals arrive by the coordinator."""
        end = self.now + seconds
        for _ in range(1_000_000):
            self.settle()
            for machine, node in ((self.a, self.B), (self.b, self.A)):
                for event in self.events[machine]:
                    if isinstance(event, SignalWanted) and event.node == node:
                        (self.b if machine is self.a else self.a).signal_received(
                            self.A if machine is self.a else self.B, event.data, self.now
                        )
                self.events[machine] = [one for one in self.events[machine] if not isinstance(one, SignalWanted)]
            self.settle()
            due = [one.at for machine in (self.a, self.b) if (one := machine.next_deadline()) is not None]
            if not due or min(due) > end:
                self.now = end
                return
            self.now = max(self.now, min(due))
            for machine in (self.a, self.b):
                machine.handle_timeout(self.now)
        raise AssertionError("a million timers")

    def selected(self, machine: Connectivity) -> Path | None:
        chosen = [one for one in self.events[machine] if isinstance(one, Selected)]
        return chosen[-1].path if chosen else None
