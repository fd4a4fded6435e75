"""Address ranges: what prefixes become before they are set elements, so that a thousand neighbours are one element."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from warren.model.tunnel import IPAddress, IPNetwork


class Range(NamedTuple):
    """Addresses of one IP version as numbers, both ends included."""

    first: int
    last: int


Ranges = tuple[Range, ...]
"""Sorted, and between two of them at least one address that is in neither."""


def ranges_of(networks: Iterable[IPNetwork | IPAddress], version: int) -> Ranges:
    """The addresses in those of ``networks`` that are of one IP version."""
    return merged(
        Range(int(one), int(one))
        if isinstance(one, (IPv4Address, IPv6Address))
        else Range(int(one.network_address), int(one.broadcast_address))
        for one in networks
        if one.version == version
    )


def merged(ranges: Iterable[Range]) -> Ranges:
    """The same numbers in as few ranges as possible."""
    result: list[Range] = []
    for one in sorted(ranges):
        if result and one.first <= result[-1].last + 1:
            result[-1] = Range(result[-1].first, max(result[-1].last, one.last))
        else:
            result.append(one)
    return tuple(result)


def common(one: Ranges, other: Ranges) -> Ranges:
    """The numbers in both."""
    result = []
    left, right = list(reversed(one)), list(reversed(other))
    while left and right:
        a, b = left[-1], right[-1]
        if a.last < b.first:
            left.pop()
        elif b.last < a.first:
            right.pop()
        else:
            result.append(Range(max(a.first, b.first), min(a.last, b.last)))
            (left if a.last < b.last else right).pop()
    return tuple(result)


def without(one: Ranges, other: Ranges) -> Ranges:
    """The numbers in ``one`` and not in ``other``."""
    result = []
    for first, last in one:
        for hole in other:
            if hole.last < first:
                continue
            if hole.first > last:
                break
            if hole.first > first:
                result.append(Range(first, hole.first - 1))
            first = hole.last + 1
        if first <= last:
            result.append(Range(first, last))
    return tuple(result)


def elements(ranges: Ranges, version: int) -> list[Any]:
    """The ranges as nftables writes them: an address, a prefix, or ``{"range": [first, last]}``."""
    return [_element(one, version) for one in ranges]


def _element(one: Range, version: int) -> Any:
    address = IPv4Address if version == 4 else IPv6Address
    size = one.last - one.first + 1
    if size == 1:
        return str(address(one.first))
    if size & (size - 1) == 0 and one.first % size == 0:
        bits = 32 if version == 4 else 128
        return {"prefix": {"addr": str(address(one.first)), "len": bits - size.bit_length() + 1}}
    return {"range": [str(address(one.first)), str(address(one.last))]}
