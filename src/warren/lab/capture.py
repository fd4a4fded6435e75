"""Capturing the packets of a host's interface to a pcap file, without any program besides."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

from warren.errors import OperationFailed
from warren.lab import pcap
from warren.lab.program import Place
from warren.lab.worker import Worker
from warren.linux import netns

LONGEST_PACKET = 1 << 18
"""Bytes kept of a packet: more than the largest super-packet that the kernel passes between interfaces."""

_ETH_P_ALL = 0x0003  # linux/if_ether.h
_ARPHRD_LOOPBACK, _ARPHRD_NONE = 772, 0xFFFE  # linux/if_arp.h
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35  # asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/if_packet.h
_TIMESPEC = struct.Struct("=qq")
_STATISTICS = struct.Struct("=II")  # struct tpacket_stats: packets, drops
_MSG_TRUNC = 0x20  # the length of the whole packet is wanted, even when it is cut
_BATCH_PACKETS = 1024
_KERNEL_BUFFER_BYTES = 64 << 20
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)
_MESSAGE_BYTES_MAX = 64


class Capture:
    """A running capture. Made by :meth:`Host.capture`; it sees every packet from the moment it exists.

    Both directions are captured. Where the interface offloads checksums or segmentation, packets have the unfinished
    checksums and the size that the kernel hands to the interface.
    """

    def __init__(self, place: Place, interface: str, path: Path) -> None:
        self.path = path
        self.dropped = 0
        """Packets the capture was too slow for; known after :meth:`stop`."""
        with _open_packet_socket(place, interface) as packets:
            self._worker: Worker | None = Worker(
                place, lambda control: _write_packets(packets, path, control), (packets.fileno(),)
            )

    def stop(self) -> Path:
        """Write what has arrived until now and end; returns the file. A second call does nothing more."""
        if self._worker is not None:
            with contextlib.suppress(OSError):  # the host, and the worker with it, has ended before
                self._worker.control.send(b"stop")
                answer = self._worker.control.recv(_MESSAGE_BYTES_MAX)
                self.dropped = int(answer or b"0")
            self._worker.end()
            self._worker = None
        return self.path

    def packets(self) -> list[bytes]:
        """Stop, and return the packets in order of time, with their link header if the interface has one."""
        return [record.packet for record in pcap.records(self.stop().read_bytes())]


def _open_packet_socket(place: Place, interface: str) -> socket.socket:
    with netns.network_of(place.pidfd):
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            with contextlib.suppress(PermissionError):  # not in a user namespace: then the default size must do
                packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _KERNEL_BUFFER_BYTES)
            packets.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            packets.bind((interface, _ETH_P_ALL))
        except OSError as error:
            packets.close()
            raise OperationFailed(f"host {place.host}: cannot capture on {interface}: {error.strerror}") from error
    packets.setblocking(False)
    return packets


def _write_packets(packets: socket.socket, path: Path, control: socket.socket) -> None:
    hardware = packets.getsockname()[3]
    poll = select.poll()
    poll.register(packets, select.POLLIN)
    poll.register(control, select.POLLIN)
    with path.open("wb") as file:
        linktype = pcap.LINKTYPE_RAW if hardware == _ARPHRD_NONE else pcap.LINKTYPE_ETHERNET
        file.write(pcap.file_header(linktype, LONGEST_PACKET))
        recorder = _Recorder(packets, file, is_loopback=hardware == _ARPHRD_LOOPBACK)
        while all(fd != control.fileno() for fd, _ in poll.poll()):
            recorder.drain(_BATCH_PACKETS)
            file.flush()
        recorder.drain(until_ns=time.time_ns())
    _, dropped = _STATISTICS.unpack(packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
    with contextlib.suppress(OSError):  # the lab is gone
        control.send(str(dropped).encode())


class _Recorder:
    def __init__(self, packets: socket.socket, file: BinaryIO, *, is_loopback: bool) -> None:
        self._packets = packets
        self._file = file
        self._is_loopback = is_loopback
        self._buffer = bytearray(LONGEST_PACKET)
        self._view = memoryview(self._buffer)

    def drain(self, limit: int = sys.maxsize, until_ns: int = sys.maxsize) -> None:
        """Record the packets that are waiting: at most ``limit``, and none that arrived after ``until_ns``."""
        for _ in range(limit):
            try:
                length, ancillary, _, address = self._packets.recvmsg_into(
                    (self._buffer,), _ANCILLARY_BYTES, _MSG_TRUNC
                )
            except BlockingIOError:
                return
            time_ns = _time_of(ancillary)
            if time_ns > until_ns:
                return
            if self._is_loopback and address[2] == socket.PACKET_OUTGOING:
                continue  # loopback shows every packet twice
            kept = min(length, LONGEST_PACKET)
            self._file.write(pcap.record_header(time_ns, kept, length))
            self._file.write(self._view[:kept])


def _time_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    for _, kind, data in ancillary:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
