"""Under which URLs others reach this machine, when the operator does not say."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

URLS_MAX: Final = 8

_SIOCGIFADDR: Final = 0x8915  # netdevice(7)
_IF_INET6: Final = Path("/proc/net/if_inet6")
_UNUSABLE_FLAGS: Final = 0x20 | 0x08 | 0x40  # deprecated, failed, tentative: linux/if_addr.h
# Addresses for documentation (RFC 5737, RFC 3849): nothing is sent, the kernel only picks the source for them.
_ELSEWHERE: Final = ((socket.AF_INET6, "2001:db8::1"), (socket.AF_INET, "192.0.2.1"))


def urls_for(listening: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """URLs for what is listened on: the addresses themselves, and for the unspecified one those of this machine, IPv6
    first.
    """
    urls: dict[str, None] = {}
    for host, port in sorted(listening, key=lambda one: -ip_address(one[0]).version):
        ip = ip_address(host)
        for one in own_addresses(ip.version) if ip.is_unspecified else [ip]:
            urls[f"https://[{one}]:{port}" if one.version == 6 else f"https://{one}:{port}"] = None
    return tuple(urls)[:URLS_MAX]


def own_addresses(version: int) -> list[IPv4Address | IPv6Address]:
    """The addresses of this machine that others can use: the one it speaks to elsewhere with, or all where it has no
    route to elsewhere.
    """
    for family, elsewhere in _ELSEWHERE:
        if (family == socket.AF_INET6) == (version == 6):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                found = ip_address(probe.getsockname()[0])
                if _is_usable(found):
                    return [found]
    return [ip for ip in (_all6() if version == 6 else _all4()) if _is_usable(ip)]


def _is_usable(ip: IPv4Address | IPv6Address) -> bool:
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def _all6() -> list[IPv6Address]:
    try:
        lines = _IF_INET6.read_text(encoding="ascii").splitlines()
    except OSError:  # no IPv6 in this kernel
        return []
    fields = [line.split() for line in lines]
    return [IPv6Address(bytes.fromhex(one[0])) for one in fields if not int(one[4], 16) & _UNUSABLE_FLAGS]


def _all4() -> list[IPv4Address]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an IPv4 address
                answer = fcntl.ioctl(door, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(IPv4Address(answer[20:24]))
    return found
