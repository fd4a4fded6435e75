"""How this node looks from outside: the addresses that relays and peers see, those that gateways gave, and what its NAT
does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from warren import log
from warren.model.datagrams import ControlDatagram
from warren.model.tunnel import PLAIN, TransportAddress
from warren.paths.connectivity import Connectivity
from warren.paths.nat import Situation
from warren.paths.values import Base, CandidateKind
from warren.reach.doors import Owner
from warren.reach.drive import Drive
from warren.reach.mirrors import Knocked, Mirrors, Throw
from warren.reach.reflexive import Reflexive
from warren.reach.uplinks import Uplinks

_log = log.get("reach")


class Outside:
    """Asks with :class:`Reflexive` and :class:`Mirrors`, tells path selection and the owner. Single owner."""

    def __init__(
        self,
        network: str,
        random: Callable[[int], bytes],
        relays: Uplinks,
        paths: Connectivity,
        drive: Drive,
        owner: Owner,
    ) -> None:
        """``network``: its name, for the log."""
        self._network = network
        self._relays = relays
        self._paths = paths
        self._owner = owner
        self._reflexive = Reflexive(random)
        self._mirrors = Mirrors(random)
        self._drive = drive
        self._ways_in: tuple[TransportAddress, ...] = ()
        self._unproven: tuple[TransportAddress, ...] = ()
        self._seen_by_peers: dict[Base, TransportAddress] = {}
        self.machines: Final = (self._reflexive, self._mirrors)
        """To be woken in time."""

    # What happens

    def set_ways_in(self, verified: Iterable[TransportAddress], others: Iterable[TransportAddress], now: float) -> None:
        """Addresses that gateways have given; through the ``others`` nothing has come in yet."""
        self._ways_in, self._unproven = tuple(verified), tuple(others)
        self.look_in_mirrors(now)

    def network_changed(self, now: float) -> None:
        """Routes of this host, or what is behind them, may be others."""
        self._reflexive.network_changed(now)
        self._forget()
        self.look_in_mirrors(now)

    def ask(self, now: float) -> None:
        """Every relay that answers, from every base, unless that is known."""
        self._reflexive.keep(self._drive.bases, self._relays.reflectors(), now)

    def again(self, now: float) -> None:
        """What was found out may be different now."""
        self._reflexive.again(now)

    def reflected(self, mapped: TransportAddress, now: float) -> None:
        """A relay sees this node at ``mapped``."""
        self.ask(now)
        if not self._reflexive.knows(mapped):
            self._reflexive.again(now)

    def seen(self, base: Base, address: TransportAddress) -> None:
        """A peer sees what leaves from ``base`` at ``address``."""
        self._seen_by_peers[base] = address

    def receive(self, data: bytes, remote: TransportAddress, now: float) -> bool:
        """Something came to the tunnel's port. False: it is not from here."""
        return self._reflexive.receive(data, remote, now) or self._mirrors.receive(data, remote)

    def came(self, base: Base, peer: TransportAddress, data: bytes) -> bool:
        """Something came to an allocation. False: it is not from here."""
        return self._mirrors.came(base, peer, data)

    def take_transmits(self) -> list[ControlDatagram | Throw]:
        return [*self._mirrors.take_transmits(), *self._reflexive.take_transmits()]

    # What is known

    def candidates(self) -> list[tuple[CandidateKind, TransportAddress]]:
        """What others see of this node, the best first: outside addresses, then those at relays."""
        provable = any(leg.ready for leg in self._relays.legs())
        ways_in = self._ways_in if provable else (*self._ways_in, *self._unproven)
        found: list[tuple[CandidateKind, TransportAddress]] = [("mapped", address) for address in ways_in]
        found += [("srflx", mapped) for _, mapped in self._reflexive.mapped()]
        found += [("srflx", seen) for base, seen in self._seen_by_peers.items() if base in self._drive.bases]
        found += [("relay", address) for leg in self._relays.legs() if leg.ready for address in leg.client.relayed]
        return found

    def situation(self, port: int, *, udp: bool) -> Situation | None:
        """What stands before this node, whose tunnel has ``port``. ``udp``: it passes. None: not known."""
        relay = any(leg.ready for leg in self._relays.legs())
        return self._reflexive.situation(port, udp=udp, tcp=True, relay=relay)

    # The work

    def take_mappings(self, now: float) -> None:
        """Tell what was found out."""
        for base, mapped, server in self._reflexive.take_events():
            self._paths.set_mapped(base, mapped, now, server)
            self._relays.proven(base, now)
            if base.address is not None:
                self._owner.observed(mapped, base.address)
            self.look_in_mirrors(now)
        if self._reflexive.moved:
            self._reflexive.moved = False
            _log.debug("%s: the outside address is another one", self._network)
            self._forget()
            self._paths.network_changed(now)
        for found in self._mirrors.take_events():
            if isinstance(found, Knocked):
                self._owner.came_in_by(found.address)
                continue
            self._reflexive.mirrored(found)
            self._paths.set_mapped(found.base, found.mapped, now, found.relayed)

    def look_in_mirrors(self, now: float) -> None:
        """See by the allocations what there is to be seen and was not yet."""
        for leg in self._relays.legs():
            for relayed in leg.client.relayed if leg.ready and leg.transport == "udp" and leg.way == PLAIN else ():
                for address in self._unproven:
                    if address.ip.version == relayed.ip.version:
                        self._mirrors.knock(leg.base, relayed, address, now)
                for base in self._drive.bases:
                    outside = self._reflexive.outside(base)
                    if outside is not None and outside.ip.version == relayed.ip.version:
                        self._mirrors.look(base, leg.base, relayed, outside, now)

    def _forget(self) -> None:
        self._mirrors.forget()
        self._seen_by_peers.clear()
