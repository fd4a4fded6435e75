"""Which handshake messages are worth a scalar multiplication (WireGuard §5.3).

A handshake message costs some 300 µs, so nothing unauthenticated may cause one unchecked: mac1 is looked at on
arrival, and what passes waits in a queue that the owner works off at its own pace. *Under load*, from when the queue
is an eighth full until a second after, the sender must also prove that it receives at its address (mac2), and may
send only so often; who cannot prove it gets a cookie, which is smaller than what asked for it.
"""

from __future__ import annotations

from collections import deque

from warren.errors import MalformedPacket
from warren.proto.stun.message import looks_like_stun
from warren.proto.wireguard.addresses import SocketAddress
from warren.proto.wireguard.constants import (
    COOKIE_REPLY,
    COOKIE_REPLY_BYTES,
    INITIATION,
    INITIATION_BYTES,
    RESPONSE,
    RESPONSE_BYTES,
    SOURCE_HANDSHAKES_BURST,
    SOURCE_HANDSHAKES_PER_S,
    UNDER_LOAD_S,
)
from warren.proto.wireguard.control import ControlQueue
from warren.proto.wireguard.cookie import CookieChecker
from warren.proto.wireguard.handshake import Handshakes
from warren.proto.wireguard.identity import Identity
from warren.proto.wireguard.indices import IndexTable
from warren.proto.wireguard.messages import pack_cookie_reply, unpack_cookie_reply_untrusted
from warren.proto.wireguard.outbound import Outbound
from warren.proto.wireguard.peer import LONG_AGO, Endpoint
from warren.proto.wireguard.ratelimit import RateLimiter, source_prefix

HANDSHAKE_QUEUE_MAX = 1024
"""Messages that wait: about a second of work, more would be stale before its turn; the reference implementations'
1024 too.
"""
_LOAD_THRESHOLD = HANDSHAKE_QUEUE_MAX // 8

COOKIES_PER_S = 20_000.0
"""All cookie replies together: at some 4 µs each, less than a tenth of a core."""
COOKIES_PER_PREFIX_PER_S = 100.0
"""Cookie replies to one IPv4 /24 or IPv6 /48: nobody can have us flood a network by its forged addresses."""

_SOURCE_BITS = (32, 64)
_PREFIX_BITS = (24, 48)


class Admission:
    """The gate and the queue of one device's handshake messages. ``enabled`` is False while the device is down."""

    def __init__(
        self,
        identity: Identity,
        indices: IndexTable,
        handshakes: Handshakes,
        outbound: Outbound,
        control: ControlQueue,
        counters: dict[str, int],
    ) -> None:
        self.enabled = False
        self.queue: deque[tuple[bytes, SocketAddress, bytes, float]] = deque()
        self._identity = identity
        self._indices = indices
        self._handshakes = handshakes
        self._outbound = outbound
        self._control = control
        self._counters = counters
        self._under_load_until = LONG_AGO
        self._sources = RateLimiter(SOURCE_HANDSHAKES_PER_S, SOURCE_HANDSHAKES_BURST)
        self._cookies = RateLimiter(COOKIES_PER_S, COOKIES_PER_S / 10)
        self._cookie_prefixes = RateLimiter(COOKIES_PER_PREFIX_PER_S, COOKIES_PER_PREFIX_PER_S)

    def receive(self, message: memoryview, source: SocketAddress, local: bytes, now: float) -> None:
        """Judge one datagram that is no data message. ``message`` may be reused on return."""
        if looks_like_stun(message):
            self._control.receive(message, source, local, now)
            return
        checker = self._identity.checker
        kind, size = message[0] if message else 0, len(message)
        if kind == INITIATION and size == INITIATION_BYTES:
            known = True
        elif kind == RESPONSE and size == RESPONSE_BYTES:
            known = self._indices.handshaking(int.from_bytes(message[8:12], "little")) is not None
        elif kind == COOKIE_REPLY and size == COOKIE_REPLY_BYTES:
            self._take_cookie(message, now)
            return
        else:
            self._counters["udp_malformed"] += 1
            return
        if not known:
            self._counters["udp_unknown_index"] += 1
        elif checker is not None and self.enabled and self._admits(checker, message, source, local, now):
            self.queue.append((bytes(message), source, local, now))

    def _admits(
        self, checker: CookieChecker, message: memoryview, source: SocketAddress, local: bytes, now: float
    ) -> bool:
        counters = self._counters
        if not checker.mac1_matches(message):
            counters["handshake_bad_mac1"] += 1
            return False
        if self._under_load(now):
            if not checker.mac2_matches(message, source, now):
                self._send_cookie(checker, message, Endpoint(source, local), now)
                return False
            if not self._sources.allows(source_prefix(source[0], *_SOURCE_BITS), now):
                counters["handshake_limited"] += 1
                return False
        if len(self.queue) >= HANDSHAKE_QUEUE_MAX:
            counters["handshake_queue_full"] += 1
            return False
        return True

    def _under_load(self, now: float) -> bool:
        if len(self.queue) >= _LOAD_THRESHOLD:
            self._under_load_until = now + UNDER_LOAD_S
        return now < self._under_load_until

    def _send_cookie(self, checker: CookieChecker, message: memoryview, asker: Endpoint, now: float) -> None:
        source = asker.address
        allowed = self._cookies.allows(0, now) and self._cookie_prefixes.allows(
            source_prefix(source[0], *_PREFIX_BITS), now
        )
        if not allowed:
            self._counters["cookies_withheld"] += 1
            return
        self._counters["cookies_sent"] += 1
        self._outbound.reply(pack_cookie_reply(checker.reply(message, source, now)), asker)

    def _take_cookie(self, message: memoryview, now: float) -> None:
        try:
            reply = unpack_cookie_reply_untrusted(message)
        except MalformedPacket:
            self._counters["udp_malformed"] += 1
            return
        peer = self._indices.peer_of(reply.receiver)
        if peer is None:
            self._counters["udp_unknown_index"] += 1
        elif peer.cookies.take(reply, now):
            self._counters["cookies_taken"] += 1
        else:
            self._counters["cookies_refused"] += 1

    def work(self, now: float, budget: int) -> int:
        """Process at most ``budget`` waiting messages, oldest first; returns how many there were."""
        done = 0
        queue, handshakes = self.queue, self._handshakes
        while queue and done < budget:
            message, source, local, arrived_at = queue.popleft()
            done += 1
            if message[0] == INITIATION:
                handshakes.take_initiation(message, source, local, now)
            else:
                handshakes.take_response(message, source, local, arrived_at, now)
        return done
