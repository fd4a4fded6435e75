"""Where a controller listens: the data plane's end of the control port (``proto/control_port.py``).

One controller at a time: who connects takes the place of the one before. When it is gone, the tunnel goes on as any
WireGuard does.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from warren.engine.base import SOCKETS_MAX, why_not_handed_over
from warren.engine.userspace.places import control_path
from warren.engine.userspace.sockets import Sockets
from warren.errors import MalformedPacket, OperationFailed
from warren.linux import unix_sockets
from warren.linux.peers import is_trusted
from warren.linux.udp import UdpSocket
from warren.model.datagrams import ControlDatagram, ControlEvent
from warren.proto.control_port import MESSAGE_BYTES_MAX, HandOver, Hello, TakeBack, pack, unpack_untrusted
from warren.proto.wireguard.control import routed
from warren.proto.wireguard.device import Device

MESSAGES_PER_TURN = 64
"""After so many messages of the controller the data gets its turn."""
_BUFFER_BYTES = 1 << 20  # some 500 messages with what the kernel adds: a burst of checks, and a controller that is busy
_SO_SNDBUFFORCE = 32
_ANCILLARY_BYTES = socket.CMSG_SPACE(4 * SOCKETS_MAX)

_log = logging.getLogger("warren.engine")


class Listener:
    """Serves one control port inside somebody else's ``epoll`` loop. Only the owner of the socket (mode 0600 in a 0700
    directory) and root can connect.
    """

    def __init__(
        self,
        interface: str,
        poller: select.epoll,
        device: Device,
        sockets: Sockets,
        fwmark: Callable[[], int],
        counters: Counter[str],
        directory: Path | None = None,
    ) -> None:
        """Raises OperationFailed when the socket cannot be made."""
        self.path = control_path(interface, directory)
        self._poller = poller
        self._device = device
        self._sockets = sockets
        self._fwmark = fwmark
        self._counters = counters
        self._controller: socket.socket | None = None
        try:
            self._door = _open(self.path)
        except OSError as error:
            raise OperationFailed(
                f"{self.path} cannot be made: {error.strerror}; run as the owner of its directory"
            ) from error
        poller.register(self._door.fileno(), select.EPOLLIN)

    def owns(self, fd: int) -> bool:
        return fd == self._door.fileno() or (self._controller is not None and fd == self._controller.fileno())

    def handle(self, fd: int) -> None:
        """Serve one ``epoll`` event of a file descriptor that :meth:`owns` claims."""
        if fd == self._door.fileno():
            self._accept()
        elif self._controller is not None:
            self._read(self._controller)

    def tell(self, event: ControlEvent) -> None:
        """Let the controller hear ``event``; it is lost when there is none, or when it does not keep up."""
        if self._controller is None:
            return
        try:
            self._controller.send(pack(event))
        except BlockingIOError:
            self._counters["control_told_too_fast"] += 1
        except OSError:
            self._part()

    def close(self) -> None:
        """Close everything and remove the socket file."""
        self._part()
        self._door.close()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    # Who is there.

    def _accept(self) -> None:
        try:
            controller, _ = self._door.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                _log.warning("a controller was not accepted: %s", error.strerror)
            return
        if not is_trusted(controller):
            controller.close()
            return
        controller.setblocking(False)
        with contextlib.suppress(PermissionError):  # without privilege it is less patient
            controller.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
        if self._controller is not None:
            self._dismiss(self._controller)
        self._controller = controller
        self._poller.register(controller.fileno(), select.EPOLLIN)
        self._device.listen(True)
        with contextlib.suppress(OSError):  # it went already: the next event tells
            controller.send(pack(Hello(tuple(sorted(self._sockets.others)))))

    def _dismiss(self, controller: socket.socket) -> None:
        self._controller = None
        self._poller.unregister(controller.fileno())
        controller.close()

    def _part(self) -> None:
        """The controller is gone: pinned peers roam, and sockets by which no peer is reached are closed."""
        if self._controller is None:
            return
        self._dismiss(self._controller)
        self._device.listen(False)
        for number in set(self._sockets.others) - self._device.sockets_in_use():
            self._sockets.remove(number)

    # What it says.

    def _read(self, controller: socket.socket) -> None:
        for _ in range(MESSAGES_PER_TURN):
            try:
                data, ancillary, _, _ = controller.recvmsg(
                    MESSAGE_BYTES_MAX + 1, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            handed = [socket.socket(fileno=fd) for fd in _descriptors(ancillary)]
            try:
                if not data:
                    self._part()
                    return
                self._obey(data, handed)
            except MalformedPacket as error:
                _log.warning("a message on the control port was passed over: %s", error)
            finally:
                for sock in handed:
                    sock.close()

    def _obey(self, data: bytes, handed: list[socket.socket]) -> None:
        match unpack_untrusted(data):
            case ControlDatagram() as datagram:
                self._send(datagram)
            case HandOver(number) if len(handed) == 1:
                self._take(number, handed.pop())
            case TakeBack(number):
                self._sockets.remove(number)
            case _:
                raise MalformedPacket("it is not for a controller to say")

    def _send(self, datagram: ControlDatagram) -> None:
        port, data = self._sockets.port, datagram.data
        try:
            address, local = routed(datagram)
        except ValueError:
            self._counters["control_unsent"] += 1
            return
        self._device.control.sent(data, address)
        if port is None:
            error = errno.ENETDOWN
        elif datagram.dont_fragment:
            error = port.send_whole(data, address, local)
        else:
            error = port.send(data, len(data), address, local, 0)
        if error:
            self._counters["control_unsent"] += 1

    def _take(self, number: int, sock: socket.socket) -> None:
        why = why_not_handed_over(sock)
        if why or not 1 <= number <= SOCKETS_MAX or number in self._sockets.others:
            sock.close()
            raise MalformedPacket(why or "a socket was handed over with a number that it cannot have")
        sock.setblocking(False)
        try:
            self._sockets.add(number, UdpSocket(sock, self._fwmark()))
        except OSError as error:
            _log.warning("a socket that was handed over cannot be used: %s", error.strerror)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        int.from_bytes(data[at : at + 4], "little")
        for level, kind, data in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for at in range(0, len(data) - 3, 4)
    ]


def _open(path: Path) -> socket.socket:
    """Listen at ``path``; one that is left there is of a data plane that ended badly, since this interface is ours."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return unix_sockets.listen(path, 1, socket.SOCK_SEQPACKET)
