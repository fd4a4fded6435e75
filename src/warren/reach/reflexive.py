"""How this node looks from outside: the addresses that relays see, and what kind of NAT follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
SERVERS_MAX: Final = 8
"""Two tell what a NAT does to a family; the others are for when one of them is in an odd place."""
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

    def keep(self, bases: tuple[Base, ...], servers: Iterable[TransportAddress], now: float) -> None:
        """Ask what was not asked yet. ``servers`` are addresses to send to, those behind a NAT64 in its prefix."""
        self._bases = tuple(base for base in bases if base.kind == "host")
        self._servers = tuple(dict.fromkeys(servers))[:SERVERS_MAX]
        self._seen = {base: seen for base, seen in self._seen.items() if base in self._bases}
        self._ask(now, only_new=True)

    def network_changed(self, now: float) -> None:
        """What was seen need not hold any more."""
        self._probes.forget()
        self._mirrored.clear()
        # A mirror shows it once, since what goes to it opens the way back. A global address has its firewall with it.
        self._heard = {base: heard for base, heard in self._heard.items() if base.address and base.address.is_global}
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
        """How a server of its own family sees ``base``; None: none has answered."""
        seen = self._seen.get(base, {}).values()
        return next((one for one in seen if one.ip.version == _version(base)), None)

    def mapped(self) -> list[tuple[Base, TransportAddress]]:
        """The outside addresses of each base, IPv6 first, each once."""
        pairs = {(base, mapped): None for base, seen in self._seen.items() for mapped in seen.values()}
        return sorted(pairs, key=lambda pair: pair[1].ip.version == 4)

    def behaviour(self, version: int, port: int) -> Behaviour | None:
        """What a NAT does to the first base that has an outside address of that family, as far as can be told from two
        servers; for IPv4 that may be the NAT64 in front of an IPv6 base. ``port`` is the tunnel's. None: there is none.
        """
        found = self._outside(version)
        if found is None:
            return None
        base, mapped = found
        heard = self._heard.get(base, False) and base.address is not None and base.address.version == version
        return _behaviour(base, mapped, port, heard=heard)

    def _outside(self, version: int) -> tuple[Base, list[TransportAddress]] | None:
        for base, seen in sorted(self._seen.items(), key=lambda one: _version(one[0]) != version):
            everything = (*seen.values(), *self._mirrored.get(base, {}).values())
            mapped = [one for one in everything if one.ip.version == version]
            if mapped:
                return base, mapped
        return None

    def situation(self, port: int, *, udp: bool, tcp: bool, relay: bool) -> Situation | None:
        """None: nothing is known."""
        v4, v6 = self.behaviour(4, port), self.behaviour(6, port)
        if v4 is None and v6 is None and udp:
            return None
        translated = self._outside(4)
        nat64 = translated is not None and _version(translated[0]) == 6
        return Situation(v4=v4, v6=v6, udp=udp, tcp=tcp, relay=relay, nat64=nat64)

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


def _version(base: Base) -> int:
    return 0 if base.address is None else base.address.version


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
