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
    pack_error_code,
    pack_uint32,
    pack_unknown_attributes,
    pack_xor_address,
    unpack_family_untrusted,
    unpack_port_untrusted,
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
from warren.proto.turn.quota import Quotas, ReplyBudget
from warren.proto.turn.server_allocate import Ports, lifetime_of_untrusted, wish_of
from warren.proto.turn.server_auth import Asker, Attributes, Authenticator
from warren.proto.turn.server_values import (
    CHANNEL_S,
    CHANNELS,
    LIFETIME_S,
    PERMISSION_S,
    UDP,
    Allocation,
    Channel,
    Client,
    Closed,
    Credentials,
    Event,
    Opened,
    Permission,
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
SILENT_S: Final = 60.0
"""A user with all its allocations taken loses the one that was silent so long: its client has moved on. Clients that
live keep the mapping of their NAT open more often than this.
"""
_KNOWN: Final = frozenset(
    {
        Attribute.USERNAME,
        Attribute.REALM,
        Attribute.NONCE,
        Attribute.PASSWORD_ALGORITHM,
        Attribute.USERHASH,
        Attribute.CHANNEL_NUMBER,
        Attribute.LIFETIME,
        Attribute.XOR_PEER_ADDRESS,
        Attribute.DATA,
        Attribute.REQUESTED_ADDRESS_FAMILY,
        Attribute.EVEN_PORT,
        Attribute.REQUESTED_TRANSPORT,
        Attribute.DONT_FRAGMENT,
        Attribute.RESERVATION_TOKEN,
        Attribute.PADDING,
    }
)


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
        self.allocations: dict[Client, Allocation] = {}
        self.relayed: dict[SocketAddress, RelayedPort] = {}
        """By the address that peers send to: the way from one client to another leads through here."""
        self.peers = peers
        """May be replaced by a newer one."""
        self.refusing = False
        """No new allocations: the server is about to stop."""
        self.counters: Counter[str] = Counter()
        self._settings = settings
        self._auth = Authenticator(credentials, settings.realm, Nonces(random(32)))
        self._budget = ReplyBudget()
        self._quotas = Quotas(settings.allocations_max, settings.allocations_per_user, settings.allocations_per_prefix)
        self._ports = Ports(settings, sockets, random)
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []
        self._wake_at: float | None = None
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
            self._bind(message, client, now)
            return
        handler = self._handlers.get(message.method)
        if handler is None:
            self.counters["unknown_method"] += 1
            return
        self._authenticated(handler, message, client, now)

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
        self._transmits.append(
            ToClient(allocation.client, encode(Method.DATA, Class.INDICATION, transaction, attributes))
        )

    def disconnected(self, client: Client) -> None:
        """The connection of a TCP or TLS client has ended, and with it what it had (RFC 8656 §7.2)."""
        allocation = self.allocations.get(client)
        if allocation is not None:
            self._close(allocation, "its connection ended")

    def revoke(self, identities: Collection[str]) -> None:
        """End all that these users have, at once. That they cannot come back is the credentials' to see to."""
        for allocation in [one for one in self.allocations.values() if one.identity in identities]:
            self._close(allocation, "its user is no longer let in")

    def close(self) -> None:
        """End everything; events tell what."""
        for allocation in list(self.allocations.values()):
            self._close(allocation, "the relay stops")
        self._ports.expire(float("inf"))

    def handle_timeout(self, now: float) -> None:
        for allocation in [one for one in self.allocations.values() if one.expires_at <= now]:
            self._close(allocation, "it was not refreshed")
        self._ports.expire(now)
        self._wake_at = min((one.expires_at for one in self.allocations.values()), default=None)

    def next_deadline(self) -> Deadline | None:
        """May be earlier than needed: refreshed allocations move it only when it has passed."""
        reserved = self._ports.next_expiry()
        if reserved is not None and (self._wake_at is None or reserved < self._wake_at):
            return Deadline(reserved, "a reserved port was not claimed")
        return None if self._wake_at is None else Deadline(self._wake_at, "an allocation was not refreshed")

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

    def _bind(self, request: Message, client: Client, now: float) -> None:
        """STUN Binding (RFC 8489 §2): where the client is seen from."""
        mapped = pack_xor_address(transport_address(client.remote), request.transaction)
        unknown = unknown_required(request, _KNOWN)
        if unknown:
            attributes = _refused_unknown(unknown)
            reply = encode(Method.BINDING, Class.ERROR, request.transaction, attributes)
        else:
            reply = encode(Method.BINDING, Class.SUCCESS, request.transaction, [(Attribute.XOR_MAPPED_ADDRESS, mapped)])
        self._reply_unproven(request, client, reply, now)

    def _authenticated(
        self, handler: Callable[[Message, Client, Asker, float], None], request: Message, client: Client, now: float
    ) -> None:
        host = client.remote[0]
        asker = self._auth.judge(request, host, now)
        if isinstance(asker, int):
            self.counters[f"refused_{asker}"] += 1
            self._reply_unproven(request, client, self._auth.refusal(request, asker, host, now), now)
            return
        unknown = unknown_required(request, _KNOWN)
        if unknown:
            self._refuse(request, client, asker, 420, *_refused_unknown(unknown)[1:])
            return
        try:
            handler(request, client, asker, now)
        except MalformedPacket:
            self._refuse(request, client, asker, 400)

    def _reply_unproven(self, request: Message, client: Client, reply: bytes, now: float) -> None:
        """Over UDP the source may be forged: what goes there is bounded. A TCP client has proved its address."""
        proven = client.transport != UDP or client in self.allocations
        if not proven and not self._budget.allows(client.remote[0], len(request.raw), len(reply), now):
            self.counters["replies_withheld"] += 1
            return
        self._transmits.append(ToClient(client, reply))

    def _allocate(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        present = self.allocations.get(client)
        if present is not None:
            if present.transaction == request.transaction and present.identity == asker.identity:
                self._transmits.append(ToClient(client, present.response))  # our answer was lost (§7.2)
            else:
                self._refuse(request, client, asker, 437)
            return
        wish = wish_of(request)
        if isinstance(wish, int):
            self._refuse(request, client, asker, wish)
            return
        lifetime = lifetime_of_untrusted(request) or LIFETIME_S
        if self._quotas.user_is_full(asker.identity):
            self._give_up_silent(asker.identity, now)
        error = 508 if self.refusing else self._quotas.why_not(asker.identity, client.remote[0])
        if error:
            self._refuse(request, client, asker, error)
            return
        allocation = Allocation(client, asker.username, asker.identity, now)
        allocation.expires_at = now + lifetime
        ports, extra, error = self._ports.grant(allocation, wish, now)
        if not ports:
            self._refuse(request, client, asker, error)
            return
        self._quotas.take(asker.identity, client.remote[0])
        self.allocations[client] = allocation
        for port in ports:
            allocation.relayed[port.family] = port
            self.relayed[port.address] = port
        if self._wake_at is None or allocation.expires_at < self._wake_at:
            self._wake_at = allocation.expires_at
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
        allocation.response = self._auth.answer(request, Class.SUCCESS, asker, attributes)
        self._events.append(Opened(allocation))
        self._transmits.append(ToClient(client, allocation.response))
        self.counters["allocations_made"] += 1

    def _refresh(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is None:
            return
        lifetime = lifetime_of_untrusted(request)
        value = request.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        family = None if value is None else unpack_family_untrusted(value)
        if family is not None and family not in allocation.relayed:
            self._refuse(request, client, asker, 443)
            return
        if lifetime:
            allocation.expires_at = now + lifetime
            self._wake_at = min(self._wake_at or allocation.expires_at, allocation.expires_at)
        self._grant(request, client, asker, [(Attribute.LIFETIME, pack_uint32(lifetime))])
        if lifetime:
            return
        if family is None or len(allocation.relayed) == 1:
            self._close(allocation, "its client gave it up")
        else:
            self._close_family(allocation, family)

    def _create_permission(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is None:
            return
        peers = [
            unpack_xor_address_untrusted(value, request.transaction)
            for kind, value in request.attributes
            if kind == Attribute.XOR_PEER_ADDRESS
        ]
        error = 0 if peers else 400
        for peer in peers:
            error = error or self._why_not_peer(allocation, peer)
        hosts = {str(peer.ip) for peer in peers}
        if not error and len(allocation.permissions.keys() | hosts) > self._settings.permissions_max:
            _forget_expired(allocation, now)
            if len(allocation.permissions.keys() | hosts) > self._settings.permissions_max:
                error = 508
        if error:
            self._refuse(request, client, asker, error)
            return
        for host in hosts:
            self._permit(allocation, host, now)
        self._grant(request, client, asker)

    def _bind_channel(self, request: Message, client: Client, asker: Asker, now: float) -> None:
        allocation = self._own(request, client, asker, now)
        if allocation is None:
            return
        number_value, peer_value = request.get(Attribute.CHANNEL_NUMBER), request.get(Attribute.XOR_PEER_ADDRESS)
        if number_value is None or peer_value is None:
            self._refuse(request, client, asker, 400)
            return
        number = unpack_port_untrusted(number_value)  # written alike
        peer = unpack_xor_address_untrusted(peer_value, request.transaction)
        error = 400 if number not in CHANNELS else self._why_not_peer(allocation, peer)
        if not error and len(allocation.channels) >= self._settings.channels_max:
            _forget_expired(allocation, now)
        address = socket_address(peer)
        bound, taken = allocation.channel_of.get(address), allocation.channels.get(number)
        if taken is not None and taken is not bound:
            if taken.expires_at > now:
                error = error or 400  # §12.2: the number is another peer's
            else:
                _forget_channel(allocation, taken)
        if bound is not None and bound.number != number:
            if bound.expires_at > now:
                error = error or 400  # the peer has another number
            else:
                _forget_channel(allocation, bound)
                bound = None
        if not error and bound is None:
            full = len(allocation.channels) >= self._settings.channels_max
            crowded = (
                str(peer.ip) not in allocation.permissions
                and len(allocation.permissions) >= self._settings.permissions_max
            )
            error = 508 if full or crowded else 0
        if error:
            self._refuse(request, client, asker, error)
            return
        permission = self._permit(allocation, str(peer.ip), now)
        if bound is not None:
            bound.permission = permission
            bound.expires_at = now + CHANNEL_S
        else:
            relayed = allocation.relayed[peer.ip.version]
            made = Channel(number, address, relayed, permission, now + CHANNEL_S)
            allocation.channels[number] = allocation.channel_of[address] = made
        self._grant(request, client, asker)

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
        if relayed is None or unknown_required(message, _KNOWN) or not allocation.permits(str(peer.ip), now):
            self.counters["not_permitted"] += 1
            return
        whole = message.get(Attribute.DONT_FRAGMENT) is not None
        self._transmits.append(ToPeer(relayed, socket_address(peer), data, whole))

    # What requests have in common

    def _own(self, request: Message, client: Client, asker: Asker, now: float) -> Allocation | None:
        """The allocation that the request is about; None: the client has been told that there is none for it."""
        allocation = self.allocations.get(client)
        if allocation is None or allocation.expires_at <= now:
            self._refuse(request, client, asker, 437)
            return None
        if allocation.identity != asker.identity:
            self._refuse(request, client, asker, 441)
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

    def _permit(self, allocation: Allocation, host: str, now: float) -> Permission:
        permission = allocation.permissions.get(host)
        if permission is None:
            permission = allocation.permissions[host] = Permission(now + PERMISSION_S)
        permission.expires_at = now + PERMISSION_S
        return permission

    def _grant(self, request: Message, client: Client, asker: Asker, attributes: Attributes | None = None) -> None:
        reply = self._auth.answer(request, Class.SUCCESS, asker, attributes or [])
        self._transmits.append(ToClient(client, reply))

    def _refuse(
        self, request: Message, client: Client, asker: Asker, error: int, *attributes: tuple[int, bytes]
    ) -> None:
        self.counters[f"refused_{error}"] += 1
        reply = self._auth.answer(
            request, Class.ERROR, asker, [(Attribute.ERROR_CODE, pack_error_code(error)), *attributes]
        )
        self._transmits.append(ToClient(client, reply))

    # The end of allocations

    def _give_up_silent(self, identity: str, now: float) -> None:
        """Make room for a user who comes from a new place: drop the allocation that was silent the longest."""
        mine = [one for one in self.allocations.values() if one.identity == identity]
        oldest = min(mine, key=lambda one: one.heard_at, default=None)
        if oldest is not None and now - oldest.heard_at >= SILENT_S and oldest.client.transport == UDP:
            self._close(oldest, "its user needs another and has too many")

    def _close(self, allocation: Allocation, why: str) -> None:
        for family in list(allocation.relayed):
            self._close_family(allocation, family)
        del self.allocations[allocation.client]
        self._quotas.give_back(allocation.identity, allocation.client.remote[0])
        self._events.append(Closed(allocation, why))

    def _close_family(self, allocation: Allocation, family: int) -> None:
        relayed = allocation.relayed.pop(family)
        del self.relayed[relayed.address]
        for channel in [one for one in allocation.channels.values() if one.relayed is relayed]:
            _forget_channel(allocation, channel)
        self._ports.close(relayed)


def _refused_unknown(unknown: tuple[int, ...]) -> Attributes:
    return [
        (Attribute.ERROR_CODE, pack_error_code(420)),
        (Attribute.UNKNOWN_ATTRIBUTES, pack_unknown_attributes(unknown)),
    ]


def _forget_expired(allocation: Allocation, now: float) -> None:
    for channel in [one for one in allocation.channels.values() if one.expires_at <= now]:
        _forget_channel(allocation, channel)
    for host in [host for host, one in allocation.permissions.items() if one.expires_at <= now]:
        del allocation.permissions[host]


def _forget_channel(allocation: Allocation, channel: Channel) -> None:
    allocation.channels.pop(channel.number, None)
    allocation.channel_of.pop(channel.peer, None)
