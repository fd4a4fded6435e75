"""Capturing the packets of a host's interface to a pcap file, without any program besides."""

from __future__ import annotations

import contextlib
import ctypes
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
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 26, 33, 35  # asm-generic/socket.h
_BPF_RETURN_NOTHING = struct.pack("=HBBI", 0x06, 0, 0, 0)  # struct sock_filter: BPF_RET | BPF_K, 0 bytes
_SOCK_FPROG = struct.Struct("HP")  # struct sock_fprog: instructions, their address
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
        """Packets the capture was too slow for, more easily so without root; known after :meth:`stop`."""
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
            try:
                packets.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _KERNEL_BUFFER_BYTES)
            except PermissionError:  # in a user namespace: as much as anyone gets, net.core.rmem_max
                packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL_BUFFER_BYTES)
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
        _refuse_more(packets)
        recorder.drain()
    _, dropped = _STATISTICS.unpack(packets.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
    with contextlib.suppress(OSError):  # the lab is gone
        control.send(str(dropped).encode())


def _refuse_more(packets: socket.socket) -> None:
    """Let no further packet into the socket; those that are waiting stay."""
    program = ctypes.create_string_buffer(_BPF_RETURN_NOTHING)
    fprog = _SOCK_FPROG.pack(1, ctypes.addressof(program))
    packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


class _Recorder:
    def __init__(self, packets: socket.socket, file: BinaryIO, *, is_loopback: bool) -> None:
        self._packets = packets
        self._file = file
        self._is_loopback = is_loopback
        self._buffer = bytearray(LONGEST_PACKET)
        self._view = memoryview(self._buffer)

    def drain(self, limit: int = sys.maxsize) -> None:
        """Record the packets that are waiting, at most ``limit``."""
        for _ in range(limit):
            try:
                length, ancillary, _, address = self._packets.recvmsg_into(
                    (self._buffer,), _ANCILLARY_BYTES, _MSG_TRUNC
                )
            except BlockingIOError:
                return
            if self._is_loopback and address[2] == socket.PACKET_OUTGOING:
                continue  # loopback shows every packet twice
            kept = min(length, LONGEST_PACKET)
            self._file.write(pcap.record_header(_time_of(ancillary), kept, length))
            self._file.write(self._view[:kept])


def _time_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    for _, kind, data in ancillary:
        if kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
