"""Where things are in IPv4, IPv6, TCP and UDP headers, and which packets are whole.

Nothing here raises on hostile bytes: a packet that does not parse is ``None`` or 0.
"""

from __future__ import annotations

from typing import Final

TCP: Final = 6
UDP: Final = 17
HOP_BY_HOP: Final = 0
DESTINATION_OPTIONS: Final = 60

IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
TCP_HEADER: Final = 20
UDP_HEADER: Final = 8

TCP_CSUM: Final = 16
"""Offset of the checksum in the TCP header."""
UDP_CSUM: Final = 6
"""Offset of the checksum in the UDP header."""

FIN: Final = 0x01
PSH: Final = 0x08
ACK: Final = 0x10
CWR: Final = 0x80


def packet_length(data: bytes | bytearray | memoryview, at: int, end: int) -> int:
    """The length of the IP packet at ``data[at]`` by its own header, 0 if it is none or does not fit before ``end``.

    What lies between the packet and ``end`` is padding (WireGuard §5.4.6).
    """
    room = end - at
    if room < IPV4_HEADER:
        return 0
    first = data[at]
    if first >> 4 == 4:
        length = data[at + 2] << 8 | data[at + 3]
        header = (first & 15) * 4
        return length if IPV4_HEADER <= header <= length <= room else 0
    if first >> 4 == 6:
        length = IPV6_HEADER + (data[at + 4] << 8 | data[at + 5])
        return length if length <= room else 0
    return 0


def transport_offset(packet: bytes, protocol: int) -> int:
    """Where the ``protocol`` header starts in an IP packet whose fixed header is known to fit; 0 if it cannot be told.

    Of the IPv6 extension headers only hop-by-hop and destination options are walked (RFC 8200 §4.3, §4.6): they leave
    the pseudo-header as it is. A fragment or a routing header ends the walk.
    """
    if packet[0] >> 4 == 4:
        fragment = packet[6] & 0x3F or packet[7]
        return 0 if fragment or packet[9] != protocol else (packet[0] & 15) * 4
    following, offset = packet[6], IPV6_HEADER
    while following in (HOP_BY_HOP, DESTINATION_OPTIONS):
        if offset + 2 > len(packet):
            return 0
        following, offset = packet[offset], offset + 8 * (packet[offset + 1] + 1)
    return offset if following == protocol else 0
