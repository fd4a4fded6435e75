"""The TCP and TLS ports of a relay, and the connections that came in through them."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import ssl
from collections import Counter
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed, UsageError
from warren.proto.turn.server_values import TCP, TLS, Client
from warren.proto.wireguard.ratelimit import source_prefix
from warren.relay.certificate import context_of, kept_certificate
from warren.relay.config import RelayConfig
from warren.relay.pollers import Pollers
from warren.relay.streams import Stream

UNPROVEN_S: Final = 20.0
"""Within so long a client has authenticated, the handshake of TLS included."""
UNPROVEN_MAX: Final = 1024
UNPROVEN_PER_ADDRESS_MAX: Final = 64
"""Of one IPv4 address or IPv6 /64."""
ACCEPTS_PER_VISIT: Final = 16
_KEEPALIVE_S: Final = 60
_PREFIX_BITS: Final = (32, 64)


class StreamDoor:
    """See the module. ``streams`` are the connections by file descriptor."""

    def __init__(self, config: RelayConfig, hosts: list[tuple[int, str]], pollers: Pollers) -> None:
        """Raises OperationFailed when a port cannot be had, UsageError for a certificate that cannot be used."""
        self.streams: dict[int, Stream] = {}
        self.by_client: dict[Client, Stream] = {}
        self.listeners: dict[int, tuple[socket.socket, str]] = {}
        self.tcp_port: int | None = None
        self.tls_port: int | None = None
        self.certificate_sha256: bytes | None = None
        self._context: ssl.SSLContext | None = None
        self._pollers = pollers
        self._poller = pollers.all
        self._number = 0
        self._unproven: dict[Client, Stream] = {}
        self._per_address: Counter[int] = Counter()
        self._masks: dict[int, int] = {}
        if config.tls_port is not None:
            self._context, self.certificate_sha256 = context_of(*_certificate(config))
        try:
            self.tcp_port = self._listen(TCP, hosts, config.tcp_port)
            self.tls_port = self._listen(TLS, hosts, config.tls_port)
        except BaseException:
            self.close()
            raise

    def _listen(self, transport: str, hosts: list[tuple[int, str]], port: int | None) -> int | None:
        if port is None:
            return None
        for family, host in hosts:
            try:
                listener = _listener(family, host, port)
            except OSError as error:
                if error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL} and not host:
                    continue
                where = f"{host} TCP port {port}" if host else f"TCP port {port}"
                raise OperationFailed(f"{where} cannot be had: {error.strerror}; see who has it: `ss -tlpn`") from None
            port = port or int(listener.getsockname()[1])
            self.listeners[listener.fileno()] = (listener, transport)
            self._pollers.add(listener.fileno())
        return port

    def accept(self, fd: int, now: float) -> None:
        """Take connections in, unless there are too many that have proved nothing."""
        listener, transport = self.listeners[fd]
        for _ in range(ACCEPTS_PER_VISIT):
            try:
                sock, remote = listener.accept()
            except OSError:  # none, gone again, or no file descriptor left
                return
            prefix = source_prefix(remote[0], *_PREFIX_BITS)
            if len(self._unproven) >= UNPROVEN_MAX or self._per_address[prefix] >= UNPROVEN_PER_ADDRESS_MAX:
                sock.close()
                continue
            with contextlib.suppress(OSError):
                self._take_in(sock, remote, transport, now)

    def _take_in(self, sock: socket.socket, remote: tuple[object, ...], transport: str, now: float) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        if self._context is not None and transport == TLS:
            sock = self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self._number += 1
        client = Client(transport, remote, self._number)
        stream = Stream(sock, client, now)
        self.streams[stream.fileno()] = self.by_client[client] = stream
        self._masks[stream.fileno()] = select.EPOLLIN
        self._poller.register(stream.fileno(), select.EPOLLIN)
        self._count_unproven(stream)

    def follow(self, stream: Stream, *, reads: bool = True) -> None:
        """Wait for data, unless that shall wait in the kernel, and for room while something is to be sent."""
        fd = stream.fileno()
        mask = (select.EPOLLIN if reads else 0) | (select.EPOLLOUT if stream.wants_write else 0)
        if self._masks.get(fd, mask) != mask:
            self._masks[fd] = mask
            self._poller.modify(fd, mask)

    def proved(self, stream: Stream) -> None:
        """The client has an allocation: it may stay as long as that."""
        if self._unproven.pop(stream.client, None) is not None:
            self._discount(stream)
        stream.proven = True

    def unproved(self, stream: Stream, now: float) -> None:
        """The client's allocation is gone; it may make another soon."""
        if stream.client in self.by_client and stream.client not in self._unproven:
            stream.proven = False
            stream.since = now
            self._count_unproven(stream)

    def _count_unproven(self, stream: Stream) -> None:
        self._unproven[stream.client] = stream
        self._per_address[source_prefix(stream.client.remote[0], *_PREFIX_BITS)] += 1

    def _discount(self, stream: Stream) -> None:
        prefix = source_prefix(stream.client.remote[0], *_PREFIX_BITS)
        self._per_address[prefix] -= 1
        if not self._per_address[prefix]:
            del self._per_address[prefix]

    @property
    def next_expiry(self) -> float | None:
        """When the first one's time is up; the oldest stands first."""
        return next((stream.since + UNPROVEN_S for stream in self._unproven.values()), None)

    def expired(self, now: float) -> list[Stream]:
        late = []
        for stream in self._unproven.values():
            if stream.since + UNPROVEN_S > now:
                break
            late.append(stream)
        return late

    def end(self, stream: Stream) -> None:
        fd = stream.fileno()
        if self.streams.pop(fd, None) is None:
            return
        del self.by_client[stream.client]
        if self._unproven.pop(stream.client, None) is not None:
            self._discount(stream)
        self._masks.pop(fd, None)
        self._poller.unregister(fd)
        stream.close()

    def close(self) -> None:
        for stream in list(self.streams.values()):
            self.end(stream)
        for listener, _ in self.listeners.values():
            listener.close()
        self.listeners.clear()


def _listener(family: int, host: str, port: int) -> socket.socket:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    listener = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError:
        listener.close()
        raise
    return listener


def _certificate(config: RelayConfig) -> tuple[Path, Path]:
    if config.certificate is not None and config.key is not None:
        return config.certificate, config.key
    if config.state is None:
        raise UsageError("TURN over TLS needs a certificate and its key, or a state directory to keep one in")
    return kept_certificate(config.state)
