"""The real kernel as the judge: it takes what a coalescer makes and hands over what is split, and the bytes agree."""

from __future__ import annotations

import select
import socket
import struct
import subprocess
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.support.flows import Tcp, Udp
from tests.support.packets import rfc1071
from tests.support.twins import COMPILED, PURE, Twin
from warren.lab import Lab
from warren.linux.tun import FRAME_BYTES_MAX, Tun

MTU = 1420
HERE, THERE = 1, 2  # last bytes of the kernel's address and of ours
WAIT_S = 25.0
UDP_SEGMENT = 103


class Wire:
    """A TUN in a namespace of its own, whose other end is this test."""

    def __init__(self, twin: Twin, version: int) -> None:
        self.version = version
        self.tun = Tun.create("tun0")
        self._split = twin.split
        self._coalescer = twin.coalescer(1 << 20, self.tun.udp_offload)
        self._frame, self._slots = bytearray(FRAME_BYTES_MAX), bytearray(1 << 17)
        self.frames_written = 0
        self.super_packets_read = 0
        for words in (("address", "add", "10.0.0.1/24"), ("address", "add", "fd00::1/64", "nodad")):
            subprocess.run(["ip", *words, "dev", "tun0"], check=True)
        subprocess.run(["ip", "link", "set", "tun0", "mtu", str(MTU), "up"], check=True)

    @property
    def here(self) -> str:
        return "10.0.0.1" if self.version == 4 else "fd00::1"

    @property
    def there(self) -> str:
        return "10.0.0.2" if self.version == 4 else "fd00::2"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET if self.version == 4 else socket.AF_INET6

    def write(self, packets: list[bytes]) -> None:
        """Give the packets to the kernel, coalesced."""
        stride = 32 + max(map(len, packets))
        train = b"".join(bytes(16) + one + bytes(stride - 16 - len(one)) for one in packets)
        assert self._coalescer.add(train, 0, len(train), stride, array("i", map(len, packets))) == 0
        for start, end in self._coalescer.flush():
            self.frames_written += 1
            assert self.tun.write(memoryview(self._coalescer.frames)[start:end]), "the kernel refused a frame"

    def read(self, protocol: int) -> Iterator[bytes]:
        """The packets of this protocol that the kernel sends, split; ends when it is silent for too long."""
        while select.select([self.tun], [], [], WAIT_S)[0]:
            length = self.tun.read_into(memoryview(self._frame))
            count, stride, end = self._split(self._frame, length, self._slots, 0, MTU)
            assert count > 0
            self.super_packets_read += count > 1
            for slot in range(0, end, stride):
                packet = bytes(self._slots[slot + 16 : min(slot + stride, end) - 16])
                if packet[0] >> 4 == self.version and packet[9 if self.version == 4 else 6] == protocol:
                    yield checked(packet)


def checked(packet: bytes) -> bytes:
    """A TCP or UDP packet without its padding, after a check of its length and its checksums."""
    if packet[0] >> 4 == 4:
        assert rfc1071(packet[:20]) == 0
        offset, addresses, protocol = 20, packet[12:20], packet[9]
        packet = packet[: int.from_bytes(packet[2:4], "big")]
    else:
        offset, addresses, protocol = 40, packet[8:40], packet[6]
        packet = packet[: 40 + int.from_bytes(packet[4:6], "big")]
    assert len(packet) <= MTU
    assert rfc1071(addresses + struct.pack(">II", len(packet) - offset, protocol) + packet[offset:]) == 0
    return packet


def datagrams_come_in(twin: Twin, version: int) -> None:
    wire = Wire(twin, version)
    with socket.socket(wire.family, socket.SOCK_DGRAM) as receiver:
        receiver.bind((wire.here, 2000))
        receiver.settimeout(WAIT_S)
        whole = Udp(version=version, source=THERE, destination=HERE, payload=bytes(range(250)) * 120)
        packets = [*whole.cut(1000)[:29], replace(whole.later(29, 29_000), payload=b"the end")]
        wire.write([one.packet() for one in packets])
        assert [receiver.recv(2000) for _ in packets] == [one.payload for one in packets]
    assert wire.frames_written == (1 if wire.tun.udp_offload else 30)


def datagrams_go_out(twin: Twin, version: int) -> None:
    wire = Wire(twin, version)
    data = bytes(range(256)) * 80
    with socket.socket(wire.family, socket.SOCK_DGRAM) as sender:
        sender.connect((wire.there, 2000))
        sender.sendmsg([data], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 777))])
        found = wire.read(socket.IPPROTO_UDP)
        header = 28 if version == 4 else 48
        assert [next(found)[header:] for _ in range(27)] == [data[at : at + 777] for at in range(0, len(data), 777)]
    assert wire.super_packets_read == (1 if wire.tun.udp_offload else 0)


def a_stream_comes_in_and_goes_out(twin: Twin, version: int) -> None:
    wire = Wire(twin, version)
    data = bytes(i * i & 0xFF for i in range(60_000))
    ours = Tcp(version=version, source=THERE, destination=HERE, window=0xFFFF, sequence=2**32 - 30_000)
    with socket.create_server((wire.here, 2000), family=wire.family) as server:
        server.settimeout(WAIT_S)
        arriving = wire.read(socket.IPPROTO_TCP)
        offset = 20 if version == 4 else 40
        wire.write([replace(ours, flags=0x02, options=b"\x02\x04\x05\x50\x01\x03\x03\x07").packet()])  # MSS, scale
        theirs = int.from_bytes(next(arriving)[offset + 4 : offset + 8], "big") + 1
        ours = replace(ours.later(1, 1), acknowledgement=theirs)
        wire.write([ours.packet()])
        connection = server.accept()[0]
    with connection:
        connection.settimeout(WAIT_S)
        before = wire.frames_written
        for at in range(0, len(data), 30_000):
            part = replace(ours.later(at // 1000 + 1, at), payload=data[at : at + 30_000], flags=0x18)
            wire.write([one.packet() for one in part.cut(1000)])
        assert connection.recv(len(data), socket.MSG_WAITALL) == data
        assert wire.frames_written == before + 2

        connection.sendall(data)
        stream: dict[int, bytes] = {}
        acknowledging = replace(ours.later(99, len(data)), window=0x7FFF)
        for packet in arriving:
            sequence = int.from_bytes(packet[offset + 4 : offset + 8], "big")
            payload = packet[offset + (packet[offset + 12] >> 4) * 4 :]
            if payload:
                stream[sequence - theirs & 0xFFFFFFFF] = payload
            received = sum(map(len, stream.values()))
            wire.write([replace(acknowledging, acknowledgement=theirs + received & 0xFFFFFFFF).packet()])
            if received >= len(data):
                break
        assert b"".join(stream[at] for at in sorted(stream)) == data
    assert wire.super_packets_read > 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("twin", [pytest.param(PURE, id="pure"), pytest.param(COMPILED, id="compiled")])
@pytest.mark.parametrize("scene", [datagrams_come_in, datagrams_go_out, a_stream_comes_in_and_goes_out])
def test_the_kernel_agrees(lab: Lab, scene: Callable[[Twin, int], None], twin: Twin | None, version: int) -> None:
    if twin is None:
        pytest.skip("the compiled twin is not built, or WARREN_PURE=1")
    lab.host("a").call(scene, twin, version)
