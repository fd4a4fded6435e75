"""The data plane's loop: TUN and UDP port at the ends, the WireGuard device between, one ``epoll`` around.

Life of a packet, out: ``tun.read_into`` (up to 64 KB) → ``device.send`` (look up, split) → ``device.flush`` (seal the
whole train) → ``sending.send`` (one call). In: ``socket.receive_into`` (up to 64 KB) → ``device.receive`` (open, check,
coalesce) → ``tun.write``.

Nothing here blocks and nothing grows: when the UDP socket is full, the TUN is not read until it drains.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from warren.engine.userspace.budget import Budget
from warren.engine.userspace.control import Control
from warren.engine.userspace.listener import Listener
from warren.engine.userspace.sending import Sending
from warren.engine.userspace.sockets import Sockets
from warren.engine.userspace.timestamps import TimestampFloor
from warren.engine.userspace.uapi_server import UapiServer
from warren.linux.inotify import RemovalWatch
from warren.linux.link import LinkWatch
from warren.linux.tun import FRAME_BYTES_MAX, Tun
from warren.linux.udp import UdpSocket
from warren.linux.udp_port import UdpPort
from warren.proto.wireguard.addresses import through_socket
from warren.proto.wireguard.constants import INITIATION
from warren.proto.wireguard.device import Device
from warren.proto.wireguard.events import Event, TimestampUsed

TUN_READS_PER_TURN = 64
TRAINS_PER_TURN = 32
"""After so many of one kind the other side gets its turn: bounds the latency that a flood adds."""
SUPER_PACKET_BYTES = 8192
"""A frame at least this long is worth a system call of its own; shorter ones are gathered."""
HANDSHAKES_PER_SECOND = 1000
HANDSHAKES_AT_ONCE = 8
"""A handshake message costs about 200 µs: a fifth of a core at most, and at most 1.6 ms between two turns of data."""
PATIENCE_MAX_S = 60.0
"""With nothing to wait for, a look at the clock once a minute costs nothing."""
_DATAGRAMS_BYTES = 1 << 16

_log = logging.getLogger("warren.engine")


class DataPlane:
    """Owns the TUN, the link watch and the device; :meth:`run` returns when it is time to end. ``sockets``: the
    directory of the control sockets, if it is not the usual one.
    """

    def __init__(
        self,
        tun: Tun,
        link: LinkWatch,
        device: Device,
        floor: TimestampFloor | None,
        clock: Callable[[], float],
        clock_rate: float = 1.0,
        sockets: Path | None = None,
    ) -> None:
        self._tun = tun
        self._link = link
        self._device = device
        self._floor = floor
        self._durable = True  # whether the last timestamp could be stored
        self._clock = clock
        self._poller = select.epoll()
        self._stopping = ""
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._frame = memoryview(bytearray(FRAME_BYTES_MAX))
        self._datagrams = bytearray(_DATAGRAMS_BYTES)
        self._tun_bursts = self._udp_bursts = False  # whether the last turn brought more than one
        self._sockets = Sockets(self._poller)
        self._budget = Budget(HANDSHAKES_PER_SECOND, HANDSHAKES_AT_ONCE * 4, clock())
        self.counters: Counter[str] = Counter()
        self._sending = Sending(device, self._sockets, self._poller, tun.fd, self.counters)
        device.drain_by(self._deliver)
        self.control = Control(self, device, self._sockets, clock, clock_rate)
        self._uapi = UapiServer(tun.name, self._poller, self.control.answer, sockets)
        self._listener = Listener(
            tun.name, self._poller, device, self._sockets, lambda: self.control.fwmark, self.counters, sockets
        )
        self._removal = RemovalWatch(self._uapi.path)
        for fd in (tun.fd, link.fileno(), self._removal.fileno(), self._wake_read):
            self._poller.register(fd, select.EPOLLIN)

    def stop(self, why: str) -> None:
        """End :meth:`run`. Safe to call from a signal handler."""
        self._stopping = self._stopping or why
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def run(self) -> str:
        """Move packets until :meth:`stop`, or until the interface or the UAPI socket is gone. Returns why it ended."""
        device, clock, poll, serve = self._device, self._clock, self._poller.poll, self._serve
        wake_at, rate = device.wake_at, self.control.clock_rate
        self._link_changed()
        self._emit()
        now = clock()
        while not self._stopping:
            patience = (wake_at() - now) / rate if not device.pending_handshakes else self._budget.wait(now)
            events = poll(min(max(patience, 0.0), PATIENCE_MAX_S))
            now = clock()
            for fd, mask in events:
                serve(fd, mask, now)
            if device.pending_handshakes:
                device.handshake_work(now, self._budget.take(now, HANDSHAKES_AT_ONCE))
                self._emit()
            if wake_at() <= now:
                device.handle_timeout(now)
                self._emit()
        return self._stopping

    def close(self) -> None:
        """Close the socket, the interface and everything else this object opened or was given."""
        self._uapi.close()
        self._listener.close()
        self._removal.close()
        self._sockets.close()
        self._link.close()
        self._tun.close()
        self._poller.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def use_port(self, port: UdpPort | None) -> None:
        """Send and receive through ``port`` from now on; the one before is closed."""
        self._sending.drop()
        self._sockets.use(port)

    def _serve(self, fd: int, mask: int, now: float) -> None:
        if fd == self._tun.fd:
            self._tun_readable(now)
        elif fd in self._sockets.by_fd:
            if mask & select.EPOLLOUT:
                self._sending.resume()
            if mask & ~select.EPOLLOUT:
                self._udp_readable(*self._sockets.by_fd[fd], now)
        elif self._listener.owns(fd):
            self._listener.handle(fd)
            self._sending.sockets_changed()
        elif self._uapi.owns(fd):
            self._uapi.handle(fd, mask)
            self._emit()
        elif fd == self._link.fileno():
            self._link_changed()
            self._emit()
        elif fd == self._removal.fileno() and self._removal.removed():
            self.stop("its control socket was removed")

    def _tun_readable(self, now: float) -> None:
        """Take what the host sends. A frame that comes alone goes out at once; in a burst, small ones are gathered."""
        device, frame, read = self._device, self._frame, self._tun.read_into
        alone = not self._tun_bursts
        frames = 0
        try:
            while frames < TUN_READS_PER_TURN and (length := read(frame)):
                frames += 1
                device.send(frame, length, now)
                if alone or length >= SUPER_PACKET_BYTES or not device.room():
                    alone = False
                    device.flush(now)
                    self._emit()
                    if self._sending.pending:
                        return
        except OSError:
            self.stop("its interface was removed")
        self._tun_bursts = frames > 1
        device.flush(now)
        self._emit()

    def _udp_readable(self, sock: UdpSocket, number: int, now: float) -> None:
        """Take what the network brings, in the same manner. ``number`` is that of a socket handed over, else 0."""
        device, datagrams, receive = self._device, self._datagrams, sock.receive_into
        control = device.control
        alone = not self._udp_bursts
        trains = 0
        while trains < TRAINS_PER_TURN and (received := receive(datagrams)) is not None:
            trains += 1
            length, stride, source, local, ecn, arrival = received
            if number:
                source = through_socket(source, number)
            device.receive(datagrams, length, stride, source, local, ecn, now)
            if control.waiting:
                for datagram in control.take():
                    self._listener.tell(datagram.datagram(arrival))
            if alone or length >= SUPER_PACKET_BYTES or not device.inbound_room():
                alone = False
                self._deliver()
        self._udp_bursts = trains > 1
        self._deliver()
        self._emit()

    def _deliver(self) -> None:
        write = self._tun.write
        for frame in self._device.take_frames():
            if not write(frame):
                self.counters["tun_write_refused"] += 1

    def _emit(self) -> None:
        """Act on what the device wants: note what must be durable first, then send."""
        events = self._device.take_events()
        durable = not events or self._note(events)
        transmits = self._device.take_transmits()
        if not durable:
            transmits = [transmit for transmit in transmits if transmit.data[0] != INITIATION]
        if transmits:
            self._sending.send(transmits)

    def _note(self, events: list[Event]) -> bool:
        """Log events and persist timestamps; False when one could not be made durable: no initiation may carry it."""
        for event in events:
            if not isinstance(event, TimestampUsed):
                self.control.log_event(event)
                if event.news is not None:
                    self._listener.tell(event.news)
            elif self._floor is not None and not self._make_durable(self._floor, event.timestamp_ns):
                return False
        return True

    def _make_durable(self, floor: TimestampFloor, timestamp_ns: int) -> bool:
        """Store a timestamp before it is sent; says so when that begins to fail, and when it works again."""
        try:
            floor.use(timestamp_ns)
        except OSError as error:
            self.counters["timestamp_not_durable"] += 1
            if self._durable:
                _log.warning("no handshakes: their timestamps cannot be stored (%s); free the disk", error.strerror)
            self._durable = False
            return False
        if not self._durable:
            _log.info("handshake timestamps can be stored again")
        self._durable = True
        return True

    def _link_changed(self) -> None:
        self._link.drain()
        state = self._link.state()
        if state is None:
            self.stop("its interface was removed")
        else:
            self.control.follow_link(state)


def boottime() -> float:
    """Seconds since boot, suspended time included: keys age while a machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
