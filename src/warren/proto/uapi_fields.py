"""The values that requests and answers of the userspace API have in common (:mod:`warren.proto.uapi`).

What reads one raises ValueError for what is none; the decoder around it says that as it says everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv6Address, ip_address

from warren.model.tunnel import TransportAddress, Way

ZoneIndex = Callable[[str], int]
"""Turns the zone of a link-local address ("eth0", "3") into an interface index; raises OSError when there is none."""


def number(value: str, most: int) -> int:
    """Digits, and not above ``most``."""
    if not value.isdigit() or len(value) > len(str(most)) or int(value) > most:
        raise ValueError(value)
    return int(value)


def boolean(value: str) -> bool:
    """``true`` or ``false``."""
    if value not in ("true", "false"):
        raise ValueError(value)
    return value == "true"


def extended(way: Way, key: str, value: str) -> Way:
    """``way`` with one of its fields set."""
    match key:
        case "source":
            return replace(way, source=ip_address(value))
        case "interface":
            return replace(way, interface=number(value, 0x7FFFFFFF))
        case "channel":
            return replace(way, channel=number(value, 0xFFFF))
    return replace(way, socket=number(value, 0xFFFF))


def way_lines(way: Way) -> Iterator[str]:
    """What :func:`extended` reads; nothing for the plain way."""
    if way.source is not None:
        yield f"source={way.source}"
    if way.interface:
        yield f"interface={way.interface}"
    if way.channel:
        yield f"channel={way.channel}"
    if way.socket:
        yield f"socket={way.socket}"


def unpack_endpoint(text: str, zone_index: ZoneIndex) -> TransportAddress:
    """Parse ``192.0.2.1:51820`` or ``[2001:db8::1%zone]:51820``. Raises ValueError or OSError (no such zone)."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host, _, zone = host.removeprefix("[").removesuffix("]").partition("%")
    ip = ip_address(host)
    if bracketed != isinstance(ip, IPv6Address):
        raise ValueError(text)
    return TransportAddress(ip, number(port, 0xFFFF), zone_index(zone) if zone else 0)
