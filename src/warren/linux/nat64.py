"""Finds the prefix of a network's NAT64: asks its name servers for a name with IPv4 addresses only (RFC 7050)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from warren.errors import OperationFailed
from warren.linux.names import resolve
from warren.model.tunnel import TransportAddress
from warren.paths.candidates import prefix_of

_NAME = "ipv4only.arpa"
_KNOWN = (IPv4Address("192.0.0.170"), IPv4Address("192.0.0.171"))  # RFC 7050 §2.2
_PATIENCE_S = 5.0

Resolver = Callable[[str, int], Awaitable[tuple[TransportAddress, ...]]]


async def discover_nat64(resolver: Resolver = resolve) -> IPv6Network | None:
    """The prefix of the NAT64, None where the name servers know of none or do not answer within a few seconds."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            answers = await resolver(_NAME, 0)
    except (OperationFailed, TimeoutError):
        return None
    for answer in answers:
        if isinstance(answer.ip, IPv6Address) and answer.ip.ipv4_mapped is None:
            prefix = prefix_of(answer.ip, _KNOWN)
            if prefix is not None:
                return prefix
    return None
