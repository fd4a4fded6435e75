"""What goes wrong on the way: packets that vanish by direction or size, and ICMP messages that lie.

A fault sits on a host, usually a router, and concerns the packets that arrive there, before any NAT: from inside they
have their inner source, from outside the outer destination.
"""

from __future__ import annotations

import itertools
import socket
from dataclasses import dataclass
from ipaddress import ip_network
from types import TracebackType
from typing import Final, Literal, Self

from warren.errors import UsageError
from warren.lab import icmp
from warren.lab.host import Host

_numbers = itertools.count()
_BYTES_MAX: Final = 65_535


@dataclass(slots=True)
class Fault:
    """A rule on a host, until :meth:`mend`; as a context manager, until the end of the block."""

    host: Host
    table: str
    mended: bool = False

    def mend(self) -> None:
        """Take the fault away. Harmless when it is."""
        if not self.mended:
            self.mended = True
            self.host.nft(f"delete table inet {self.table}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mend()


def drop(
    host: Host,
    *,
    source: str | None = None,
    destination: str | None = None,
    protocol: Literal["udp", "tcp", "icmp"] | None = None,
    port: int | None = None,
) -> Fault:
    """Packets that arrive at ``host`` from ``source`` to ``destination`` (addresses or prefixes) vanish: one way only.

    ``port`` is the destination's. What is None is any. Raises UsageError for an address that is none.
    """
    family = _family(source) or _family(destination)
    match = [f"{family} saddr {source}"] if source else []
    match += [f"{family} daddr {destination}"] if destination else []
    if protocol == "icmp":
        match.append("meta l4proto { icmp, icmpv6 }")
    elif protocol:
        match.append(f"meta l4proto {protocol}")
    if port is not None:
        match.append(f"th dport {port}")
    return _place(host, f"{' '.join(match)} drop")


def black_hole(host: Host, bytes_max: int) -> Fault:
    """Packets of more than ``bytes_max`` bytes that arrive at ``host`` vanish, and nobody is told (RFC 2923).

    Only where every packet is one on the wire: see :meth:`Lab.switch_off_offloads`, which comes first. Raises
    UsageError for a size that no packet has.
    """
    if not 1 <= bytes_max <= _BYTES_MAX:
        raise UsageError(f"bytes_max {bytes_max}: a packet has 1 to {_BYTES_MAX} bytes")
    return _place(host, f"meta protocol {{ ip, ip6 }} meta length > {bytes_max} drop")


def forge_icmp(host: Host, message: icmp.IcmpError) -> None:
    """Send an ICMP error from ``host`` as if ``message.reporter`` had sent it, once.

    It goes to the sender of the packet that it quotes, by the routes of ``host``.
    """
    packet = message.packet()
    version = message.version
    family, protocol = (socket.AF_INET, socket.IPPROTO_RAW) if version == 4 else (socket.AF_INET6, socket.IPPROTO_RAW)
    with host.socket(family, socket.SOCK_RAW, protocol) as raw:
        raw.sendto(packet, (str(message.source), 0))


def _place(host: Host, rule: str) -> Fault:
    fault = Fault(host, f"lab_fault_{next(_numbers)}")
    host.nft(f"table inet {fault.table} {{ chain arrive {{ type filter hook prerouting priority raw;\n{rule}\n}}\n}}")
    return fault


def _family(prefix: str | None) -> str | None:
    if prefix is None:
        return None
    try:
        return "ip" if ip_network(prefix, strict=False).version == 4 else "ip6"
    except ValueError:
        raise UsageError(f"{prefix!r} is no address or prefix") from None
