"""A TURN server without sockets (RFC 8656): what clients ask for, and what becomes of it.

Bytes of clients come in by :meth:`TurnServer.receive`, datagrams of peers that have no channel by
:meth:`TurnServer.from_peer`; what is to be sent and what happened goes out by ``take_…``. Data in channels needs none
of this: the driver finds peer and channel in the dictionaries of ``server_values`` and moves whole trains.

Nothing is kept for a client that has not authenticated. An authenticated one has a bounded number of allocations,
permissions and channels. Errors are numbers on the wire: no input ends the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    pack_uint32,
    pack_xor_address,
    unpack_family_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.message import (
    MESSAGE_BYTES_MAX,
    Attribute,
    Class,
    Message,
    Method,
    decode_untrusted,
    encode,
    unknown_required,
)
from warren.proto.turn.filter import PeerFilter
from warren.proto.turn.nonce import Nonces
from warren.proto.turn.server_allocate import lifetime_of_untrusted, wish_of
from warren.proto.turn.server_auth import Asker, Attributes, Authenticator
from warren.proto.turn.server_peers import bind_untrusted, permit_untrusted
from warren.proto.turn.server_replies import KNOWN, Replies
from warren.proto.turn.server_table import AllocationTable
from warren.proto.turn.server_values import (
    LIFETIME_S,
    UDP,
    Allocation,
    Client,
    Closed,
    Credentials,
    Event,
    Opened,
    RelayedPort,
    Settings,
    SocketAddress,
    Sockets,
    ToClient,
    ToPeer,
    Transmit,
    socket_address,
    transport_address,
)
from warren.proto.wireguard.timers import Deadline

STREAM_MESSAGE_BYTES_MAX: Final = 65_535 + 20
"""Of a STUN message over TCP: it may hold the largest datagram there is."""
INDICATED_BYTES_MAX: Final = 65_535 - 24 - 4 - 3
"""Of data in a Data indication: what fits with the longest XOR-PEER-ADDRESS before it and padding behind."""


class TurnServer:
    """See the module. ``counters`` says what happened how often; ``allocations`` and ``relayed`` are for reading."""

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        peers: PeerFilter,
        sockets: Sockets,
        random: Callable[[int], bytes],
    ) -> None:
        self._table = AllocationTable(settings, sockets, random, self._ended)
        self.allocations = self._table.by_client
        self.relayed = self._table.relayed
        """By the address that peers send to: the way from one client to another leads through here."""
        self.peers = peers
        """May be replaced by a newer one."""
        self.refusing = False
        """No new allocations: the server is about to stop."""
        self.counters: Counter[str] = Counter()
        self._settings = settings
        auth = Authenticator(credentials, settings.realm, Nonces(random(32)))
        self._replies = Replies(auth, self.counters, self._tell)
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []
        self._handlers: dict[int, Callable[[Message, Client, Asker, float], None]] = {
            Method.ALLOCATE: self._allocate,
            Method.REFRESH: self._refresh,
            Method.CREATE_PERMISSION: self._create_permission,
            Method.CHANNEL_BIND: self._bind_channel,
        }

    # Verbs

    def receive(self, data: bytes | memoryview, client: Client, now: float) -> None:
        """A STUN message of a client, whole."""
        limit = MESSAGE_BYTES_MAX if client.transport == UDP else STREAM_MESSAGE_BYTES_MAX
        allocation = self.allocations.get(client)
        if allocation is not None:
            limit = STREAM_MESSAGE_BYTES_MAX
        try:
            message = decode_untrusted(data, limit)
        except MalformedPacket:
            self.counters["malformed"] += 1
            return
        if message.cls is Class.INDICATION:
            if message.method == Method.SEND and allocation is not None:
                self._send(message, allocation, now)
            return
        if message.cls is not Class.REQUEST:
            return
        if message.method == Method.BINDING:
            self._replies.binding(message, client, now, proven=self._has_proved_its_address(client))
            return
        handler = self._handlers.get(message.method)
        if handler is None:
            self.counters["unknown_method"] += 1
            return
        asker = self._replies.asker(message, client, now, proven=self._has_proved_its_address(client))
        if asker is None:
            return
        try:
            handler(message, client, asker, now)
        except MalformedPacket:
            self._replies.refuse(message, client, asker, 400)

    def from_peer(self, relayed: RelayedPort, peer: SocketAddress, data: bytes, now: float) -> None:
        """A datagram that came to a relayed address from ``peer``, with which no channel is open."""
        if len(data) > INDICATED_BYTES_MAX:
            self.counters["too_long"] += 1
            return
        allocation = relayed.allocation
        if not allocation.permits(peer[0], now):
            self.counters["not_permitted"] += 1
            return
        transaction = b"warren-relay"  # RFC 8489 §5 wants 12 bytes; nobody answers an indication
        attributes = [
            (Attribute.XOR_PEER_ADDRESS, pack_xor_address(transport_address(peer), transaction)),
            (Attribute.DATA, data),
        ]
        self._tell(allocation.client, encode(Method.DATA, Class.INDICATION, transaction, attributes))

    def disconnected(self, client: Client) -> None:
        """The connection of a TCP or TLS client has ended, and with it what it had (RFC 8656 §7.2)."""
        allocation = self.allocations.get(client)
        if allocation is not None:
            self._table.close(allocation, "its connection ended")

    def revoke(self, identities: Collection[str]) -> None:
        """End all that these users have, at once. That they cannot come back is the credentials' to see to."""
        self._table.close_users(identities, "its user is no longer let in")

    def close(self) -> None:
        """End everything; events tell what."""
        self._table.close_all("the relay stops")

    def handle_timeout(self, now: float) -> None:
        self._table.handle_timeout(now)

    def next_deadline(self) -> Deadline | None:
        """May be earlier than needed."""
        return self._table.next_deadline()

    @property
    def has_output(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._transmits or self._events)

    def take_transmits(self) -> list[Transmit]:
        transmits, self._transmits = self._transmits, []
        return transmits

    def take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    # Requests

    def _has_proved_its_address(self, client: Client) -> bool:
        return client.transport != UDP or client in self.allocations

    def _allocate(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        present = self.allocations.get(client)
        if present is not None:
            if present.transaction == request.transaction and present.identity == asker.identity:
                self._tell(client, present.response)  # our answer was lost (§7.2)
            else:
                self._replies.refuse(request, client, asker, 437)
            return
        wish = wish_of(request)
        if isinstance(wish, int):
            self._replies.refuse(request, client, asker, wish)
            return
        lifetime = lifetime_of_untrusted(request) or LIFETIME_S
        error = 508 if self.refusing else self._table.why_not(asker.identity, client.remote[0], now)
        if error:
            self._replies.refuse(request, client, asker, error)
            return
        allocation = Allocation(client, asker.username, asker.identity, now)
        ports, extra, error = self._table.ports.grant(allocation, wish, now)
        if not ports:
            self._replies.refuse(request, client, asker, error)
            return
        self._table.add(allocation, ports, now + lifetime)
        seen = transport_address(client.remote)
        attributes: Attributes = [
            *(
                (Attribute.XOR_RELAYED_ADDRESS, pack_xor_address(transport_address(port.address), request.transaction))
                for port in ports
            ),
            (Attribute.LIFETIME, pack_uint32(lifetime)),
            *extra,
            (Attribute.XOR_MAPPED_ADDRESS, pack_xor_address(seen, request.transaction)),
        ]
        allocation.transaction = request.transaction
        allocation.response = self._replies.grant(request, client, asker, attributes)
        self._events.append(Opened(allocation))
        self.counters["allocations_made"] += 1

    def _refresh(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is None:
            return
        lifetime = lifetime_of_untrusted(request)
        value = request.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        family = None if value is None else unpack_family_untrusted(value)
        if family is not None and family not in allocation.relayed:
            self._replies.refuse(request, client, asker, 443)
            return
        if lifetime:
            self._table.prolong(allocation, now + lifetime)
        self._replies.grant(request, client, asker, [(Attribute.LIFETIME, pack_uint32(lifetime))])
        if lifetime:
            return
        if family is None or len(allocation.relayed) == 1:
            self._table.close(allocation, "its client gave it up")
        else:
            self._table.close_family(allocation, family)

    def _create_permission(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is not None:
            error = permit_untrusted(request, allocation, self._settings, self._why_not_peer, now)
            self._replies.end(request, client, asker, error)

    def _bind_channel(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is not None:
            error = bind_untrusted(request, allocation, self._settings, self._why_not_peer, now)
            self._replies.end(request, client, asker, error)

    def _send(self, message: Message, allocation: Allocation, now: float) -> None:
        """A Send indication (RFC 8656 §11.2): no answer, whatever is wrong with it."""
        value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        try:
            if value is None or data is None:
                raise MalformedPacket("a Send indication without peer or data")
            peer = unpack_xor_address_untrusted(value, message.transaction)
        except MalformedPacket:
            self.counters["malformed"] += 1
            return
        relayed = allocation.relayed.get(peer.ip.version)
        if relayed is None or unknown_required(message, KNOWN) or not allocation.permits(str(peer.ip), now):
            self.counters["not_permitted"] += 1
            return
        whole = message.get(Attribute.DONT_FRAGMENT) is not None
        self._transmits.append(ToPeer(relayed, socket_address(peer), data, whole))

    # What requests have in common

    def _own(self, request: Message, client: Client, asker: Asker, now: float) -> Allocation | None:
        """The allocation that the request is about; None: the client has been told that there is none for it."""
        allocation = self.allocations.get(client)
        if allocation is None or allocation.expires_at <= now:
            self._replies.refuse(request, client, asker, 437)
            return None
        if allocation.identity != asker.identity:
            self._replies.refuse(request, client, asker, 441)
            return None
        # Renewed time-limited credentials have another name. RFC 8656 §5 would let the old ones live on for ever.
        allocation.username = asker.username
        allocation.heard_at = now
        return allocation

    def _why_not_peer(self, allocation: Allocation, peer: TransportAddress) -> int:
        """0, or the error number: 443 for a family that the allocation lacks, 403 for a peer that nobody may have."""
        if peer.ip.version not in allocation.relayed:
            return 443
        if self.peers.why_not(peer.ip):
            self.counters["forbidden"] += 1
            return 403
        return 0

    def _tell(self, client: Client, data: bytes) -> None:
        self._transmits.append(ToClient(client, data))

    def _ended(self, allocation: Allocation, why: str) -> None:
        self._events.append(Closed(allocation, why))
