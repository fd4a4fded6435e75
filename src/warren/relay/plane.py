"""The relay's loop: ports and clients at one end, relayed sockets at the other, the TURN server between, one ``epoll``
around.

Nothing here blocks and nothing grows: what a socket cannot take is lost, as in a router; who sends too much waits in
the kernel's buffer of his own socket.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import os
import select
import time
from collections.abc import Callable, Mapping

from warren.errors import OperationFailed
from warren.linux.udp import TRAIN_DATAGRAMS_MAX
from warren.model.tunnel import IPAddress
from warren.proto.turn.filter import PeerFilter
from warren.proto.turn.server import TurnServer
from warren.proto.turn.server_credentials import Both, SharedSecret, Table
from warren.proto.turn.server_values import (
    UDP,
    Allocation,
    Client,
    Closed,
    Opened,
    Settings,
    SocketAddress,
    ToClient,
)
from warren.relay import metrics
from warren.relay.carrier import Carrier, StreamEnd, UdpEnd
from warren.relay.config import RelayConfig
from warren.relay.discovery import DiscoveryDoor
from warren.relay.fairness import DATAGRAM_COST_BYTES, Bucket, Share, skip_rounds
from warren.relay.own_addresses import own_addresses, usual_address
from warren.relay.sockets import DATA_BUFFER_BYTES, TrainSocket, host_of, open_client, open_port, open_relayed
from warren.relay.stream_door import StreamDoor
from warren.relay.streams import Garbage, Message, Stream, Train, take_frames_untrusted

READS_PER_VISIT = 64
"""At most, of one socket: small datagrams cost time, not bytes."""
GATHERED_BYTES = 49_152
"""Single datagrams are gathered up to here: what one call can send, with room for another."""
TRAINS_PER_PORT_VISIT = 64
OWN_ADDRESSES_EVERY_S = 10.0
PATIENCE_MAX_S = 60.0
_STALE = -1.0
_BUFFER_BYTES = 1 << 17  # what is gathered, and the largest train there is behind it
NOTHING_BYTES = 8  # a datagram without data, or ChannelData of one, would vanish at the end of a train
_STREAM_READ_BYTES = 1 << 16
_EVENTS_MAX = 256

_log = logging.getLogger("warren.relay")


class _Data:
    """What a file descriptor of the data path belongs to."""

    __slots__ = ("allocation", "bursts", "family", "share", "socket")

    def __init__(self, sock: TrainSocket, allocation: Allocation, share: Share, family: int) -> None:
        self.socket = sock
        self.allocation = allocation
        self.share = share
        self.family = family
        """Of the relayed address; 0: it is the client's own socket."""
        self.bursts = False
        """Whether the last visit found more than one train."""


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
        self._poller = select.epoll()
        self._slow = select.epoll()
        """Everything but data: polled alone while the total rate is used up."""
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._ports: list[TrainSocket] = []
        self._port_by_fd: dict[int, int] = {}
        self._data: dict[int, _Data] = {}
        self._shares: dict[str, Share] = {}
        self._paused: list[tuple[float, int, Share]] = []
        self._turn = 0
        self._held_until = 0.0
        self._hungry: dict[int, Stream] = {}
        """TLS connections that hold decrypted bytes, or more than their turn allowed."""
        self._watched: dict[int, Callable[[], None]] = {}
        self._stopping = ""
        self._drain_until = float("inf")
        self._look_at_addresses = 0.0
        self._due = _STALE
        """When something other than data is to be done."""
        now = clock()
        self._total = Bucket(config.total_bytes_per_s, now)
        self.table = Table(config.users)
        self.secret = SharedSecret(config.secrets, unix_s)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watch_everywhere(self._wake_read)
        self._bind_hosts = _relay_hosts(config)
        external: dict[int, IPAddress] = {one.version: one for one in config.external_addresses}
        outside = self._bind_hosts | external
        if not outside:
            raise OperationFailed("this host has no address that could be relayed to: name one with relay_addresses")
        self._outside = frozenset(outside.values())
        settings = Settings(
            addresses=tuple(outside.values()),
            realm=config.realm,
            ports=range(config.ports[0], config.ports[1] + 1),
            own_ports=frozenset(config.own_ports),
            allocations_max=config.allocations,
            allocations_per_user=config.allocations_per_user,
            allocations_per_prefix=config.allocations_per_address,
        )
        self.server = TurnServer(settings, Both(self.table, self.secret), self._filter(), self, os.urandom)
        hosts = {str(one) for one in self._outside | set(self._bind_hosts.values())}
        self._carrier = Carrier(self.server, hosts, config.own_ports)
        self._discovery: DiscoveryDoor | None = None
        self._streams: StreamDoor | None = None
        self._metrics: metrics.MetricsDoor | None = None
        try:
            self._open_doors()
        except BaseException:
            self.close()
            raise

    # Doors

    def _open_doors(self) -> None:
        config = self._config
        if config.udp_port is not None:
            port = config.udp_port
            for family, host in _listen_hosts(config):
                sock = _opened_port(family, host, port)
                if sock is None:
                    continue
                port = port or sock.address[1]
                self._port_by_fd[sock.fileno()] = len(self._ports)
                self._ports.append(sock)
                self._watch_everywhere(sock.fileno())
            self._discovery = DiscoveryDoor(config.discovery_addresses, port, config.discovery_port)
            for sock in self._discovery.sockets:
                self._port_by_fd[sock.fileno()] = len(self._ports)
                self._ports.append(sock)
                self._watch_everywhere(sock.fileno())
            if not self._ports:
                raise OperationFailed("this host has neither IPv4 nor IPv6: there is nothing to listen on")
            self.udp_port = port
        self._streams = StreamDoor(config, _listen_hosts(config), self._poller)
        for fd in self._streams.listeners:
            self._slow.register(fd, select.EPOLLIN)
        if config.metrics is not None:
            self._metrics = metrics.MetricsDoor(config.metrics, self._poller, self.metrics_page, self.is_healthy)

    udp_port: int | None = None

    @property
    def tcp_port(self) -> int | None:
        return self._streams.tcp_port if self._streams else None

    @property
    def tls_port(self) -> int | None:
        return self._streams.tls_port if self._streams else None

    @property
    def certificate_sha256(self) -> bytes | None:
        return self._streams.certificate_sha256 if self._streams else None

    @property
    def metrics_port(self) -> int | None:
        return self._metrics.port if self._metrics else None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Of relayed addresses, as peers see them."""
        return tuple(sorted(self._outside, key=lambda one: one.version))

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` when ``fd`` can be read."""
        self._watched[fd] = ready
        self._watch_everywhere(fd)

    def unwatch(self, fd: int) -> None:
        del self._watched[fd]
        self._poller.unregister(fd)
        self._slow.unregister(fd)

    def _watch_everywhere(self, fd: int) -> None:
        self._poller.register(fd, select.EPOLLIN)
        self._slow.register(fd, select.EPOLLIN)

    # What the operator does

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

    def is_healthy(self) -> bool:
        return not self._stopping

    def metrics_page(self) -> str:
        counters = self.server.counters + self._carrier.counters
        gauges = {
            "allocations": len(self.server.allocations),
            "users": len(self._shares),
            "streams": len(self._streams.streams) if self._streams else 0,
            "draining": int(bool(self._stopping)),
        }
        return metrics.render(gauges, counters)

    @property
    def counters(self) -> Mapping[str, int]:
        return self.server.counters + self._carrier.counters

    # The loop

    def run(self) -> str:
        """Relay until :meth:`stop`; returns why it ended."""
        while True:
            now = self._clock()
            if self._stopping and self._may_end(now):
                return self._stopping
            held = now < self._held_until
            if held:
                events = self._slow.poll(max(self._held_until - now, 0.001), _EVENTS_MAX)
            else:
                self._turn += 1  # a round is one in which data may move
                events = self._poller.poll(self._patience(now), _EVENTS_MAX)
            now = self._clock()
            self._round(events, now)
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
        if self._hungry:
            return 0.0
        if self._due < 0:
            self._due = self._next_due(now)
        return max(self._due - now, 0.0)

    def _next_due(self, now: float) -> float:
        ends = [now + PATIENCE_MAX_S, max(self._look_at_addresses, now)]
        deadline = self.server.next_deadline()
        if deadline is not None:
            ends.append(deadline.at)
        if self._paused:
            ends.append(self._paused[0][0])
        if self._streams is not None and self._streams.next_expiry is not None:
            ends.append(self._streams.next_expiry)
        if self._stopping:
            ends.append(self._drain_until)
        return max(min(ends), 0.0)

    def _round(self, events: list[tuple[int, int]], now: float) -> None:
        skipped: list[Share] = []
        served = False
        data = self._data
        for fd, mask in events:
            one = data.get(fd)
            if one is None:
                self._serve_other(fd, mask, now)
                continue
            share = one.share
            share.begin(self._turn)
            if share.deficit <= 0:
                skipped.append(share)
                continue
            served = True
            self._charge(share, self._serve(one, share.deficit, now), now)
        if self._hungry:
            self._serve_hungry(now)
        if skipped and not served:
            skip_rounds(skipped)

    def _charge(self, share: Share, cost: int, now: float) -> None:
        share.deficit -= cost
        if share.bucket.rate:
            wait = share.bucket.take(cost, now)
            if wait > 0:
                self._pause(share, now + wait)
        if self._total.rate:
            self._held_until = max(self._held_until, now + self._total.take(cost, now))

    def _serve(self, one: _Data, limit: int, now: float) -> int:
        """Move what one socket holds, some ``limit`` bytes of it; returns what it cost.

        A datagram that comes alone is moved at once. In a burst, single datagrams of one size from one place are
        gathered: one call sends them all.
        """
        sock, buffer, view = one.socket, self._buffer, self._view
        receive, move = sock.receive_into, self._move
        gathers = one.bursts
        held = stride = ecn = cost = reads = 0
        source: SocketAddress = ()
        while reads < READS_PER_VISIT:
            arrived = receive(view[held:] if held else view)
            if arrived is None:
                break
            reads += 1
            length, its_stride, its_source, _, its_ecn = arrived
            cost += length + DATAGRAM_COST_BYTES * (length // its_stride if its_stride else 1)
            fits = its_stride == stride or NOTHING_BYTES < length == its_stride < stride
            if held and fits and its_source == source and its_ecn == ecn:
                held += length
            else:
                if held:
                    move(one, source, held, stride, ecn, now)
                    buffer[:length] = buffer[held : held + length]
                held, stride, source, ecn = length, its_stride, its_source, its_ecn
            if not gathers or held >= GATHERED_BYTES or held % (stride or 1) or held >= TRAIN_DATAGRAMS_MAX * stride:
                move(one, source, held, stride, ecn, now)
                held = 0
                gathers = True
            if cost >= limit or sock.fileno() < 0:
                break
        if held:
            move(one, source, held, stride, ecn, now)
        one.bursts = reads > 1
        if self.server.has_output:
            self._emit(now)
        return cost

    def _move(self, one: _Data, source: SocketAddress, length: int, stride: int, ecn: int, now: float) -> None:
        """Pass on a train that lies in the buffer."""
        allocation = one.allocation
        if one.family:
            relayed = allocation.relayed.get(one.family)
            if relayed is not None:
                self._carrier.from_peer(relayed, source, self._view[:length], stride, ecn, now)
        elif source == allocation.client.remote:
            self._carrier.from_client(allocation, self._buffer, length, stride, ecn, now)
        else:
            client = Client(UDP, source, allocation.client.local, allocation.client.listener)
            self._from_port(client, length, stride, ecn, now)

    def _serve_other(self, fd: int, mask: int, now: float) -> None:
        self._due = _STALE
        index = self._port_by_fd.get(fd)
        if index is not None:
            self._port_readable(index, now)
        elif self._streams is not None and fd in self._streams.streams:
            self._stream_ready(self._streams.streams[fd], mask, now)
        elif self._streams is not None and fd in self._streams.listeners:
            self._streams.accept(fd, now)
        elif self._metrics is not None and self._metrics.owns(fd):
            self._metrics.handle(fd, now)
        elif fd == self._wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)
        elif fd in self._watched:
            self._watched[fd]()

    def _port_readable(self, index: int, now: float) -> None:
        """Requests of clients that have no socket of their own yet, and data of those that got none."""
        receive, view = self._ports[index].receive_into, self._view
        for _ in range(TRAINS_PER_PORT_VISIT):
            arrived = receive(view)
            if arrived is None:
                break
            length, stride, source, local, ecn = arrived
            self._from_port(Client(UDP, source, local, index), length, stride, ecn, now)
        self._emit(now)

    def _from_port(self, client: Client, length: int, stride: int, ecn: int, now: float) -> None:
        allocation = self.server.allocations.get(client)
        if allocation is not None:
            self._carrier.from_client(allocation, self._buffer, length, stride, ecn, now)
            return
        view = self._view
        for at in range(0, length, stride or 1):
            if self._buffer[at] < 0x40:  # ChannelData of nobody, and anything else, is not worth a look
                message = bytes(view[at : min(at + stride, length)])
                if self._discovery is None or not self._discovery.answer(message, client, self._ports, now):
                    self.server.receive(message, client, now)

    # Streams

    def _stream_ready(self, stream: Stream, mask: int, now: float) -> None:
        if mask & select.EPOLLOUT:
            try:
                stream.flush()
            except OSError:
                self._end_stream(stream)
                return
        share = stream.share
        limit = _STREAM_READ_BYTES
        if isinstance(share, Share):
            share.begin(self._turn)
            if share.deficit <= 0 or now < share.paused_until:
                self._hungry[stream.fileno()] = stream
                self._follow(stream)
                return
            limit = share.deficit
        try:
            got = stream.read(limit)
            frames = take_frames_untrusted(stream.inbox, message_bytes_max=stream.message_bytes_max)
        except (Garbage, OSError):
            self._end_stream(stream)
            return
        self._take_frames(stream, frames, now)
        self._emit(now)
        if isinstance(share, Share):
            self._charge(share, got, now)
        if stream.fileno() < 0:
            return
        if stream.holds_more:
            self._hungry[stream.fileno()] = stream
        self._follow(stream)

    def _take_frames(self, stream: Stream, frames: list[Message | Train], now: float) -> None:
        for frame in frames:
            if isinstance(frame, Message):
                self.server.receive(frame.data, stream.client, now)
                continue
            allocation = self.server.allocations.get(stream.client)
            if allocation is None:
                continue
            allocation.heard_at = now
            self._carrier.from_channel(allocation, frame.channel, frame.data, frame.stride, 0, now)

    def _serve_hungry(self, now: float) -> None:
        hungry, self._hungry = self._hungry, {}
        for fd, stream in hungry.items():
            if self._streams is not None and self._streams.streams.get(fd) is stream:
                self._stream_ready(stream, 0, now)

    def _follow(self, stream: Stream) -> None:
        if self._streams is not None:
            self._streams.follow(stream)

    def _end_stream(self, stream: Stream) -> None:
        self.server.disconnected(stream.client)
        if self._streams is not None:
            self._streams.end(stream)
        self._emit(self._clock())

    # What the server wants

    def _emit(self, now: float) -> None:
        """Act on what the server wants.

        Sockets are opened and closed before anybody is told of it: what a client sends next then goes to the right one.
        """
        server, carrier = self.server, self._carrier
        self._due = _STALE
        while server.has_output:  # what goes to another client may become an indication
            for event in server.take_events():
                if isinstance(event, Opened):
                    self._opened(event.allocation, now)
                else:
                    self._closed(event)
            for transmit in server.take_transmits():
                if isinstance(transmit, ToClient):
                    self._send_to_client(transmit.client, transmit.data)
                else:
                    relayed, peer, data, whole = transmit
                    carrier.to_peer(relayed, peer, data, now, whole=whole)

    def _send_to_client(self, client: Client, data: bytes) -> None:
        allocation = self.server.allocations.get(client)
        end = allocation.handle if allocation is not None else None
        if isinstance(end, UdpEnd | StreamEnd):
            end.send_message(data)
        elif client.transport == UDP:
            local = client.local if isinstance(client.local, bytes) else b""
            self._ports[client.listener].send(data, len(data), client.remote, local)
        elif self._streams is not None:
            stream = self._streams.by_client.get(client)
            if stream is not None:
                StreamEnd(stream, self._streams.follow).send_message(data)

    def _opened(self, allocation: Allocation, now: float) -> None:
        share = self._shares.get(allocation.identity)
        if share is None:
            share = self._shares[allocation.identity] = Share(allocation.identity, self._config.user_bytes_per_s, now)
        share.holders += 1
        for relayed in allocation.relayed.values():
            if isinstance(relayed.handle, TrainSocket):
                self._register(relayed.handle, _Data(relayed.handle, allocation, share, relayed.family))
        client = allocation.client
        if client.transport == UDP:
            allocation.handle = self._udp_end(allocation, share)
        elif self._streams is not None:
            stream = self._streams.by_client[client]
            stream.share = share
            self._streams.proved(stream)
            allocation.handle = StreamEnd(stream, self._streams.follow)

    def _udp_end(self, allocation: Allocation, share: Share) -> UdpEnd:
        client = allocation.client
        port = self._ports[client.listener]
        local = client.local if isinstance(client.local, bytes) else b""
        try:
            sock = open_client(port.family, host_of(local), port.address[1], client.remote, self._data_buffer_bytes())
        except OSError as error:
            self._carrier.counters["clients_without_socket"] += 1
            _log.debug("client %s has no socket of its own: %s", client.remote[0], error.strerror)
            return UdpEnd(port, client.remote, local)
        self._register(sock, _Data(sock, allocation, share, 0))
        return UdpEnd(sock)

    def _register(self, sock: TrainSocket, one: _Data) -> None:
        self._data[sock.fileno()] = one
        paused = one.share.paused_until > self._clock()
        self._poller.register(sock.fileno(), 0 if paused else select.EPOLLIN)

    def _closed(self, event: Closed) -> None:
        allocation = event.allocation
        end, allocation.handle = allocation.handle, None
        if isinstance(end, UdpEnd) and end.remote is None:
            self._forget(end.socket)
        elif isinstance(end, StreamEnd) and self._streams is not None:
            end.stream.share = None
            self._streams.unproved(end.stream, self._clock())
        share = self._shares.get(allocation.identity)
        if share is not None:
            share.holders -= 1
            if share.holders == 0:
                del self._shares[allocation.identity]

    def _forget(self, sock: TrainSocket) -> None:
        if self._data.pop(sock.fileno(), None) is not None:
            self._poller.unregister(sock.fileno())
        sock.close()

    def open_relayed(self, family: int, port: int) -> object | None:
        """See :class:`~warren.proto.turn.server_values.Sockets`."""
        host = self._bind_hosts.get(family)
        if host is None:
            return None
        try:
            return open_relayed(family, str(host), port, self._data_buffer_bytes())
        except OSError:
            return None

    def close_relayed(self, handle: object) -> None:
        if isinstance(handle, TrainSocket):
            self._forget(handle)

    def _data_buffer_bytes(self) -> int:
        """With a rate for each user a large buffer would only be a long queue: a tenth of a second is enough."""
        rate = self._config.user_bytes_per_s or self._config.total_bytes_per_s
        return int(min(DATA_BUFFER_BYTES, max(rate / 10, 1 << 17))) if rate else DATA_BUFFER_BYTES

    # Time

    def _timers(self, now: float) -> None:
        self._due = _STALE
        deadline = self.server.next_deadline()
        if deadline is not None and deadline.at <= now:
            self.server.handle_timeout(now)
            self._emit(now)
        while self._paused and self._paused[0][0] <= now:
            self._resume(heapq.heappop(self._paused)[2])
        if self._streams is not None:
            for stream in self._streams.expired(now):
                self._end_stream(stream)
        if now >= self._look_at_addresses:
            self.server.peers = self._filter()
            self._look_at_addresses = now + OWN_ADDRESSES_EVERY_S

    def _filter(self) -> PeerFilter:
        config = self._config
        return PeerFilter(
            allowed=config.allow_peers,
            own=own_addresses() | self._outside,
            relayed=self._outside,
            denied=config.deny_peers,
            nat64_prefixes=config.nat64_prefixes,
        )

    def _pause(self, share: Share, until: float) -> None:
        share.paused_until = until
        self._due = _STALE
        for fd, one in self._data.items():
            if one.share is share:
                self._poller.modify(fd, 0)
        heapq.heappush(self._paused, (until, id(share), share))

    def _resume(self, share: Share) -> None:
        for fd, one in self._data.items():
            if one.share is share:
                self._poller.modify(fd, select.EPOLLIN)

    def close(self) -> None:
        """Close everything that was opened here."""
        self.server.close()
        self._emit(self._clock())
        if self._metrics is not None:
            self._metrics.close()
        if self._streams is not None:
            self._streams.close()
        for sock in self._ports:
            sock.close()
        self._poller.close()
        self._slow.close()
        os.close(self._wake_read)
        os.close(self._wake_write)


def _listen_hosts(config: RelayConfig) -> list[tuple[int, str]]:
    """Family and address of each port; an empty address is all of them."""
    return [(one.version, str(one)) for one in config.listen] or [(4, ""), (6, "")]


def _relay_hosts(config: RelayConfig) -> dict[int, IPAddress]:
    """Where relayed sockets are bound, by family."""
    hosts: dict[int, IPAddress] = {}
    for family in (4, 6):
        named = [one for one in config.relay_addresses if one.version == family]
        listened = [one for one in config.listen if one.version == family and not one.is_unspecified]
        chosen = next(iter([*named, *listened]), None) or usual_address(family)
        if chosen is not None:
            hosts[family] = chosen
    return hosts


def _opened_port(family: int, host: str, port: int) -> TrainSocket | None:
    """None: the host lacks the family, and no address of it was asked for."""
    try:
        return open_port(family, host, port)
    except OSError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and not host:
            return None
        where = f"{host} UDP port {port}" if host else f"UDP port {port}"
        raise OperationFailed(f"{where} cannot be had: {error.strerror}; see who has it with `ss -ulpn`") from None
