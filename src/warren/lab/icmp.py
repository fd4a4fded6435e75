"""ICMP errors as bytes, for those who want to send ones that nobody should believe."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Literal

from warren.errors import UsageError

Kind = Literal["too-big", "port-unreachable", "host-unreachable", "admin-prohibited", "redirect"]

_UDP: Final = 17
_ICMP4, _ICMP6 = 1, 58
_TTL: Final = 64
_IP4: Final = struct.Struct("!BBHHHBBH4s4s")
_IP6: Final = struct.Struct("!IHBB16s16s")
_UDP_HEADER: Final = struct.Struct("!HHHH")
_ICMP: Final = struct.Struct("!BBH4s")
_QUOTED_PAYLOAD: Final = 1200
"""The length that the quoted packet claims to have had."""

_CODES4: Final[dict[Kind, tuple[int, int]]] = {
    # RFC 792, RFC 1191 §4
    "too-big": (3, 4),
    "port-unreachable": (3, 3),
    "host-unreachable": (3, 1),
    "admin-prohibited": (3, 13),
    "redirect": (5, 1),
}
_CODES6: Final[dict[Kind, tuple[int, int]]] = {
    # RFC 4443 §3; a redirect is another protocol there (RFC 4861 §4.5)
    "too-big": (2, 0),
    "port-unreachable": (1, 4),
    "host-unreachable": (1, 3),
    "admin-prohibited": (1, 1),
}


@dataclass(frozen=True, slots=True)
class IcmpError:
    """What ``reporter`` claims of a UDP packet from ``source`` to ``target`` with these ports.

    ``mtu`` goes with ``too-big``, ``gateway`` with ``redirect``. Raises UsageError where the families differ.
    """

    kind: Kind
    reporter: IPv4Address | IPv6Address
    source: IPv4Address | IPv6Address
    source_port: int
    target: IPv4Address | IPv6Address
    target_port: int
    mtu: int = 0
    gateway: IPv4Address | None = None

    def __post_init__(self) -> None:
        if len({self.reporter.version, self.source.version, self.target.version}) > 1:
            raise UsageError("an ICMP error and what it quotes are of one family")
        if self.version == 6 and self.kind not in _CODES6:
            raise UsageError(f"ICMPv6 has no {self.kind} of this form")

    @property
    def version(self) -> int:
        return self.source.version

    def packet(self) -> bytes:
        """The whole IP packet, from ``reporter`` to ``source``."""
        udp = _UDP_HEADER.pack(self.source_port, self.target_port, _UDP_HEADER.size + _QUOTED_PAYLOAD, 0)
        quoted = _header(self.source, self.target, _UDP, len(udp) + _QUOTED_PAYLOAD) + udp
        kind, code = (_CODES4 if self.version == 4 else _CODES6)[self.kind]
        rest = self._rest()
        if self.version == 4:
            checksum = _checksum(_ICMP.pack(kind, code, 0, rest) + quoted)
            protocol = _ICMP4
        else:
            length = _ICMP.size + len(quoted)
            pseudo = self.reporter.packed + self.source.packed + struct.pack("!II", length, _ICMP6)
            checksum = _checksum(pseudo + _ICMP.pack(kind, code, 0, rest) + quoted)
            protocol = _ICMP6
        body = _ICMP.pack(kind, code, checksum, rest) + quoted
        return _header(self.reporter, self.source, protocol, len(body)) + body

    def _rest(self) -> bytes:
        if self.gateway is not None:
            return self.gateway.packed
        if self.kind == "too-big":
            return struct.pack("!HH", 0, self.mtu) if self.version == 4 else struct.pack("!I", self.mtu)
        return bytes(4)


def _header(source: IPv4Address | IPv6Address, target: IPv4Address | IPv6Address, protocol: int, length: int) -> bytes:
    if source.version == 6:
        return _IP6.pack(6 << 28, length, protocol, _TTL, source.packed, target.packed)
    whole = _IP4.size + length
    blank = _IP4.pack(0x45, 0, whole, 0, 0x4000, _TTL, protocol, 0, source.packed, target.packed)
    return blank[:10] + struct.pack("!H", _checksum(blank)) + blank[12:]


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
