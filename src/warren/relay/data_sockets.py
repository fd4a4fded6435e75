"""The sockets that carry data: one for each relayed address, one for each client by UDP."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Mapping

from warren.model.tunnel import IPAddress
from warren.proto.turn.server_values import Allocation, RelayedPort
from warren.relay.carrier import UdpEnd
from warren.relay.fairness import Share
from warren.relay.sockets import DATA_BUFFER_BYTES, TrainSocket, host_of, open_client, open_relayed

_log = logging.getLogger("warren.relay")


class DataSocket:
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


class DataSockets:
    """``by_fd`` is for reading. ``hosts`` say where relayed sockets are bound, by family; ``rate`` is what the most
    restricted of them may have, in bytes a second, 0: any.

    The TURN server opens relayed sockets by :class:`~warren.proto.turn.server_values.Sockets`; data is read from them
    once they have been added to the one who holds them.
    """

    def __init__(
        self, hosts: Mapping[int, IPAddress], rate: float, poller: select.epoll, clock: Callable[[], float]
    ) -> None:
        self.by_fd: dict[int, DataSocket] = {}
        self._hosts = hosts
        self._poller = poller
        self._clock = clock
        # With a rate for each user a large buffer would only be a long queue: a tenth of a second is enough.
        self._buffer_bytes = int(min(DATA_BUFFER_BYTES, max(rate / 10, 1 << 17))) if rate else DATA_BUFFER_BYTES

    def open_relayed(self, family: int, port: int) -> object | None:
        host = self._hosts.get(family)
        if host is None:
            return None
        try:
            return open_relayed(family, str(host), port, self._buffer_bytes)
        except OSError:
            return None

    def close_relayed(self, handle: object) -> None:
        if isinstance(handle, TrainSocket):
            self.forget(handle)

    def add_relayed(self, relayed: RelayedPort, share: Share) -> None:
        if isinstance(relayed.handle, TrainSocket):
            self._add(DataSocket(relayed.handle, relayed.allocation, share, relayed.family))

    def open_client(self, allocation: Allocation, port: TrainSocket, share: Share) -> UdpEnd:
        """A socket of its own for a client by UDP that came in by ``port``; where it cannot be had, ``port`` serves."""
        client = allocation.client
        local = client.local if isinstance(client.local, bytes) else b""
        try:
            sock = open_client(port.family, host_of(local), port.address[1], client.remote, self._buffer_bytes)
        except OSError as error:
            _log.debug("client %s has no socket of its own: %s", client.remote[0], error.strerror)
            return UdpEnd(port, client.remote, local)
        self._add(DataSocket(sock, allocation, share, 0))
        return UdpEnd(sock)

    def forget(self, sock: TrainSocket) -> None:
        """Close it."""
        if self.by_fd.pop(sock.fileno(), None) is not None:
            self._poller.unregister(sock.fileno())
        sock.close()

    def listen_to(self, share: Share, *, listen: bool) -> None:
        """Whether what this user's sockets hold is told at all."""
        for fd, one in self.by_fd.items():
            if one.share is share:
                self._poller.modify(fd, select.EPOLLIN if listen else 0)

    def _add(self, one: DataSocket) -> None:
        self.by_fd[one.socket.fileno()] = one
        paused = one.share.paused_until > self._clock()
        self._poller.register(one.socket.fileno(), 0 if paused else select.EPOLLIN)
