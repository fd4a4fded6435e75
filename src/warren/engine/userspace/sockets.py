"""The UDP sockets that a data plane reads: its own port, and those that a controller handed over."""

from __future__ import annotations

import select

from warren.linux.udp import UdpSocket
from warren.linux.udp_port import UdpPort


class Sockets:
    """Keeps them registered with ``poller``. ``port`` is the open UDP port, None while the interface is down;
    ``by_fd`` has each socket with its number, 0 for those of the port.
    """

    def __init__(self, poller: select.epoll) -> None:
        self.port: UdpPort | None = None
        self.by_fd: dict[int, tuple[UdpSocket, int]] = {}
        self.others: dict[int, UdpSocket] = {}
        self._poller = poller

    def use(self, port: UdpPort | None) -> None:
        """Send and receive through ``port`` from now on; the one before is closed, the others stay."""
        for sock in self.port.sockets if self.port is not None else ():
            self._forget(sock)
        self.port = port
        if port is not None:
            port.others = self.others
            for sock in port.sockets:
                self._watch(sock, 0)

    def add(self, number: int, sock: UdpSocket) -> None:
        """Read ``sock`` too, and send by it what names that number, which is free."""
        self.others[number] = sock
        self._watch(sock, number)

    def remove(self, number: int) -> None:
        """Close the socket with that number, if there is one."""
        sock = self.others.pop(number, None)
        if sock is not None:
            self._forget(sock)

    def set_fwmark(self, fwmark: int) -> None:
        """Raises OSError."""
        for sock, _ in self.by_fd.values():
            sock.set_fwmark(fwmark)

    def close(self) -> None:
        self.use(None)
        for number in list(self.others):
            self.remove(number)

    def _watch(self, sock: UdpSocket, number: int) -> None:
        self.by_fd[sock.fileno()] = sock, number
        self._poller.register(sock.fileno(), select.EPOLLIN)

    def _forget(self, sock: UdpSocket) -> None:
        del self.by_fd[sock.fileno()]
        self._poller.unregister(sock.fileno())
        sock.close()
