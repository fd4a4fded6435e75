"""The addresses of this host, as the kernel delivers to them: what a relay must not send to."""

from __future__ import annotations

import contextlib
import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

from warren.model.tunnel import IPAddress

_FIB: Final = Path("/proc/net/fib_trie")
_INET6: Final = Path("/proc/net/if_inet6")
_LOCAL4: Final = re.compile(r"-- ([\d.]+)\n\s+/32 host LOCAL")
_FAR_AWAY: Final = {4: ("192.0.2.1", 9), 6: ("2001:db8::1", 9)}
"""Nothing is sent there: the kernel only says which of its addresses it would use."""


def own_addresses() -> frozenset[IPAddress]:
    """Of all interfaces, up or not."""
    found: set[IPAddress] = set()
    with contextlib.suppress(OSError):
        found.update(IPv4Address(text) for text in _LOCAL4.findall(_FIB.read_text()))
    with contextlib.suppress(OSError):
        lines = _INET6.read_text().split("\n")
        found.update(IPv6Address(bytes.fromhex(line[:32])) for line in lines if line)
    return frozenset(found)


def usual_address(family: int) -> IPAddress | None:
    """The address by which this host talks to others; None: it has none of this family.

    Without a default route the first that is neither of the link nor of loopback; loopback itself only on a host that
    has nothing else.
    """
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as probe:
        probe.connect(_FAR_AWAY[family])
        return ip_address(probe.getsockname()[0])
    mine = [one for one in own_addresses() if not one.is_link_local]
    outer = [one for one in mine if not one.is_loopback] or mine
    return min((one for one in outer if one.version == family), key=int, default=None)
