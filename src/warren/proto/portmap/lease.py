"""The lease machine: ways in to one UDP port, at every gateway of this host, by whichever protocol each speaks."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from typing import Final

from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.portmap.exchange import Transmit
from warren.proto.portmap.gateway import GatewayClient
from warren.proto.portmap.http import Response
from warren.proto.portmap.natpmp import PORT
from warren.proto.portmap.pcp import NONCE_BYTES
from warren.proto.portmap.standing import Declined, Event
from warren.proto.portmap.values import Found, Gateway, Mapped
from warren.proto.wireguard.timers import Deadline

GATEWAYS_MAX: Final = 8
"""A host has one or two uplinks, and a few IPv6 addresses on each."""
SECRET_BYTES: Final = 32


class PortMapper:
    """Finds, keeps, renews and releases. Five verbs; single owner; nothing that comes from the network ends it.

    ``random`` gives random bytes. ``secret`` (32 bytes) is what PCP's nonces follow from: kept over restarts, it lets
    a node that crashed have its mapping back (RFC 6887 §11.2); None: one for this life.

    A mapping is the gateway's word until :meth:`confirm` or :meth:`observed` say otherwise: see ``Mapped.verified``.
    """

    def __init__(self, *, random: Callable[[int], bytes], secret: bytes | None = None) -> None:
        self._random = random
        self._secret = secret or random(SECRET_BYTES)
        self._clients: dict[Gateway, GatewayClient] = {}
        self._leaving: list[GatewayClient] = []
        self._lanes = 0
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []

    def configure(self, *, enabled: bool, port: int, gateways: Sequence[Gateway], now: float) -> None:
        """What is wanted from now on; call it again whenever something of it changes.

        Not ``enabled``: nothing is sent, but for giving back what is held. ``port`` 0: gateways are asked what they
        speak and nothing is mapped. A gateway that is no longer listed gets its lease back, if it can be reached.
        """
        wanted = tuple(dict.fromkeys(gateways))[:GATEWAYS_MAX] if enabled else ()
        for gateway in [gateway for gateway in self._clients if gateway not in wanted]:
            leaving = self._clients.pop(gateway)
            leaving.stop(now)
            self._leaving.append(leaving)
        for gateway in wanted:
            if gateway not in self._clients:
                self._clients[gateway] = self._client(gateway, now)
            self._clients[gateway].want(port, now)
        self._collect()

    def again(self, now: float) -> None:
        """The network changed, or somebody wants to know now: ask gateways that had nothing, look after the leases."""
        for client in self._clients.values():
            client.again(now)
        self._collect()

    def close(self, now: float) -> None:
        """Give back all that is held; done when :attr:`is_idle`."""
        self.configure(enabled=False, port=0, gateways=(), now=now)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, and nothing is held."""
        return not self._leaving and all(client.is_idle for client in self._clients.values())

    @property
    def is_settled(self) -> bool:
        """Each gateway has given a lease, or been asked in every protocol."""
        return all(client.is_settled for client in self._clients.values())

    # What is known

    def mapped(self, now: float) -> tuple[Mapped, ...]:
        """What is held, one for each gateway at the most."""
        found = (client.holding.mapped(now) for client in self._clients.values())
        return tuple(mapped for mapped in found if mapped is not None)

    @property
    def found(self) -> tuple[Found, ...]:
        """Which gateway speaks what, as far as it has been asked."""
        return tuple(found for client in self._clients.values() for found in client.found())

    @property
    def problems(self) -> tuple[Declined, ...]:
        """What gateways that speak a protocol refused."""
        return tuple(problem for client in self._clients.values() for problem in client.problems())

    def confirm(self, address: TransportAddress) -> bool:
        """Something authenticated came in from outside by ``address``; whether that is a mapping."""
        confirmed = [client.gateway for client in self._clients.values() if client.holding.confirm(address)]
        return bool(confirmed)

    def observed(self, address: TransportAddress, source: IPAddress | None = None) -> bool:
        """Somebody outside sees the port at ``address`` (a reflexive check, RFC 8489), for packets from ``source``;
        whether that changes what :meth:`mapped` says. The very address of a mapping verifies it; another IP address
        than the gateway's shows another NAT behind it.
        """
        family = [one for one in self._clients.values() if one.gateway.source.version == address.ip.version]
        changed = False
        for client in family:
            through_this = client.gateway.source == source or (source is None and len(family) == 1)
            changed |= client.holding.observed(address, through_this=through_this)
        return changed

    # The five verbs

    def receive(self, lane: int, data: bytes, remote: TransportAddress, now: float) -> None:
        """A datagram came to the socket of ``lane`` (:class:`Datagram`)."""
        for client in self._all():
            client.receive(lane, data, remote, now)
        self._collect()

    def fetched(self, lane: int, number: int, response: Response | None, now: float) -> None:
        """What came of a :class:`Fetching`."""
        for client in self._all():
            client.fetched(lane, number, response, now)
        self._collect()

    def announced(self, data: bytes, remote: TransportAddress, now: float) -> None:
        """A datagram came to port 5350, where gateways speak to all hosts."""
        for client in self._all():
            gateway = client.gateway
            in_scope = remote.scope in {0, gateway.interface}
            if remote.ip == gateway.address and remote.port == PORT and in_scope:
                client.announced(data, now)
        self._collect()

    def handle_timeout(self, now: float) -> None:
        for client in self._all():
            client.handle_timeout(now)
        self._collect()

    def next_deadline(self) -> Deadline | None:
        found = (client.next_deadline() for client in self._all())
        return min((deadline for deadline in found if deadline is not None), default=None)

    def take_transmits(self) -> list[Transmit]:
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    # Inside

    def _all(self) -> list[GatewayClient]:
        return [*self._clients.values(), *self._leaving]

    def _client(self, gateway: Gateway, now: float) -> GatewayClient:
        self._lanes += 2
        place = gateway.address.packed + gateway.source.packed

        def nonce(port: int) -> bytes:
            message = b"warren pcp nonce 1" + place + port.to_bytes(2, "big")
            return hmac.digest(self._secret, message, hashlib.sha256)[:NONCE_BYTES]

        lanes = self._lanes - 1, self._lanes
        return GatewayClient(gateway, lanes=lanes, nonce=nonce, random=self._random, now=now)

    def _collect(self) -> None:
        for client in self._all():
            self._transmits += client.take_transmits()
            self._events += client.take_events()
        self._leaving = [client for client in self._leaving if not client.is_idle]
