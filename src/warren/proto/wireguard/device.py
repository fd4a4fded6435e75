"""A WireGuard device without I/O: frames of the host and datagrams of the network in, the other out (WireGuard §2–§6).

The machines of a device each have a file of their own; here they are joined. The life of a packet, and who has a say
in it::

    host → send → outbound: allowed_ips → peer → split ─ flush → keypairs → seal → take_transmits → network
                                                    └ no session: staging, handshake
    network → receive → inbound ┬ data: indices → keypairs → open → delivery: coalesce, allowed_ips → take_frames → host
                                ├ handshake: admission (mac1, cookies, limits) → queue ─ handshake_work → handshake
                                └ STUN: control → the controller
    time → handle_timeout → timers → keepalive, handshake, forget

Single owner, no threads. ``now`` is seconds of a clock that never goes back and also counts while the machine sleeps
(keys age then, too).
"""

from __future__ import annotations

from collections.abc import Callable

from warren.identity.keys import PublicKey
from warren.model.tunnel import TunnelChange, TunnelStatus
from warren.proto.wireguard.addresses import way_of
from warren.proto.wireguard.admission import Admission
from warren.proto.wireguard.allowed_ips import AllowedIps
from warren.proto.wireguard.configuration import Configuration
from warren.proto.wireguard.constants import HANDSHAKE_ATTEMPTS_MAX, REKEY_JITTER_S
from warren.proto.wireguard.control import ControlQueue
from warren.proto.wireguard.counters import new_counters
from warren.proto.wireguard.datapaths import DataPath
from warren.proto.wireguard.delivery import Delivery
from warren.proto.wireguard.events import Event, HandshakeGaveUp, SessionsForgotten, TimestampUsed
from warren.proto.wireguard.handshake import Handshakes
from warren.proto.wireguard.identity import Identity
from warren.proto.wireguard.inbound import Inbound
from warren.proto.wireguard.indices import IndexTable
from warren.proto.wireguard.outbound import Outbound, Transmit
from warren.proto.wireguard.peer import LONG_AGO, Endpoint, Peer
from warren.proto.wireguard.relays import Relays
from warren.proto.wireguard.roaming import Roaming
from warren.proto.wireguard.staging import StagingBudget
from warren.proto.wireguard.timers import NEVER, Deadline, Timer, TimerQueue
from warren.proto.wireguard.timestamp import TimestampSource

__all__ = ["Deadline", "Device", "Endpoint", "Transmit"]

EVENTS_MAX = 1024
"""Events kept for an owner that does not take them; further ones are lost. Timestamps are never lost: one value
stands for all.
"""
TIMEOUTS_AT_ONCE = 16
"""Peers served by one ``handle_timeout``: at worst so many initiations, 4 ms. The next deadline tells whether more
are due.
"""


class Device:
    """One tunnel's protocol. Nothing leaves or enters but through the methods; nothing raises for what the network
    sends.

    ``random`` returns that many unpredictable bytes; ``wall_clock_ns`` the time since 1970, for handshake timestamps
    only; ``timestamp_floor_ns`` is at least the greatest timestamp this key ever used. ``datapath`` chooses the batch
    functions. ``counters`` may be read at any time; its names are explained in ``counters.COUNTERS``. ``control`` has
    the datagrams that are the controller's.
    """

    def __init__(
        self,
        *,
        random: Callable[[int], bytes],
        wall_clock_ns: Callable[[], int],
        timestamp_floor_ns: int = 0,
        mtu: int = 1420,
        coalesce_udp: bool = True,
        datapath: DataPath | None = None,
    ) -> None:
        datapath = datapath or DataPath()
        self.counters = counters = new_counters()
        self._random = random
        self._events: list[Event] = []
        self._timestamps = TimestampSource(wall_clock_ns, timestamp_floor_ns)
        self._timestamp_told_ns = timestamp_floor_ns
        self._peers: dict[bytes, Peer] = {}
        self._staging = StagingBudget()
        self._timers: TimerQueue[Peer] = TimerQueue()
        self._fire = {
            Timer.RETRANSMIT_HANDSHAKE: self._retransmit_handshake,
            Timer.SEND_KEEPALIVE: self._send_keepalive,
            Timer.NEW_HANDSHAKE: self._new_handshake,
            Timer.ZERO_KEYS: self._zero_keys,
            Timer.PERSISTENT_KEEPALIVE: self._persistent_keepalive,
        }
        allowed_ips: AllowedIps[Peer] = AllowedIps()
        identity = Identity(random)
        relays = Relays(self._peers)
        self.control = control = ControlQueue(relays, counters)
        self._roaming = roaming = Roaming(relays, counters, self._tell)
        indices = IndexTable(random)
        self._outbound = outbound = Outbound(datapath.split, allowed_ips, counters, self._begin_handshake, mtu)
        self._handshakes = handshakes = Handshakes(
            identity, self._peers, indices, datapath, self._timestamps, random, roaming, outbound, counters, self._tell
        )
        self._admission = Admission(identity, indices, handshakes, outbound, control, counters)
        self._delivery = Delivery(datapath.coalescer, coalesce_udp, allowed_ips, counters)
        inbound = Inbound(indices, handshakes, self._admission, roaming, relays, self._delivery, counters)
        self._configuration = Configuration(
            identity, self._peers, allowed_ips, handshakes, outbound, relays, self._new_peer, self._tell
        )
        # The hot path, called through without another frame in between.
        self.send = outbound.send
        self.room = outbound.room
        self.flush = outbound.flush
        self.take_transmits = outbound.take
        self.receive = inbound.receive
        self.inbound_room = self._delivery.room
        self.take_frames = self._delivery.take
        self.wake_at = self._timers.wake_at

    def drain_by(self, drain: Callable[[], None]) -> None:
        """Let ``drain``, which takes the frames, be called also within ``receive``, when one train has packets of so
        many peers that its frames do not wait until afterwards. Without it they are dropped.
        """
        self._delivery.drain = drain

    # Configuration.

    def check(self, change: TunnelChange) -> None:
        """Raises OperationFailed when :meth:`configure` would: for owners that have to act before it."""
        self._configuration.check(change)

    def configure(self, change: TunnelChange, now: float) -> None:
        """Apply ``change``. Raises OperationFailed, with nothing changed, when the change is impossible as a whole:
        too many peers, or nobody to rename.
        """
        self._configuration.apply(change, now)
        self.handle_timeout(now)

    def status(self) -> TunnelStatus:
        """What is configured and counted now. Port and mark are what ``configure`` gave; they are the owner's
        business.
        """
        return self._configuration.status()

    def set_mtu(self, mtu: int) -> None:
        """Pad packets to no more than ``mtu`` bytes."""
        self._outbound.mtu = mtu

    def up(self, now: float) -> None:
        """Begin to work: persistent keepalives start, and with them handshakes."""
        if self._configuration.enabled:
            return
        self._enable(True)
        for peer in self._peers.values():
            peer.handshake_sent_at = LONG_AGO
            if peer.timers.persistent_keepalive_s:
                peer.timers.keepalive_wanted(now)
        self.handle_timeout(now)

    def down(self, now: float) -> None:
        """Cease to work and forget all sessions; the configuration stays."""
        self._enable(False)
        self.flush(now)
        self._admission.queue.clear()
        for peer in self._peers.values():
            peer.timers.stop()
            self._handshakes.forget(peer)

    def _enable(self, enabled: bool) -> None:
        self._configuration.enabled = self._handshakes.enabled = enabled
        self._outbound.enabled = self._admission.enabled = enabled

    def forget_source(self, peer: Peer | None) -> None:
        """Let the kernel choose the source address for ``peer`` again (of a transmit; None is allowed and means
        nobody). What a controller chose stays while one listens.
        """
        endpoint = peer.endpoint if peer is not None else None
        if peer is None or endpoint is None or not endpoint.local:
            return
        if not (endpoint.fixed and self.control.listening):
            peer.endpoint = Endpoint(endpoint.address)

    def forget_sources(self) -> None:
        """Let the kernel choose the source address for every peer again: addresses, routes or the mark changed."""
        for peer in self._peers.values():
            self.forget_source(peer)

    def _new_peer(self, public_key: PublicKey) -> Peer:
        return Peer(public_key, self._timestamps.used_ns, self._staging, self._timers, self._draw_jitter)

    def _draw_jitter(self) -> float:
        """More than nothing, up to a third of a second (§6.1)."""
        return REKEY_JITTER_S * (1 + self._random(1)[0]) / 256

    # Handshakes.

    @property
    def pending_handshakes(self) -> int:
        """How many handshake messages wait for :meth:`handshake_work`."""
        return len(self._admission.queue)

    def handshake_work(self, now: float, budget: int) -> int:
        """Process at most ``budget`` waiting handshake messages, some 300 µs each. Returns how many it were."""
        return self._admission.work(now, budget)

    # The controller.

    def listen(self, listening: bool) -> None:
        """A controller begins or ceases to listen: to what ``control`` collects, and to EndpointWanted and
        HeardElsewhere. While it does, only it moves the endpoints of pinned peers.
        """
        self._roaming.listening = listening
        self.control.listen(listening)

    def sockets_in_use(self) -> set[int]:
        """The numbers of the sockets by which peers are reached, our own (0) included."""
        endpoints = [peer.endpoint for peer in self._peers.values() if peer.endpoint is not None]
        return {way_of(endpoint.address).socket for endpoint in endpoints}

    # Events.

    def take_events(self) -> list[Event]:
        """What happened since the last call. A TimestampUsed is to be acted on before sending the next transmits."""
        events, self._events = self._events, []
        if self._timestamps.used_ns > self._timestamp_told_ns:
            self._timestamp_told_ns = self._timestamps.used_ns
            events.append(TimestampUsed(self._timestamp_told_ns))
        return events

    def _tell(self, event: Event) -> None:
        if len(self._events) < EVENTS_MAX:
            self._events.append(event)

    # Time.

    def next_deadline(self) -> Deadline | None:
        """When to call :meth:`handle_timeout` at the latest, and why; None: only when something else happens."""
        return self._timers.next_deadline()

    def handle_timeout(self, now: float) -> None:
        """Do what is due at ``now``, for a bounded number of peers."""
        for _ in range(TIMEOUTS_AT_ONCE):
            timers = self._timers.pop_due(now)
            if timers is None:
                return
            for timer in timers.take_due(now):
                self._fire[timer](timers.owner, now)
            self._timers.settle(timers)

    def _retransmit_handshake(self, peer: Peer, now: float) -> None:
        if peer.timers.attempts > HANDSHAKE_ATTEMPTS_MAX:  # §6.4
            self._outbound.purge(peer)
            peer.timers.gave_up(now)
            if not peer.unreachable:  # once, however often a keepalive tries again
                peer.unreachable = True
                self._tell(HandshakeGaveUp(peer.public_key))
            return
        peer.timers.attempts += 1
        self.forget_source(peer)  # it may be what keeps answers from coming
        self._roaming.want_endpoint(peer, now)
        self._handshakes.begin(peer, now, retry=True)

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        self._outbound.keepalive(peer, now)
        peer.timers.passive_keepalive_sent(now)

    def _begin_handshake(self, peer: Peer, now: float) -> None:
        self._handshakes.begin(peer, now)

    def _new_handshake(self, peer: Peer, now: float) -> None:
        self.forget_source(peer)
        self._handshakes.begin(peer, now)

    def _zero_keys(self, peer: Peer, now: float) -> None:  # noqa: ARG002 - as all in the table
        self._handshakes.forget(peer)
        self._tell(SessionsForgotten(peer.public_key))

    def _persistent_keepalive(self, peer: Peer, now: float) -> None:
        timers = peer.timers
        self._outbound.keepalive(peer, now)
        if timers.persistent_keepalive_at == NEVER:  # nothing could be sent
            timers.persistent_keepalive_at = now + timers.persistent_keepalive_s
