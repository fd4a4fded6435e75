"""The slow side of the data plane: answering the UAPI, following the link, opening the port, logging what happened."""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from warren.engine.userspace.places import zone_index
from warren.engine.userspace.sockets import Sockets
from warren.errors import OperationFailed
from warren.linux.link import LinkState
from warren.linux.udp_port import UdpPort
from warren.model.tunnel import TunnelChange, TunnelStatus
from warren.proto import datapath, uapi, uapi_answers
from warren.proto.wireguard.device import Device
from warren.proto.wireguard.events import Event

if TYPE_CHECKING:
    from warren.engine.userspace.dataplane import DataPlane

_log = logging.getLogger("warren.engine")


class Control:
    """``sockets`` has the UDP port; ``fwmark`` marks what leaves by it. ``clock_rate`` is how fast the injected clock
    runs.
    """

    def __init__(
        self, plane: DataPlane, device: Device, sockets: Sockets, clock: Callable[[], float], clock_rate: float
    ) -> None:
        self.fwmark = 0
        self.clock_rate = clock_rate
        self._sockets = sockets
        self._plane = plane
        self._device = device
        self._clock = clock
        self._link = LinkState(up=False, mtu=0)
        self._listen_port = 0

    def answer(self, text: bytes) -> bytes:
        """Answer one UAPI request; whatever is wrong with it, the answer is an errno and nothing has changed."""
        try:
            request = uapi.unpack_request_untrusted(text, zone_index)
        except uapi.InvalidRequest as error:
            _log.warning("a control request was refused: %s", error)
            return uapi_answers.pack_errno(errno.EINVAL)
        match request:
            case uapi.GetRequest():
                return uapi_answers.pack_status(self.status())
            case uapi.StatisticsRequest():
                return uapi_answers.pack_statistics(self.statistics())
            case uapi.SetRequest(change):
                return uapi_answers.pack_errno(self._configure(change))

    def status(self) -> TunnelStatus:
        """The device's configuration with the port and mark that are really in use."""
        return dataclasses.replace(self._device.status(), listen_port=self._listen_port, fwmark=self.fwmark)

    def statistics(self) -> dict[str, int]:
        """Every counter of the device and the loop, and which fast ways are in use (0 or 1)."""
        sockets = self._sockets.port.sockets if self._sockets.port else []
        return {
            **self._device.counters,
            **self._plane.counters,
            "uses_compiled_datapath": int(datapath.COMPILED),
            "uses_udp_segmentation": int(bool(sockets) and all(sock.segments for sock in sockets)),
            "uses_udp_gathering": int(bool(sockets) and all(sock.gathers for sock in sockets)),
        }

    def _configure(self, change: TunnelChange) -> int:
        """Apply ``change``, the part that can fail first; returns an errno."""
        fwmark = self.fwmark if change.fwmark is None else change.fwmark
        try:
            self._device.check(change)
            if change.listen_port == 0 or change.listen_port not in (None, self._listen_port):
                self._open(change.listen_port, fwmark)
                if self._link.up:
                    _log.info("listening on UDP port %d from now on", self._listen_port)
            if fwmark != self.fwmark:
                self._sockets.set_fwmark(fwmark)
        except OperationFailed as error:
            _log.error("%s", error)
            return _errno_of(error)
        except OSError as error:
            _log.error("the firewall mark cannot be set: %s", error.strerror)
            return error.errno or errno.EIO
        self.fwmark = fwmark
        self._device.configure(change, self._clock())
        return 0

    def _open(self, port: int, fwmark: int) -> None:
        """Open ``port`` and close the one before. A port that was chosen once is kept, also while the link is down."""
        opened = UdpPort.open(port, fwmark)
        self._plane.use_port(opened)
        self._listen_port = opened.port

    def follow_link(self, link: LinkState) -> None:
        """Do as the interface does: up opens the port, down closes it; the MTU bounds padding. Routes may have
        changed too.
        """
        before, self._link = self._link, link
        if link.mtu != before.mtu:
            self._device.set_mtu(link.mtu)
        if link.up and not before.up:
            self._up()
        elif before.up and not link.up:
            self._device.down(self._clock())
            self._plane.use_port(None)
            _log.info("the interface is down: the port is closed")
        elif link == before:
            self._device.forget_sources()  # an address or route changed: answers may have to leave from elsewhere

    def _up(self) -> None:
        if self._sockets.port is None:
            try:
                self._open(self._listen_port, self.fwmark)
            except OperationFailed as error:
                _log.error("%s", error)
                return
        _log.info("the interface is up, listening on UDP port %d", self._listen_port)
        self._device.up(self._clock())

    def log_event(self, event: Event) -> None:
        """Say what happened in one line, at the level the event is worth."""
        _log.log(getattr(logging, event.level), "%s", event)


def _errno_of(error: OperationFailed) -> int:
    cause = error.__cause__
    return cause.errno or errno.EIO if isinstance(cause, OSError) else errno.EIO
