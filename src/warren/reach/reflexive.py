"""How this node looks from outside: the addresses that relays see, and what kind of NAT follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import TransportAddress
from warren.paths.nat import FIREWALLED, OPEN, Allocation, Behaviour, Filtering, Situation
from warren.paths.values import Base
from warren.proto.wireguard.timers import Deadline
from warren.reach.courses import way_of
from warren.reach.mirrors import Mirrored
from warren.reach.probes import Answered, Probes

AGAIN_S: Final = 120.0
SERVERS_MAX: Final = 4
"""Two tell what a NAT does; the others are for when one of them is in an odd place."""
_NEAR: Final = 64
"""Outside ports this close to each other were given out in order."""


class Reflexive:
    """Asks each server from each base. Single owner; never fails."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._probes: Probes[Base] = Probes(random)
        self._bases: tuple[Base, ...] = ()
        self._servers: tuple[TransportAddress, ...] = ()
        self._seen: dict[Base, dict[TransportAddress, TransportAddress]] = {}
        self._mirrored: dict[Base, dict[TransportAddress, TransportAddress]] = {}
        self._heard: dict[Base, bool] = {}
        self._fresh: list[tuple[Base, TransportAddress, TransportAddress]] = []
        self.moved = False
        """An outside address was another than before; whoever sees to it resets this."""
        self._again_at: float | None = None

    def keep(self, bases: tuple[Base, ...], servers: Mapping[str, TransportAddress], now: float) -> None:
        """Ask what was not asked yet."""
        self._bases = tuple(base for base in bases if base.kind == "host")
        self._servers = tuple(dict.fromkeys(servers.values()))[:SERVERS_MAX]
        self._seen = {base: seen for base, seen in self._seen.items() if base in self._bases}
        self._ask(now, only_new=True)

    def network_changed(self, now: float) -> None:
        """What was seen need not hold any more."""
        self._probes.forget()
        self._mirrored.clear()
        self._heard.clear()
        self._ask(now, only_new=False)

    def again(self, now: float) -> None:
        """Something hints that what was seen does not hold any more."""
        self._ask(now, only_new=False)

    def mirrored(self, found: Mirrored) -> None:
        """What an allocation of our own showed (mirrors.py)."""
        self._mirrored.setdefault(found.base, {})[found.relayed] = found.mapped
        self._heard[found.base] = self._heard.get(found.base, False) or found.heard

    def knows(self, mapped: TransportAddress) -> bool:
        """Whether some base has that outside address."""
        return any(mapped in seen.values() for seen in self._seen.values())

    def outside(self, base: Base) -> TransportAddress | None:
        """How a server sees ``base``; None: none has answered."""
        return next(iter(self._seen.get(base, {}).values()), None)

    def mapped(self) -> list[tuple[Base, TransportAddress]]:
        """The outside addresses of each base, IPv6 first, each once."""
        pairs = {(base, mapped): None for base, seen in self._seen.items() for mapped in seen.values()}
        return sorted(pairs, key=lambda pair: pair[1].ip.version == 4)

    def behaviour(self, version: int, port: int) -> Behaviour | None:
        """What a NAT in front of the first base of that family does, as far as can be told from two servers. ``port``
        is the tunnel's. None: nobody answered.
        """
        for base, seen in self._seen.items():
            if base.address is not None and base.address.version == version and seen:
                mapped = [*seen.values(), *self._mirrored.get(base, {}).values()]
                return _behaviour(base, mapped, port, heard=self._heard.get(base, False))
        return None

    def situation(self, port: int, *, udp: bool, tcp: bool, relay: bool) -> Situation | None:
        """None: nothing is known."""
        v4, v6 = self.behaviour(4, port), self.behaviour(6, port)
        if v4 is None and v6 is None and udp:
            return None
        return Situation(v4=v4, v6=v6, udp=udp, tcp=tcp, relay=relay)

    # The machine's verbs

    def receive(self, data: bytes, remote: TransportAddress, now: float) -> bool:
        """False: it is not an answer to one of the questions."""
        if not self._probes.receive(data, remote, now):
            return False
        self._take()
        return True

    def handle_timeout(self, now: float) -> None:
        self._probes.handle_timeout(now)
        self._take()
        if self._again_at is not None and now >= self._again_at:
            self._ask(now, only_new=False)

    def next_deadline(self) -> Deadline | None:
        again = None if self._again_at is None else Deadline(self._again_at, "outside addresses are looked at again")
        return min((one for one in (again, self._probes.next_deadline()) if one is not None), default=None)

    def take_transmits(self) -> list[ControlDatagram]:
        return self._probes.take_transmits()

    def take_events(self) -> list[tuple[Base, TransportAddress, TransportAddress]]:
        """Answers: the base, its outside address, and the server that saw it."""
        taken, self._fresh = self._fresh, []
        return taken

    def _ask(self, now: float, *, only_new: bool) -> None:
        for base in self._bases:
            for server in self._servers:
                same = base.address is not None and base.address.version == server.ip.version
                if same and not (only_new and server in self._seen.get(base, {})):
                    self._probes.ask(server, base, now, way_of(base))
        self._again_at = now + AGAIN_S if self._bases and self._servers else None

    def _take(self) -> None:
        for event in self._probes.take_events():
            base = event.tag
            if base not in self._bases:
                continue
            seen = self._seen.setdefault(base, {})
            if not isinstance(event, Answered):
                seen.pop(event.server, None)
            else:
                if seen.get(event.server, event.mapped) != event.mapped:
                    self.moved = True
                    seen.clear()  # what other servers saw before is as old
                    self._mirrored.pop(base, None)
                seen[event.server] = event.mapped
                self._fresh.append((base, event.mapped, event.server))


def _behaviour(base: Base, mapped: list[TransportAddress], port: int, *, heard: bool) -> Behaviour:
    """``heard``: what came from another port of an address that was sent to was let in. Whether one that was never sent
    to would be heard is not known: of a NAT the worse is taken, and without one there are firewalls that look at ports,
    and none.
    """
    if all(one.ip == base.address and one.port == port for one in mapped):
        return OPEN if heard else FIREWALLED
    filtering: Filtering = "adf" if heard else "apdf"
    ports = sorted({one.port for one in mapped})
    preserving = ports == [port]
    if len(set(mapped)) == 1:
        return Behaviour("eim", filtering, "preserving" if preserving else "random")
    allocation: Allocation = "sequential" if ports[-1] - ports[0] <= _NEAR else "random"
    return Behaviour("apdm", filtering, "preserving" if preserving else allocation)
