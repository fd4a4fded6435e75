"""The TURN client (RFC 8656): one allocation at one server, kept alive, with its permissions and channels.

Five verbs, no I/O. It speaks to the server over any way that carries datagrams: through the data plane's UDP port, or
a bridge over TCP or TLS. ChannelData is not its business: who drives it wraps what goes to a peer in the channel that
:meth:`TurnClient.bind` gave.

Nothing that anybody on the way can forge ends an allocation: only answers with integrity count (client_requests). What
cannot be proved, as silence or a changed mapping, makes the client ask the server, authenticated.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.attributes import (
    ErrorCode,
    pack_channel_number,
    pack_family,
    pack_requested_transport,
    pack_uint32,
    pack_xor_address,
    unpack_address_error_code_untrusted,
    unpack_address_untrusted,
    unpack_uint32_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.message import TRANSACTION_BYTES, Attribute, Class, Message, Method, decode_untrusted, encode
from warren.proto.turn.client_channels import Channels
from warren.proto.turn.client_credentials import Authentication, Login
from warren.proto.turn.client_events import BindFailed, Bound, ClientEvent, Data, Failed, Lost, Ready
from warren.proto.turn.client_permissions import Permissions
from warren.proto.turn.client_refusals import no_allocation, no_peer
from warren.proto.turn.client_requests import NO_ANSWER, TRANSMISSIONS, UNREADABLE, Outcome, Requests
from warren.proto.wireguard.timers import Deadline

LIFETIME_S: Final = 600.0  # RFC 8656 §3.2: what a server grants unless asked for something else
REFRESH_BEFORE_S: Final = 60.0  # RFC 8656 §3.2
KEEPALIVE_S: Final = 20.0  # below the 30 s after which some NATs forget a UDP mapping (RFC 4787 §4.3)
UNDER_WAY_MAX: Final = 16  # requests at once: a burst that any server and path takes
RETRY_S: Final = 1.0  # the first pause after a failure; each further one is twice as long
RETRY_S_MAX: Final = 30.0
RETRY_FINAL_S: Final = 300.0
REFRESH_RETRY_S: Final = 5.0
SEND_BYTES_MAX: Final = 1500  # in a Send indication
SEND_QUEUE_MAX: Final = 32  # datagrams that wait for permissions: of checks, which are repeated anyway
SEND_QUEUE_S: Final = 5.0
EVENTS_MAX: Final = 1024

_FAMILY_ERRORS: Final = frozenset({400, 420, 440})
_FALLBACKS: Final = {(4, 6): (6,), (6,): (4,)}  # when a server has no IPv4, or knows nothing of RFC 6156
_LASTING: Final = frozenset({400, 403, 443})  # about the peer, not about this moment

NEVER = float("inf")


class _Phase(enum.Enum):
    ALLOCATING = enum.auto()
    CLEARING = enum.auto()
    """The server keeps an allocation of an earlier run: it is being deleted."""
    READY = enum.auto()
    SILENT = enum.auto()
    """There is an allocation, but the server does not answer."""
    WAITING = enum.auto()
    """Before the next attempt to allocate."""
    CLOSED = enum.auto()


class Timer(enum.Enum):
    """Why a client wakes. The value is the sentence that :class:`Deadline` shows."""

    ANSWER = "a request to the relay was not answered"
    REFRESH = "the allocation is to be refreshed"
    EXPIRY = "the allocation has not been refreshed for too long"
    KEEPALIVE = "the NAT on the way to the relay shall not forget us"
    RETRY = "the relay is asked again for an allocation"
    PERMISSION = "a permission is due"
    CHANNEL = "a channel is due"


@dataclass(frozen=True, slots=True)
class _Permit:
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class _BindChannel:
    peer: TransportAddress


class _Purpose(enum.Enum):
    ALLOCATE = enum.auto()
    CLEAR = enum.auto()
    REFRESH = enum.auto()
    KEEPALIVE = enum.auto()


class TurnClient:
    """One object for each relay and way to it. ``now`` is in seconds of a clock that never goes back."""

    def __init__(
        self,
        *,
        server: TransportAddress,
        username: str,
        password: str,
        random: Callable[[int], bytes],
        families: tuple[int, ...] = (4, 6),
        now: float,
        reliable: bool = False,
        name: str = "",
    ) -> None:
        """Begin to allocate. ``families``: of the relayed addresses that are wanted, 4 and 6; what the server grants of
        them is enough. ``reliable``: the way to the server loses nothing, so nothing is sent again. ``name`` is what
        people call the relay; else it is called by its address. Raises ValueError for a name too long for STUN.
        """
        self.server = server
        self.why = ""
        """Why there is no allocation: a sentence for people. Empty while there is one, or nothing is wrong yet."""
        self.mapped: TransportAddress | None = None
        """Where the server saw us when it made the allocation."""
        self.refused_families: dict[int, int] = {}
        """The families for which the server granted no relayed address, and the numbers of its errors."""
        self._name = name or str(server)
        self._random = random
        self._families = self._asked_families = tuple(sorted(set(families)))
        self._login = self._newest_login = Login(username, password)
        self._authentication: Authentication | None = None
        self._requests = Requests(random, reliable=reliable)
        self._permissions = Permissions()
        self._channels = Channels()
        self._phase = _Phase.ALLOCATING
        self._failures = 0
        self._relayed: tuple[TransportAddress, ...] = ()
        self._expires_at = self._refresh_at = self._keepalive_at = self._retry_at = NEVER
        self._binding_answered = True
        self._doubted: TransportAddress | None = None
        self._sending: deque[tuple[TransportAddress, bytes, float]] = deque(maxlen=SEND_QUEUE_MAX)
        self._transmits: deque[bytes] = deque(maxlen=SEND_QUEUE_MAX)
        self._events: deque[ClientEvent] = deque(maxlen=EVENTS_MAX)
        self._pump(now)

    # What is known.

    @property
    def state(self) -> Literal["allocating", "ready", "failed"]:
        """``failed`` has a ``why``; the client may be trying again all the same."""
        if self._phase is _Phase.READY:
            return "ready"
        return "failed" if self.why else "allocating"

    @property
    def relayed(self) -> tuple[TransportAddress, ...]:
        """Our addresses at the server; empty unless ready."""
        return self._relayed if self._phase is _Phase.READY else ()

    @property
    def rtt_s(self) -> float | None:
        """The round trip to the server, smoothed. Not authenticated: a hint for the choice among relays."""
        return self._requests.rtt_s

    # What is wanted.

    def permit(self, addresses: Iterable[IPAddress], now: float) -> None:
        """Let exactly these (at most 256) send to our relayed addresses, from any port; kept up until called again."""
        self._permissions.want((address for address in addresses if address.version in self._families), now)
        self._pump(now)

    def refusal(self, address: IPAddress) -> str:
        """Why the server does not let ``address`` send to us; empty when it does, or was not asked yet."""
        return self._permissions.refusal(address)

    def bind(self, peer: TransportAddress, now: float) -> int | None:
        """The number of the channel to ``peer`` once it is bound; None while that is under way, which ends in an event
        Bound or BindFailed. It is kept bound until :meth:`unbind`. At most 512.
        """
        if self._phase is _Phase.CLOSED:
            return None
        if not self._channels.want(peer, now):
            self._tell(BindFailed(peer, f"relay {self._name} does not carry {peer}: this node has too many channels"))
            return None
        self._pump(now)
        return self.channel_of(peer)

    def channel_of(self, peer: TransportAddress) -> int | None:
        """The number of the channel that is bound to ``peer``."""
        return self._channels.number_of(peer) if self._phase is _Phase.READY else None

    def peer_of(self, channel: int) -> TransportAddress | None:
        """Whose data comes by this channel, a while after :meth:`unbind` too."""
        return self._channels.peer_of(channel)

    def unbind(self, peer: TransportAddress) -> None:
        """Keep the channel no longer. TURN cannot end it; it ends by itself."""
        self._channels.release(peer)
        self._requests.cancel(_BindChannel(peer))

    def send(self, peer: TransportAddress, data: bytes, now: float) -> None:
        """Send ``data`` (at most 1,500 bytes) to ``peer`` in a Send indication, after asking for permission if there is
        none. Lost like any datagram when the server refuses, or there is no allocation.
        """
        if self._phase is not _Phase.READY or len(data) > SEND_BYTES_MAX:
            return
        if self._permissions.holds(peer.ip, now):
            self._indicate(peer, data)
        elif self._permissions.want_passing(peer.ip, now):
            self._sending.append((peer, data, now + SEND_QUEUE_S))
            self._pump(now)

    def credentials(self, username: str, password: str, now: float) -> None:
        """Use these from now on; an allocation stays with those it was made with as long as the server takes them
        (RFC 8656 §5). Raises ValueError as the constructor does.
        """
        login = Login(username, password)
        if login == self._newest_login:
            return
        self._newest_login = login
        if self._phase in {_Phase.ALLOCATING, _Phase.CLEARING, _Phase.WAITING}:
            self._failures = 0
            self._allocate_anew(now)

    def check(self, now: float) -> None:
        """Something happened to the network: find out at once whether the allocation, or the server, is still there."""
        match self._phase:
            case _Phase.READY | _Phase.SILENT:
                self._requests.cancel(_Purpose.REFRESH)
                self._refresh_at = now
            case _Phase.ALLOCATING | _Phase.CLEARING | _Phase.WAITING:
                self._failures = 0
                self._allocate_anew(now)
            case _Phase.CLOSED:
                pass
            case never:
                assert_never(never)
        self._pump(now)

    def close(self, now: float) -> None:
        """Give the allocation back: one more message in :meth:`take_transmits`, and nothing after it."""
        held = self._phase in {_Phase.READY, _Phase.SILENT, _Phase.CLEARING}
        self._phase = _Phase.CLOSED
        self._requests.clear()
        if held:
            self._request(Method.REFRESH, _Purpose.CLEAR, now, (int(Attribute.LIFETIME), pack_uint32(0)))
            self._transmits.extend(self._requests.take_transmits())
            self._requests.clear()

    # The five verbs.

    def receive(self, data: bytes, now: float) -> bool:
        """A STUN message from the server; False: it is not for us."""
        try:
            message = decode_untrusted(data)
        except MalformedPacket:
            return False
        if self._phase is _Phase.CLOSED:
            return False
        if message.cls is Class.INDICATION and message.method == Method.DATA:
            self._receive_data(message, now)
            return True
        if not self._requests.knows(message.transaction):
            return False
        outcome = self._requests.receive(message, now)
        if outcome is not None:
            self._end(outcome, now)
        self._pump(now)
        return True

    def handle_timeout(self, now: float) -> None:
        if self._phase is _Phase.CLOSED:
            return
        for outcome in self._requests.handle_timeout(now):
            self._end(outcome, now)
        if self._phase in {_Phase.READY, _Phase.SILENT} and now >= self._expires_at:
            self._lose(self.why or f"relay {self._name} did not renew the relayed address in time", now)
        if self._phase is _Phase.WAITING and now >= self._retry_at:
            self._allocate_anew(now)
        self._pump(now)

    def next_deadline(self) -> Deadline | None:
        if self._phase is _Phase.CLOSED:
            return None
        deadlines = [(self._requests.next_deadline(), Timer.ANSWER)]
        if self._phase is _Phase.WAITING:
            deadlines.append((self._retry_at, Timer.RETRY))
        if self._phase in {_Phase.READY, _Phase.SILENT}:
            deadlines += [(self._expires_at, Timer.EXPIRY), (self._refresh_at, Timer.REFRESH)]
        if self._phase is _Phase.READY:
            deadlines.append((self._keepalive_at, Timer.KEEPALIVE))
            if len(self._requests) < UNDER_WAY_MAX:
                deadlines += [
                    (self._permissions.next_deadline(), Timer.PERMISSION),
                    (self._channels.next_deadline(), Timer.CHANNEL),
                ]
        at, why = min(((at, why) for at, why in deadlines if at is not None), key=lambda one: one[0])
        return Deadline(at, why.value) if at != NEVER else None

    def take_transmits(self) -> list[bytes]:
        """Messages for the server, each a datagram of its own."""
        taken = [*self._transmits, *self._requests.take_transmits()]
        self._transmits.clear()
        return taken

    def take_events(self) -> list[ClientEvent]:
        taken = list(self._events)
        self._events.clear()
        return taken

    # Requests begin.

    def _pump(self, now: float) -> None:
        """Begin what is due, as far as there is room."""
        match self._phase:
            case _Phase.ALLOCATING:
                if not len(self._requests):
                    self._request(Method.ALLOCATE, _Purpose.ALLOCATE, now, *self._allocation_attributes())
            case _Phase.READY | _Phase.SILENT:
                if now >= self._refresh_at:
                    self._refresh_at = NEVER
                    self._request(Method.REFRESH, _Purpose.REFRESH, now, transmissions=4)
                if self._phase is _Phase.READY:
                    self._pump_wishes(now)
            case _Phase.CLEARING | _Phase.WAITING | _Phase.CLOSED:
                pass
            case never:
                assert_never(never)

    def _pump_wishes(self, now: float) -> None:
        if now >= self._keepalive_at:
            self._keepalive_at = now + KEEPALIVE_S
            if self._binding_answered:
                self._requests.start(
                    Method.BINDING, (), _Purpose.KEEPALIVE, now, login=None, authentication=None, transmissions=3
                )
            elif self._refresh_at != NEVER:
                self._refresh_at = NEVER
                self._request(Method.REFRESH, _Purpose.REFRESH, now, transmissions=4)
        while len(self._requests) < UNDER_WAY_MAX:
            peer = self._channels.next_due(now)
            if peer is None:
                break
            number = (int(Attribute.CHANNEL_NUMBER), pack_channel_number(self._channels.number_wanted(peer)))
            self._request(Method.CHANNEL_BIND, _BindChannel(peer), now, number, peers=(peer,))
        while len(self._requests) < UNDER_WAY_MAX:
            batch = self._permissions.next_batch(now)
            if not batch:
                break
            peers = tuple(TransportAddress(address, 0) for address in batch)
            self._request(Method.CREATE_PERMISSION, _Permit(batch), now, peers=peers)

    def _request(
        self,
        method: Method,
        purpose: object,
        now: float,
        *attributes: tuple[int, bytes],
        peers: tuple[TransportAddress, ...] = (),
        transmissions: int = TRANSMISSIONS,
    ) -> None:
        self._requests.start(
            method,
            attributes,
            purpose,
            now,
            login=self._login,
            authentication=self._authentication,
            peers=peers,
            transmissions=transmissions,
        )

    def _allocation_attributes(self) -> list[tuple[int, bytes]]:
        attributes = [(int(Attribute.REQUESTED_TRANSPORT), pack_requested_transport())]
        if self._asked_families == (6,):
            attributes.append((int(Attribute.REQUESTED_ADDRESS_FAMILY), pack_family(6)))
        elif self._asked_families == (4, 6):
            attributes.append((int(Attribute.ADDITIONAL_ADDRESS_FAMILY), pack_family(6)))
        return attributes

    # Requests end.

    def _end(self, outcome: Outcome, now: float) -> None:
        if outcome.authentic:
            self._authentication = outcome.authentication
        purpose, error = outcome.purpose, outcome.error
        if purpose is _Purpose.KEEPALIVE:
            self._end_keepalive(outcome, now)
        elif purpose is _Purpose.ALLOCATE:
            if error is None and outcome.response is not None:
                self._end_allocation(outcome.response, now)
            else:
                self._end_refused_allocation(outcome, now)
        elif purpose is _Purpose.CLEAR:
            if error is None or (error.number == 437 and outcome.authentic):
                self._allocate_anew(now)
            else:
                self._fail(*no_allocation(self._name, ErrorCode(437, "")), now)
        elif error is not None and error.number == 437 and outcome.authentic:
            self._lose(f"relay {self._name} has forgotten us, after a restart of it or of a NAT on the way", now)
        elif purpose is _Purpose.REFRESH:
            self._end_refresh(outcome, now)
        elif isinstance(purpose, _Permit):
            self._end_permission(purpose.addresses, error, now)
        elif isinstance(purpose, _BindChannel):
            self._end_binding(purpose.peer, error, now)

    def _end_allocation(self, response: Message, now: float) -> None:
        try:
            relayed, mapped, lifetime_s = self._read_allocation_untrusted(response)
        except MalformedPacket:
            self._fail(*no_allocation(self._name, UNREADABLE), now)
            return
        self._relayed, self.mapped = relayed, mapped
        self._doubted = None
        self._permissions.forget_answers(now)
        self._channels.forget_answers(now)
        self._renewed(lifetime_s, now)
        self._keepalive_at = now + KEEPALIVE_S
        self._become_ready()

    def _read_allocation_untrusted(
        self, response: Message
    ) -> tuple[tuple[TransportAddress, ...], TransportAddress | None, int]:
        relayed: list[TransportAddress] = []
        mapped = None
        lifetime_s = int(LIFETIME_S)
        self.refused_families = {}
        for kind, value in response.attributes:
            if kind == Attribute.XOR_RELAYED_ADDRESS:
                address = unpack_xor_address_untrusted(value, response.transaction)
                if address.port and not address.ip.is_unspecified:
                    relayed.append(address)
            elif kind == Attribute.XOR_MAPPED_ADDRESS:
                mapped = unpack_xor_address_untrusted(value, response.transaction)
            elif kind == Attribute.LIFETIME:
                lifetime_s = unpack_uint32_untrusted(value)
            elif kind == Attribute.ADDRESS_ERROR_CODE:
                refused = unpack_address_error_code_untrusted(value)
                self.refused_families[refused.family] = refused.number
        if not 1 <= len(relayed) <= 2 or not lifetime_s:
            raise MalformedPacket("an allocation without an address")
        return tuple(sorted(relayed, key=lambda address: address.ip.version)), mapped, lifetime_s

    def _become_ready(self) -> None:
        self._phase = _Phase.READY
        self._failures = 0
        self.why = ""
        self._tell(Ready(self._relayed, self.mapped))

    def _renewed(self, lifetime_s: int, now: float) -> None:
        self._expires_at = now + lifetime_s
        self._refresh_at = now + max(lifetime_s - REFRESH_BEFORE_S, lifetime_s / 2)

    def _end_refused_allocation(self, outcome: Outcome, now: float) -> None:
        error = outcome.error or UNREADABLE
        if error.number == 437:
            self._phase = _Phase.CLEARING
            self._request(Method.REFRESH, _Purpose.CLEAR, now, (int(Attribute.LIFETIME), pack_uint32(0)))
            return
        if error.number in _FAMILY_ERRORS and len(self._families) > 1:
            further = _FALLBACKS.get(self._asked_families)
            if further is not None:
                self.refused_families[4 if further == (6,) else 6] = error.number
                self._asked_families = further
                return
        alternate = None
        value = outcome.response.get(Attribute.ALTERNATE_SERVER) if outcome.response is not None else None
        if error.number == 300 and outcome.authentic and value is not None:
            try:
                alternate = unpack_address_untrusted(value)
            except MalformedPacket:
                alternate = None
        self._fail(*no_allocation(self._name, error), now, alternate)

    def _end_refresh(self, outcome: Outcome, now: float) -> None:
        error = outcome.error
        if error is None and outcome.response is not None:
            value = outcome.response.get(Attribute.LIFETIME)
            try:
                lifetime_s = int(LIFETIME_S) if value is None else unpack_uint32_untrusted(value)
            except MalformedPacket:
                lifetime_s = 0
            if lifetime_s:
                self._login = outcome.authentication.login if outcome.authentication else self._login
                self._renewed(lifetime_s, now)
                self._keepalive_at = now + KEEPALIVE_S
                if self._phase is _Phase.SILENT:
                    self._become_ready()
                return
        if error is not None and error.number == NO_ANSWER:
            if self._phase is _Phase.READY:
                self._phase = _Phase.SILENT
                self.why = no_allocation(self._name, error)[0]
                self._tell(Lost(self.why))
            self._refresh_at = now + self._pause()
            return
        # The name may have run out (401), or belong to another run (441). With a newer one the server may agree.
        if self._newest_login != self._login:
            self._login, self._newest_login = self._newest_login, self._login
        self._refresh_at = now + REFRESH_RETRY_S

    def _end_keepalive(self, outcome: Outcome, now: float) -> None:
        if outcome.error is not None and outcome.error.number == NO_ANSWER:
            # Servers may be told to answer no STUN; whether this one is alive, a refresh tells.
            self._binding_answered = False
            self._check_soon(now)
            return
        value = outcome.response.get(Attribute.XOR_MAPPED_ADDRESS) if outcome.response is not None else None
        try:
            seen = (
                unpack_xor_address_untrusted(value, outcome.response.transaction)
                if value and outcome.response
                else None
            )
        except MalformedPacket:
            return
        if seen is not None and self.mapped is not None and seen not in {self.mapped, self._doubted}:
            # A NAT that forgot us gave us a new mapping, which the server does not know; or somebody says so.
            self._doubted = seen
            self._check_soon(now)

    def _check_soon(self, now: float) -> None:
        if self._phase is _Phase.READY and self._refresh_at != NEVER:
            self._refresh_at = now

    def _end_permission(self, addresses: tuple[IPAddress, ...], error: ErrorCode | None, now: float) -> None:
        if error is None:
            self._permissions.granted(addresses, now)
            self._send_waiting(now)
            return
        why = no_peer(self._name, addresses[0], error)
        self._permissions.refused(addresses, why, now, lasting=error.number in _LASTING)

    def _end_binding(self, peer: TransportAddress, error: ErrorCode | None, now: float) -> None:
        if error is None:
            if self._channels.bound(peer, now):
                self._tell(Bound(peer, self._channels.number_wanted(peer)))
        elif error.number in _LASTING or not self._channels.postpone(peer, now):
            self._channels.release(peer)
            self._tell(BindFailed(peer, no_peer(self._name, peer, error)))

    # From one phase to another.

    def _allocate_anew(self, now: float) -> None:
        self._requests.clear()
        self._phase = _Phase.ALLOCATING
        if self._login != self._newest_login:
            self._login = self._newest_login
            self._authentication = None
        self._pump(now)

    def _lose(self, why: str, now: float) -> None:
        told = self._phase is _Phase.SILENT
        self.why = why
        if not told:
            self._tell(Lost(why))
        self._expires_at = self._refresh_at = self._keepalive_at = NEVER
        self._asked_families = self._families
        self._sending.clear()
        self._allocate_anew(now)

    def _fail(self, why: str, final: bool, now: float, alternate: TransportAddress | None = None) -> None:
        if why != self.why:
            self._tell(Failed(why, final, alternate))
        self.why = why
        self._phase = _Phase.WAITING
        self._authentication = None
        self._asked_families = self._families
        self._requests.clear()
        self._retry_at = now + (RETRY_FINAL_S if final else self._pause())

    def _pause(self) -> float:
        self._failures += 1
        return float(min(RETRY_S * 2 ** min(self._failures - 1, 16), RETRY_S_MAX))

    # Data.

    def _receive_data(self, message: Message, now: float) -> None:
        peer_value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        if peer_value is None or data is None or self._phase is not _Phase.READY:
            return
        try:
            peer = unpack_xor_address_untrusted(peer_value, message.transaction)
        except MalformedPacket:
            return
        # RFC 8656 §11.4: one for which we have no permission is not from the server.
        if self._permissions.holds(peer.ip, now) or self._channels.number_of(peer) is not None:
            self._tell(Data(peer, data))

    def _send_waiting(self, now: float) -> None:
        waiting = list(self._sending)
        self._sending.clear()
        for peer, data, until in waiting:
            if self._permissions.holds(peer.ip, now):
                self._indicate(peer, data)
            elif now < until:
                self._sending.append((peer, data, until))

    def _indicate(self, peer: TransportAddress, data: bytes) -> None:
        transaction = self._random(TRANSACTION_BYTES)
        attributes = [
            (int(Attribute.XOR_PEER_ADDRESS), pack_xor_address(peer, transaction)),
            (int(Attribute.DATA), data),
        ]
        self._transmits.append(encode(Method.SEND, Class.INDICATION, transaction, attributes))

    def _tell(self, event: ClientEvent) -> None:
        self._events.append(event)
