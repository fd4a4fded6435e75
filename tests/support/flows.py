"""TCP and UDP packets and super-packets for tests of the data path, made and cut by code of their own.

Nothing here uses the product: checksums are summed word by word, and :func:`segments` cuts a super-packet by taking it
apart and building every packet anew.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Self

from tests.support.packets import rfc1071

NO_OFFLOAD = bytes(10)


@dataclass(frozen=True)
class Ip:
    """What TCP and UDP packets have in common; ``version`` decides which fields count."""

    version: int = 4
    source: int = 1
    destination: int = 2
    source_port: int = 1000
    destination_port: int = 2000
    payload: bytes = b""
    traffic_class: int = 0
    ttl: int = 64
    identification: int = 100
    dont_fragment: bool = True
    flow_label: int = 0x12345

    protocol = 0

    def address(self, host: int) -> bytes:
        prefix = b"\x0a\0\0" if self.version == 4 else b"\xfd" + bytes(14)
        return prefix + bytes([host])

    @property
    def pseudo(self) -> bytes:
        return self.address(self.source) + self.address(self.destination)

    def transport(self, checksum: int) -> bytes:
        raise NotImplementedError

    def ip_header(self, length: int) -> bytes:
        if self.version == 6:
            first = 6 << 28 | self.traffic_class << 20 | self.flow_label
            return struct.pack(">IHBB", first, length, self.protocol, self.ttl) + self.pseudo
        fragment = 0x4000 if self.dont_fragment else 0
        fields = (0x45, self.traffic_class, 20 + length, self.identification, fragment, self.ttl, self.protocol)
        bare = struct.pack(">BBHHHBBH", *fields, 0) + self.pseudo
        return struct.pack(">BBHHHBBH", *fields, rfc1071(bare)) + self.pseudo

    def pseudo_header(self, length: int) -> bytes:
        return self.pseudo + struct.pack(">II", length, self.protocol)

    def packet(self) -> bytes:
        """The complete packet."""
        bare = self.transport(0)
        checksum = rfc1071(self.pseudo_header(len(bare)) + bare)
        if self.protocol == 17:
            checksum = checksum or 0xFFFF
        return self.ip_header(len(bare)) + self.transport(checksum)

    def frame(self, gso_size: int, gso_type: int) -> bytes:
        """The packet as a super-packet: virtio header, and only the pseudo-header summed up in the checksum field."""
        length = len(self.transport(0))
        partial = rfc1071(self.pseudo_header(length)) ^ 0xFFFF
        ip = self.ip_header(length)
        headers = len(ip) + length - len(self.payload)
        virtio = struct.pack("=BBHHHH", 1, gso_type, headers, gso_size, len(ip), 16 if self.protocol == 6 else 6)
        return virtio + ip + self.transport(partial)

    def later(self, steps: int, size: int) -> Self:
        """The same flow ``steps`` packets and ``size`` bytes on."""
        return replace(self, identification=self.identification + steps & 0xFFFF)

    def cut(self, gso_size: int) -> list[Self]:
        """The packets that a super-packet with this content stands for."""
        return [
            replace(self.later(index, at), payload=self.payload[at : at + gso_size])
            for index, at in enumerate(range(0, len(self.payload), gso_size))
        ]


@dataclass(frozen=True)
class Tcp(Ip):
    sequence: int = 1
    acknowledgement: int = 7
    flags: int = 0x10
    window: int = 500
    urgent: int = 0
    options: bytes = b""

    protocol = 6

    def transport(self, checksum: int) -> bytes:
        return (
            struct.pack(
                ">HHIIBBHHH",
                self.source_port,
                self.destination_port,
                self.sequence,
                self.acknowledgement,
                (20 + len(self.options)) // 4 << 4,
                self.flags,
                self.window,
                checksum,
                self.urgent,
            )
            + self.options
            + self.payload
        )

    def later(self, steps: int, size: int) -> Self:
        return replace(super().later(steps, size), sequence=self.sequence + size & 0xFFFFFFFF)

    def cut(self, gso_size: int) -> list[Self]:
        packets = super().cut(gso_size)
        for i, packet in enumerate(packets):
            flags = packet.flags
            if i:
                flags &= ~0x80  # CWR on the first only
            if i < len(packets) - 1:
                flags &= ~0x09  # FIN and PSH on the last only
            packets[i] = replace(packet, flags=flags)
        return packets

    def super_frame(self, gso_size: int) -> bytes:
        return self.frame(gso_size, 1 if self.version == 4 else 4)


@dataclass(frozen=True)
class Udp(Ip):
    protocol = 17

    def transport(self, checksum: int) -> bytes:
        length = 8 + len(self.payload)
        return struct.pack(">HHHH", self.source_port, self.destination_port, length, checksum) + self.payload

    def super_frame(self, gso_size: int) -> bytes:
        return self.frame(gso_size, 5)


def without_sum(packet: Udp) -> bytes:
    """The packet with its last two bytes chosen so that the checksum comes to zero, which UDP writes as 0xFFFF."""
    if len(packet.payload) % 2:
        raise ValueError("the last word must be a whole one")
    blank = replace(packet, payload=packet.payload[:-2] + bytes(2)).packet()
    at = -len(packet.payload) - 2
    return replace(packet, payload=packet.payload[:-2] + blank[at : at + 2]).packet()


def segments(frame: bytes) -> list[bytes]:
    """The packets that a frame for the TUN stands for: itself, or what the kernel would cut it into."""
    flags, gso_type, headers, gso_size, csum_start, csum_offset = struct.unpack_from("=BBHHHH", frame)
    packet = frame[10:]
    if frame[:10] == NO_OFFLOAD:
        return [packet]
    version = packet[0] >> 4
    protocol = {1: 6, 4: 6, 5: 17}[gso_type]
    assert (flags, csum_offset) == (1, 16 if protocol == 6 else 6)
    assert csum_start == (20 if version == 4 else 40)
    assert version == {1: 4, 4: 6, 5: version}[gso_type]
    addresses = packet[12:20] if version == 4 else packet[8:40]
    length = len(packet) - csum_start
    assert struct.unpack_from(">H", packet, 2 if version == 4 else 4)[0] == (len(packet) if version == 4 else length)
    if version == 4:
        assert rfc1071(packet[:20]) == 0
    partial = struct.unpack_from(">H", packet, csum_start + csum_offset)[0]
    assert partial == rfc1071(addresses + struct.pack(">II", length, protocol)) ^ 0xFFFF
    common = {
        "version": version,
        "source": addresses[len(addresses) // 2 - 1],
        "destination": addresses[-1],
        "source_port": struct.unpack_from(">H", packet, csum_start)[0],
        "destination_port": struct.unpack_from(">H", packet, csum_start + 2)[0],
        "payload": packet[headers:],
        "traffic_class": packet[1] if version == 4 else struct.unpack_from(">H", packet)[0] >> 4 & 0xFF,
        "ttl": packet[8] if version == 4 else packet[7],
        "identification": struct.unpack_from(">H", packet, 4)[0] if version == 4 else 100,
        "dont_fragment": bool(packet[6] & 0x40),
        "flow_label": struct.unpack_from(">I", packet)[0] & 0xFFFFF,
    }
    if protocol == 17:
        assert struct.unpack_from(">H", packet, csum_start + 4)[0] == length
        whole: Ip = Udp(**common)
    else:
        sequence, acknowledgement, _, tcp_flags, window, _, urgent = struct.unpack_from(
            ">IIBBHHH", packet, csum_start + 4
        )
        options = packet[csum_start + 20 : headers]
        whole = Tcp(
            **common,
            sequence=sequence,
            acknowledgement=acknowledgement,
            flags=tcp_flags,
            window=window,
            urgent=urgent,
            options=options,
        )
    return [one.packet() for one in whole.cut(gso_size)]
