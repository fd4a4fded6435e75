"""Sends what the device wants sent. What a full socket does not take waits, and so does the host: its packets are read
no further until the socket drains.
"""

from __future__ import annotations

import errno
import select
from collections import Counter
from typing import Final

from warren.engine.userspace.sockets import Sockets
from warren.linux.udp import UdpSocket
from warren.proto.wireguard.device import Device, Transmit

_PENDING_MAX: Final = 256  # transmits kept while the UDP socket is full: the last turn's, and handshakes meanwhile


class Sending:
    """Sends by the port of ``sockets``. ``host`` is the descriptor that ``poller`` reads the host's packets from."""

    def __init__(
        self, device: Device, sockets: Sockets, poller: select.epoll, host: int, counters: Counter[str]
    ) -> None:
        self.pending: list[Transmit] = []
        """What waits for room, oldest first."""
        self._device = device
        self._sockets = sockets
        self._poller = poller
        self._host = host
        self._counters = counters
        self._blocked: UdpSocket | None = None  # the socket that is full, while transmits are pending

    def send(self, transmits: list[Transmit]) -> None:
        """Send, or keep behind what waits already."""
        if self.pending:
            self._defer(transmits)
            return
        port = self._sockets.port
        if port is None:
            self._counters["udp_closed"] += len(transmits)
            return
        send = port.send
        for index, transmit in enumerate(transmits):
            data, stride, endpoint, ecn, peer = transmit
            error = send(data, stride, endpoint.address, endpoint.local, ecn)
            if error == 0:
                continue
            if error == errno.EAGAIN:
                self._defer(transmits[index:])
                return
            if endpoint.local:  # the address we answered from may be gone: let the kernel choose again
                self._device.forget_source(peer)
                error = send(data, stride, endpoint.address, b"", ecn)
            if error:
                self._counters["udp_send_" + errno.errorcode.get(error, str(error))] += 1

    def resume(self) -> None:
        """There is room again."""
        pending, self.pending = self.pending, []
        self._unblock()
        self.send(pending)

    def sockets_changed(self) -> None:
        """The socket that was waited for may be gone, and what waits for it is then tried anyway."""
        if self._blocked is not None and self._blocked.fileno() not in self._sockets.by_fd:
            self.resume()

    def drop(self) -> None:
        """The port is closed: forget what waits."""
        if self.pending:
            self._counters["udp_closed"] += len(self.pending)
            self._unblock()
            self.pending.clear()

    def _defer(self, transmits: list[Transmit]) -> None:
        """Keep transmits until the socket has room. Their bytes are copied: the device reuses its buffer."""
        if not self.pending:
            self._block(transmits[0])
        room = _PENDING_MAX - len(self.pending)
        self.pending += [transmit._replace(data=bytes(transmit.data)) for transmit in transmits[:room]]
        self._counters["udp_queue_full"] += max(0, len(transmits) - room)

    def _block(self, transmit: Transmit) -> None:
        """Wait for room in the socket of ``transmit``; meanwhile the host is not read."""
        self._poller.modify(self._host, 0)
        port = self._sockets.port
        self._blocked = port.socket_for(transmit.endpoint.address) if port is not None else None
        if self._blocked is not None:
            self._poller.modify(self._blocked.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _unblock(self) -> None:
        blocked, self._blocked = self._blocked, None
        if blocked is not None and blocked.fileno() in self._sockets.by_fd:
            self._poller.modify(blocked.fileno(), select.EPOLLIN)
        self._poller.modify(self._host, select.EPOLLIN)
