"""Which addresses a network and its members have, and that nobody is given what somebody else has.

::

    fd ‖ 40 bits of SHA-256(authority's key)  ‖  index  ‖  ::1
    └────────── network, /48 ──────────────┘     16 bits    └ the node; the rest of its /64 is its workloads'
                                              └ node, /64 ┘

Index 0 is the network's own; nodes have 1 to 65535. Where a network has an IPv4 block, the node of that index has
its address of that number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from warren.errors import OperationFailed
from warren.identity.signing import VerifyKey
from warren.model.tunnel import IPNetwork

INDEX_MAX: Final = 65_535
PREFIX4_LONGEST, PREFIX4_SHORTEST = 29, 8

_ULA_DOMAIN: Final = b"warren ula 1\0"
_SERVICE_MARK: Final = 0x5E72 << 48
"""The first 16 bits of the interface identifier of a service's address; workloads have others."""

_PRIVATE4: Final = tuple(
    IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)
"""RFC 1918 and RFC 6598: what may be an overlay's without taking anybody's addresses away."""

_NEVER_ROUTED: Final[tuple[tuple[IPNetwork, str], ...]] = (
    (IPv4Network("0.0.0.0/8"), "addresses of this host"),  # RFC 6890, as all of these
    (IPv4Network("127.0.0.0/8"), "loopback addresses"),
    (IPv4Network("169.254.0.0/16"), "link-local addresses"),
    (IPv4Network("192.0.0.0/24"), "addresses of protocols"),
    (IPv4Network("224.0.0.0/4"), "multicast addresses"),
    (IPv4Network("240.0.0.0/4"), "reserved addresses"),
    (IPv6Network("::/96"), "loopback and IPv4-compatible addresses"),
    (IPv6Network("::ffff:0:0/96"), "IPv4-mapped addresses; name the IPv4 prefix instead"),
    (IPv6Network("::ffff:0:0:0/96"), "IPv4-translated addresses"),
    (IPv6Network("100::/64"), "discarded addresses"),
    (IPv6Network("fe80::/10"), "link-local addresses"),
    (IPv6Network("fec0::/10"), "site-local addresses, which no longer exist"),
    (IPv6Network("ff00::/8"), "multicast addresses"),
)


def ula_prefix(authority: VerifyKey) -> IPv6Network:
    """The network's /48: unique local addresses (RFC 4193) whose global ID follows from the authority's key."""
    global_id = hashlib.sha256(_ULA_DOMAIN + authority.raw).digest()[:5]
    return IPv6Network((b"\xfd" + global_id + bytes(10), 48))


def node_prefix(prefix6: IPv6Network, index: int) -> IPv6Network:
    """The /64 of the node with that index. Raises ValueError outside 1 to 65535, and when ``prefix6`` is no /48."""
    if prefix6.prefixlen != 48:
        raise ValueError(f"{prefix6} is not a /48")
    if not 1 <= index <= INDEX_MAX:
        raise ValueError(f"a node's index is 1 to {INDEX_MAX}, not {index}")
    return IPv6Network((int(prefix6.network_address) | index << 64, 64))


def node_address(prefix: IPv6Network) -> IPv6Address:
    """The node's own address in its /64: ::1."""
    return prefix[1]


def service_address(prefix: IPv6Network, service: str) -> IPv6Address:
    """The address of the service called ``service`` at the node whose /64 is ``prefix``: the same wherever it is asked.

    The interface identifier is a mark and 48 bits of SHA-256(name); which of two services whose names collide has the
    address at a node is for the authority to settle (it refuses the second).
    """
    return prefix[service_interface_id(service)]


@lru_cache(maxsize=4096)
def service_interface_id(service: str) -> int:
    """The lower 64 bits of a service's address at any node."""
    return _SERVICE_MARK | int.from_bytes(hashlib.sha256(service.encode()).digest()[:6])


def check_prefix4(network: IPv4Network) -> None:
    """Raises ValueError when the block cannot be an overlay's: public, too small or too large."""
    if not any(network.subnet_of(private) for private in _PRIVATE4):
        ranges = ", ".join(map(str, _PRIVATE4))
        raise ValueError(f"{network} is not private or shared address space; choose a block inside {ranges}")
    if not PREFIX4_SHORTEST <= network.prefixlen <= PREFIX4_LONGEST:
        raise ValueError(f"{network} has the wrong size; choose a block from /{PREFIX4_SHORTEST} to /{PREFIX4_LONGEST}")


def check_address4(address: IPv4Address) -> None:
    """Raises ValueError when an overlay cannot have the address: it is public, or special."""
    if not any(address in private for private in _PRIVATE4):
        raise ValueError(f"{address} is not in private or shared address space")


def check_route(network: IPNetwork) -> None:
    """Raises ValueError when ``network`` cannot be a subnet behind a member: a default route, or special addresses."""
    if network.prefixlen == 0:
        raise ValueError(f"{network} is everything; name the subnets that are behind the member")
    for special, what in _NEVER_ROUTED:
        if _overlap(special, network):
            raise ValueError(f"{network} has {what} in it")


# Overlaps


@dataclass(frozen=True, slots=True)
class Claim:
    """That ``owner`` calls ``network`` its own."""

    owner: str
    """A member's name; for ``kind`` network, the network's."""
    kind: Literal["network", "node", "route"]
    """``network``: a prefix of the whole network, in which nodes have theirs. ``route``: a subnet behind a member."""
    network: IPNetwork

    def __str__(self) -> str:
        return {
            "network": f"the network's own {self.network}",
            "node": f"{self.network} of {self.owner}",
            "route": f"the route {self.network} of {self.owner}",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two claims that have addresses in common; ``inner`` lies within ``outer``, or is the same."""

    outer: Claim
    inner: Claim

    def __str__(self) -> str:
        relation = "is also" if self.outer.network == self.inner.network else "lies within"
        return f"{self.inner} {relation} {self.outer}"


def overlaps(claims: Iterable[Claim]) -> list[Overlap]:
    """Each claim that shares addresses with another, with the narrowest one it lies in; empty: all is well.

    Prefixes of nodes inside those of the network are as they should be. At most one overlap per claim, so that the
    answer is no longer than the question; n log n.
    """
    found = []
    nest: list[Claim] = []  # each lies within the one before
    ranks = {"network": 0, "node": 1, "route": 2}
    ordered = [(*_place(claim.network), ranks[claim.kind], claim) for claim in claims]
    for version, first, _, _, claim in sorted(ordered, key=lambda one: one[:4]):
        # Sorted so, whatever has addresses in common with what came before lies within it.
        while nest and not _holds(nest[-1].network, version, first):
            nest.pop()
        if nest and not (nest[-1].kind == "network" and claim.kind == "node"):
            found.append(Overlap(nest[-1], claim))
        nest.append(claim)
    return found


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.overlaps(other)
    return isinstance(other, IPv6Network) and one.overlaps(other)


def _place(network: IPNetwork) -> tuple[int, int, int]:
    """Version, first address and length of the prefix: sorts as networks do, at a tenth of the price."""
    return network.version, int(network.network_address), network.prefixlen


def _holds(network: IPNetwork, version: int, address: int) -> bool:
    shift = network.max_prefixlen - network.prefixlen
    return network.version == version and int(network.network_address) >> shift == address >> shift


# The plan


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """What the authority gives its nodes. Raises ValueError for prefixes that cannot be a network's."""

    prefix6: IPv6Network
    prefix4: IPv4Network | None = None

    def __post_init__(self) -> None:
        if self.prefix6.prefixlen != 48:
            raise ValueError(f"{self.prefix6} is not a /48")
        if self.prefix4 is not None:
            check_prefix4(self.prefix4)

    @property
    def index_max(self) -> int:
        """The greatest index a node can have. IPv4's network and broadcast address are nobody's."""
        return INDEX_MAX if self.prefix4 is None else min(INDEX_MAX, self.prefix4.num_addresses - 2)

    def prefix(self, index: int) -> IPv6Network:
        """Raises ValueError for an index the plan does not have."""
        self._check(index)
        return node_prefix(self.prefix6, index)

    def address6(self, index: int) -> IPv6Address:
        return node_address(self.prefix(index))

    def address4(self, index: int) -> IPv4Address | None:
        """None: the network has no IPv4."""
        self._check(index)
        return None if self.prefix4 is None else self.prefix4[index]

    def allocate(self, taken: Collection[int], resting: Collection[int]) -> int:
        """The lowest index that is neither ``taken`` nor ``resting`` (given back not long ago, and perhaps still
        believed by a partitioned member). Raises OperationFailed when there is none.
        """
        unavailable = {*taken, *resting}
        for index in range(1, self.index_max + 1):
            if index not in unavailable:
                return index
        blocked = f"all {self.index_max} addresses of the network are taken"
        if resting:
            blocked += f" or rest after their last use ({len(set(resting) - set(taken))} do)"
        remedy = "revoke members that are gone, or make a network with a larger IPv4 block"
        raise OperationFailed(f"{blocked}: {remedy}")

    def _check(self, index: int) -> None:
        if not 1 <= index <= self.index_max:
            raise ValueError(f"a node's index is 1 to {self.index_max} here, not {index}")
