"""The TURN client (RFC 8656): one allocation at one server, kept alive, with its permissions and channels.

Five verbs, no I/O. It speaks to the server over any way that carries datagrams: through the data plane's UDP port, or
a bridge over TCP or TLS. ChannelData is not its business: who drives it wraps what goes to a peer in the channel that
:meth:`TurnClient.bind` gave.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.attributes import (
    pack_channel_number,
    pack_xor_address,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.message import TRANSACTION_BYTES, Attribute, Class, Message, Method, decode_untrusted, encode
from warren.proto.turn.client_allocation import Allocation, Phase
from warren.proto.turn.client_channels import BOUND_MAX, Channels
from warren.proto.turn.client_credentials import Login
from warren.proto.turn.client_events import BindFailed, Bound, ClientEvent, Data
from warren.proto.turn.client_permissions import Permissions
from warren.proto.turn.client_refusals import no_peer
from warren.proto.turn.client_requests import Outcome
from warren.proto.wireguard.timers import Deadline

UNDER_WAY_MAX: Final = 16  # requests at once: a burst that any server and path takes
SEND_BYTES_MAX: Final = 1500  # in a Send indication
SEND_QUEUE_MAX: Final = 32  # datagrams that wait for permissions: of checks, which are repeated anyway
SEND_QUEUE_S: Final = 5.0
EVENTS_MAX: Final = 1024  # as many channels and datagrams as one burst brings

_LASTING: Final = frozenset({400, 403, 443})  # about the peer, not about this moment
_PERMISSION_DUE: Final = "a permission is due"
_CHANNEL_DUE: Final = "a channel is due"

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class _Permit:
    addresses: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class _BindChannel:
    peer: TransportAddress


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
        self._name = name or str(server)
        self._random = random
        self._families = tuple(sorted(set(families)))
        login = Login(username, password)
        self._events: deque[ClientEvent] = deque(maxlen=EVENTS_MAX)
        self._allocation = Allocation(
            login, self._families, self._name, random, reliable=reliable, events=self._events, now=now
        )
        self._generation = 0
        self._permissions = Permissions()
        self._channels = Channels()
        self._sending: deque[tuple[TransportAddress, bytes, float]] = deque(maxlen=SEND_QUEUE_MAX)
        self._transmits: deque[bytes] = deque(maxlen=SEND_QUEUE_MAX)

    # What is known.

    @property
    def state(self) -> Literal["allocating", "ready", "failed"]:
        """``failed`` has a ``why``; the client may be trying again all the same."""
        if self._ready:
            return "ready"
        return "failed" if self._allocation.why else "allocating"

    @property
    def why(self) -> str:
        """Why there is no allocation: a sentence for people. Empty while there is one, or nothing is wrong yet."""
        return self._allocation.why

    @property
    def relayed(self) -> tuple[TransportAddress, ...]:
        """Our addresses at the server, IPv4 first; empty unless ready."""
        return self._allocation.relayed if self._ready else ()

    @property
    def mapped(self) -> TransportAddress | None:
        """Where the server saw us when it made the allocation."""
        return self._allocation.mapped

    @property
    def refused_families(self) -> dict[int, int]:
        """The families for which the server granted no relayed address, and the numbers of its errors."""
        return dict(self._allocation.refused_families)

    @property
    def rtt_s(self) -> float | None:
        """The round trip to the server, smoothed. Not authenticated: a hint for the choice among relays."""
        return self._allocation.requests.rtt_s

    @property
    def _ready(self) -> bool:
        return self._allocation.phase is Phase.READY

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
        if self._allocation.phase is Phase.CLOSED:
            return None
        if not self._channels.want(peer, now):
            self._tell(BindFailed(peer, f"relay {self._name} does not carry {peer}: this node has too many channels"))
            return None
        self._pump(now)
        return self.channel_of(peer)

    def channel_of(self, peer: TransportAddress) -> int | None:
        """The number of the channel that is bound to ``peer``."""
        return self._channels.number_of(peer) if self._ready else None

    def peer_of(self, channel: int) -> TransportAddress | None:
        """Whose data comes by this channel, a while after :meth:`unbind` too."""
        return self._channels.peer_of(channel)

    def unbind(self, peer: TransportAddress) -> None:
        """Keep the channel no longer. TURN cannot end it; it ends by itself."""
        self._channels.release(peer)
        self._allocation.requests.cancel(_BindChannel(peer))

    def keep_channels(self, room: int, wanted: Callable[[TransportAddress], bool]) -> None:
        """Unbind those to peers that are not ``wanted``, unless there is room for so many more anyway."""
        if len(self._channels) > BOUND_MAX - room:
            for peer in self._channels.peers():
                if not wanted(peer):
                    self.unbind(peer)

    def send(self, peer: TransportAddress, data: bytes, now: float) -> None:
        """Send ``data`` (at most 1,500 bytes) to ``peer`` in a Send indication, after asking for permission if there is
        none. Lost like any datagram when the server refuses, or there is no allocation.
        """
        if not self._ready or len(data) > SEND_BYTES_MAX:
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
        self._allocation.log_in_as(Login(username, password), now)

    def check(self, now: float) -> None:
        """Something happened to the network: find out at once whether the allocation, or the server, is still there."""
        self._allocation.check(now)

    def close(self, now: float) -> None:
        """Give the allocation back: one more message in :meth:`take_transmits`, and nothing after it."""
        self._transmits.clear()
        self._transmits.extend(self._allocation.close(now))

    # The five verbs.

    def receive(self, data: bytes, now: float) -> bool:
        """A STUN message from the server; False: it is not for us."""
        try:
            message = decode_untrusted(data)
        except MalformedPacket:
            return False
        if self._allocation.phase is Phase.CLOSED:
            return False
        if message.cls is Class.INDICATION and message.method == Method.DATA:
            self._receive_data(message, now)
            return True
        if not self._allocation.requests.knows(message.transaction):
            return False
        outcome = self._allocation.requests.receive(message, now)
        if outcome is not None:
            self._end(outcome, now)
        self._pump(now)
        return True

    def handle_timeout(self, now: float) -> None:
        if self._allocation.phase is Phase.CLOSED:
            return
        for outcome in self._allocation.requests.handle_timeout(now):
            self._end(outcome, now)
        self._allocation.handle_timeout(now)
        self._pump(now)

    def next_deadline(self) -> Deadline | None:
        if self._allocation.phase is Phase.CLOSED:
            return None
        deadlines = [(at, why.value) for at, why in self._allocation.deadlines()]
        if self._ready and len(self._allocation.requests) < UNDER_WAY_MAX:
            deadlines += [
                (self._permissions.next_deadline(), _PERMISSION_DUE),
                (self._channels.next_deadline(), _CHANNEL_DUE),
            ]
        at, why = min(deadlines, key=lambda one: one[0])
        return Deadline(at, why) if at != NEVER else None

    def take_transmits(self) -> list[bytes]:
        """Messages for the server, each a datagram of its own."""
        taken = [*self._allocation.requests.take_transmits(), *self._transmits]
        self._transmits.clear()
        return taken

    def take_events(self) -> list[ClientEvent]:
        taken = list(self._events)
        self._events.clear()
        return taken

    # Requests begin and end.

    def _pump(self, now: float) -> None:
        """Begin what is due, as far as there is room."""
        allocation = self._allocation
        allocation.proceed(now)
        if not self._ready:
            return
        if self._generation != allocation.generation:
            self._generation = allocation.generation
            self._permissions.forget_answers(now)
            self._channels.forget_answers(now)
            self._sending.clear()
        while len(allocation.requests) < UNDER_WAY_MAX:
            peer = self._channels.take_due(now)
            if peer is None:
                break
            number = (int(Attribute.CHANNEL_NUMBER), pack_channel_number(self._channels.number_wanted(peer)))
            allocation.request(Method.CHANNEL_BIND, _BindChannel(peer), now, number, peers=(peer,))
        while len(allocation.requests) < UNDER_WAY_MAX:
            batch = self._permissions.take_batch(now)
            if not batch:
                break
            peers = tuple(TransportAddress(address, 0) for address in batch)
            allocation.request(Method.CREATE_PERMISSION, _Permit(batch), now, peers=peers)

    def _end(self, outcome: Outcome, now: float) -> None:
        if self._allocation.end(outcome, now):
            return
        match outcome.purpose:
            case _Permit(addresses):
                self._end_permission(addresses, outcome, now)
            case _BindChannel(peer):
                self._end_binding(peer, outcome, now)

    def _end_permission(self, addresses: tuple[IPAddress, ...], outcome: Outcome, now: float) -> None:
        error = outcome.error
        if error is None:
            self._permissions.granted(addresses, now)
            self._send_waiting(now)
            return
        why = no_peer(self._name, addresses[0], error)
        self._permissions.refused(addresses, why, now, lasting=_is_lasting(outcome))

    def _end_binding(self, peer: TransportAddress, outcome: Outcome, now: float) -> None:
        error = outcome.error
        if error is None:
            if self._channels.bound(peer, now):
                self._tell(Bound(peer, self._channels.number_wanted(peer)))
        elif _is_lasting(outcome) or not self._channels.postpone(peer, now):
            self._channels.release(peer)
            self._tell(BindFailed(peer, no_peer(self._name, peer, error)))

    # Data.

    def _receive_data(self, message: Message, now: float) -> None:
        peer_value, data = message.get(Attribute.XOR_PEER_ADDRESS), message.get(Attribute.DATA)
        if peer_value is None or data is None or not self._ready:
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


def _is_lasting(outcome: Outcome) -> bool:
    """Whether the server, and nobody else, refuses this peer for good."""
    return outcome.authentic and outcome.error is not None and outcome.error.number in _LASTING
