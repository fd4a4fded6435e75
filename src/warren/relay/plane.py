"""The relay's loop: ports and clients at one end, relayed sockets at the other, the TURN server between, one ``epoll``
around.

Nothing here blocks and nothing grows: what a socket cannot take is lost, as in a router; who sends too much waits in
the kernel's buffer of his own socket.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping

from warren.model.tunnel import IPAddress
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_credentials import Both, SharedSecret, Table
from warren.proto.turn.server_values import Settings
from warren.relay import metrics
from warren.relay.carrier import Carrier
from warren.relay.config import RelayConfig
from warren.relay.data_sockets import DataSockets
from warren.relay.fairness import Share, skip_rounds
from warren.relay.mover import Mover
from warren.relay.orders import Orders
from warren.relay.pace import Pace
from warren.relay.places import Places
from warren.relay.pollers import Pollers
from warren.relay.stream_door import StreamDoor
from warren.relay.stream_turns import StreamTurns
from warren.relay.udp_door import UdpDoor

OWN_ADDRESSES_EVERY_S = 10.0
PATIENCE_MAX_S = 60.0
_STALE = -1.0
_EVENTS_MAX = 256


class Plane:
    """See the module. Raises OperationFailed or UsageError when what is configured cannot be had."""

    def __init__(
        self,
        config: RelayConfig,
        clock: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._clock = clock
        self._stopping = ""
        self._drain_until = float("inf")
        self._look_at_addresses = 0.0
        self._due = _STALE
        """When something other than data is to be done."""
        self.table = Table(config.users)
        self.secret = SharedSecret(config.secrets, unix_s)
        with contextlib.ExitStack() as opened:
            self._places = Places(config)
            self._pollers = Pollers()
            opened.callback(self._pollers.close)
            self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened.callback(os.close, self._wake_write)
            opened.callback(os.close, self._wake_read)
            self._pollers.watch(self._wake_read, self._woken)
            self._udp = UdpDoor(config, self._places.listen, self._pollers)
            opened.callback(self._udp.close)
            self._streams = StreamDoor(config, self._places.listen, self._pollers)
            opened.callback(self._streams.close)
            self._metrics: metrics.MetricsDoor | None = None
            if config.metrics is not None:
                self._metrics = metrics.MetricsDoor(
                    config.metrics, self._pollers.all, self.metrics_page, self.is_healthy
                )
                opened.callback(self._metrics.close)
            self._furnish()
            opened.callback(self._end_allocations)
            self._opened = opened.pop_all()

    def _furnish(self) -> None:
        """What works between the doors."""
        config, places, clock = self._config, self._places, self._clock
        now = clock()
        rate = config.user_bytes_per_s or config.total_bytes_per_s
        self._sockets = DataSockets(places.relay, rate, self._pollers.all, clock)
        self.server = TurnServer(
            _settings(config, places),
            Both(self.table, self.secret),
            places.peer_filter(),
            self._sockets,
            os.urandom,
        )
        self._pace = Pace(self._sockets, config.total_bytes_per_s, now)
        self._carrier = Carrier(self.server, places.hosts, config.own_ports)
        self._mover = Mover(self.server, self._carrier, self._udp)
        self._orders = Orders(
            self.server, self._carrier, self._sockets, self._udp, self._streams, config.user_bytes_per_s, clock
        )
        self._turns = StreamTurns(self._streams, self.server, self._carrier, self._pace, self._emit)

    # What it serves; a port is None when it is not served

    @property
    def udp_port(self) -> int | None:
        return self._udp.port

    @property
    def tcp_port(self) -> int | None:
        return self._streams.tcp_port

    @property
    def tls_port(self) -> int | None:
        return self._streams.tls_port

    @property
    def certificate_sha256(self) -> bytes | None:
        return self._streams.certificate_sha256

    @property
    def metrics_port(self) -> int | None:
        return self._metrics.port if self._metrics else None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Of relayed addresses, as peers see them."""
        return tuple(sorted(self._places.outside, key=lambda one: one.version))

    def is_healthy(self) -> bool:
        return not self._stopping

    @property
    def counters(self) -> Mapping[str, int]:
        return self.server.counters + self._carrier.counters

    def metrics_page(self) -> str:
        gauges = {
            "allocations": len(self.server.allocations),
            "users": len(self._orders.shares),
            "streams": len(self._streams.streams),
            "draining": int(bool(self._stopping)),
        }
        return metrics.render(gauges, self.counters)

    # What the operator does

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` when ``fd`` can be read."""
        self._pollers.watch(fd, ready)

    def unwatch(self, fd: int) -> None:
        self._pollers.unwatch(fd)

    def stop(self, why: str) -> None:
        """Let nobody in any more, and end :meth:`run` after the time to drain. Safe in a signal handler; called again,
        it ends at once.
        """
        if self._stopping:
            self._drain_until = 0.0
        self._stopping = self._stopping or why
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def set_users(self, users: Mapping[str, str]) -> None:
        """Another table. Who is gone from it, or has another password, loses what he has at once."""
        before, self.table.users = self.table.users, dict(users)
        self.server.revoke({name for name, password in before.items() if users.get(name) != password})
        self._emit(self._clock())

    def set_revoked(self, identities: frozenset[str]) -> None:
        """Who is refused although his time-limited credentials are still good; he loses what he has at once."""
        self.secret.revoked = identities
        self.server.revoke(identities)
        self._emit(self._clock())

    # The loop

    def run(self) -> str:
        """Relay until :meth:`stop`; returns why it ended."""
        pace, pollers = self._pace, self._pollers
        while True:
            now = self._clock()
            if self._stopping and self._may_end(now):
                return self._stopping
            if now < pace.held_until:
                events = pollers.slow.poll(max(pace.held_until - now, 0.001), _EVENTS_MAX)
            else:
                pace.round += 1
                events = pollers.all.poll(self._patience(now), _EVENTS_MAX)
            now = self._clock()
            self._round(events, now)
            if now >= pace.resumes_at:
                pace.resume(now)
                self._turns.resume(now)
            if now >= self._due:
                self._timers(now)

    def _may_end(self, now: float) -> bool:
        if not self.server.refusing:
            self.server.refusing = True
            self._drain_until = min(self._drain_until, now + self._config.drain_s)
        return now >= self._drain_until or not self.server.allocations

    def _patience(self, now: float) -> float:
        """How long to wait for events. Data alone moves no deadline: the next one is looked up when something else
        happened.
        """
        if self._turns.has_hungry:
            return 0.0
        if self._due < 0:
            self._due = self._next_due(now)
        return max(min(self._due, self._pace.resumes_at) - now, 0.0)

    def _next_due(self, now: float) -> float:
        ends = [now + PATIENCE_MAX_S, max(self._look_at_addresses, now)]
        deadline = self.server.next_deadline()
        if deadline is not None:
            ends.append(deadline.at)
        if self._streams.next_expiry is not None:
            ends.append(self._streams.next_expiry)
        if self._stopping:
            ends.append(self._drain_until)
        return max(min(ends), 0.0)

    def _round(self, events: list[tuple[int, int]], now: float) -> None:
        skipped: list[Share] = []
        served = False
        sockets, pace, mover = self._sockets.by_fd, self._pace, self._mover
        for fd, mask in events:
            one = sockets.get(fd)
            if one is None:
                self._serve_other(fd, mask, now)
                continue
            share = one.share
            share.begin(pace.round)
            if share.deficit <= 0:
                skipped.append(share)
                continue
            served = True
            cost = mover.serve(one, share.deficit, now)
            if self.server.has_output:
                self._emit(now)
            pace.charge(share, cost, now)
        if self._turns.has_hungry and now >= pace.held_until:
            self._turns.serve_hungry(now)
        if skipped and not served:
            skip_rounds(skipped)

    def _serve_other(self, fd: int, mask: int, now: float) -> None:
        self._due = _STALE
        number = self._udp.by_fd.get(fd)
        if number is not None:
            self._mover.serve_port(number, now)
            self._emit(now)
        elif fd in self._streams.streams:
            self._turns.serve(self._streams.streams[fd], mask, now)
        elif fd in self._streams.listeners:
            self._streams.accept(fd, now)
        elif self._metrics is not None and self._metrics.owns(fd):
            self._metrics.handle(fd, now)
        elif fd in self._pollers.watched:
            self._pollers.watched[fd]()

    def _woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _emit(self, now: float) -> None:
        self._due = _STALE
        self._orders.carry_out(now)

    def _timers(self, now: float) -> None:
        self._due = _STALE
        deadline = self.server.next_deadline()
        if deadline is not None and deadline.at <= now:
            self.server.handle_timeout(now)
            self._emit(now)
        self._turns.end_expired(now)
        if now >= self._look_at_addresses:
            self.server.peers = self._places.peer_filter()
            self._look_at_addresses = now + OWN_ADDRESSES_EVERY_S

    def _end_allocations(self) -> None:
        self.server.close()
        self._orders.carry_out(self._clock())

    def close(self) -> None:
        """Close everything that was opened here."""
        self._opened.close()


def _settings(config: RelayConfig, places: Places) -> Settings:
    return Settings(
        addresses=places.outside,
        realm=config.realm,
        ports=range(config.ports[0], config.ports[1] + 1),
        own_ports=frozenset(config.own_ports),
        allocations_max=config.allocations,
        allocations_per_user=config.allocations_per_user,
        allocations_per_prefix=config.allocations_per_address,
    )
