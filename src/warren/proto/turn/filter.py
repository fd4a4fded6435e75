"""To which peers a TURN server may relay: never to itself, to private networks or to anything special, in whatever
way the address is written (RFC 8656 §21.1.4, §21.1.6).

An IPv6 address can hold an IPv4 one that some gateway on the way takes out again: NAT64 (RFC 6052), 6to4 (RFC 3056),
Teredo (RFC 4380), ISATAP (RFC 5214), and the mapped, compatible and translated forms of RFC 4291 and RFC 2765. Such an
address is judged as what it is and as everything it holds; all of these have to pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Final

from warren.model.tunnel import IPAddress, IPNetwork

_SPECIAL4: Final = tuple(
    IPv4Network(text)
    for text in (
        # IANA IPv4 Special-Purpose Address Registry: all that is not globally reachable …
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",
        # … and anycast services, which answer from wherever the relay stands.
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.175.48.0/24",
    )
)
_SPECIAL6: Final = tuple(
    IPv6Network(text)
    for text in (
        # IANA IPv6 Special-Purpose Address Registry, likewise
        "::/96",  # unspecified, loopback, IPv4-compatible
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 2765)
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID …
        "2001:db8::/32",
        "2002::/16",
        "2620:4f:8000::/48",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)

_NEVER: Final[tuple[IPNetwork, ...]] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("255.255.255.255/32"),
    IPv6Network("::/128"),
    IPv6Network("::ffff:0:0/96"),  # a socket of the relay would send them as IPv4, past every rule for it
    IPv6Network("ff00::/8"),
)
"""No operator's list makes a peer of these."""

NAT64: Final = IPv6Network("64:ff9b::/96")
"""The well-known prefix (RFC 6052 §2.1)."""
NAT64_LENGTHS: Final = (32, 40, 48, 56, 64, 96)

_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_TEREDO: Final = IPv6Network("2001::/32")
_HOLDS_IN_THE_END: Final = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96"))
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # bits 64 to 96, with and without the "universal" bit


@dataclass(frozen=True, slots=True)
class PeerFilter:
    """Which addresses may be peers. ``own`` are the relay's: of its host, and those it is reached at from outside."""

    allowed: tuple[IPNetwork, ...] = ()
    """What the operator lists although it is special, or the relay's own if it is named as a single address."""
    own: frozenset[IPAddress] = frozenset()
    relayed: frozenset[IPAddress] = frozenset()
    """Those of ``own`` that allocations have their relayed addresses at: peers on this very server (RFC 8656 §2.9)."""
    denied: tuple[IPNetwork, ...] = ()
    """What the operator forbids although it is nothing special."""
    nat64_prefixes: tuple[IPv6Network, ...] = (NAT64,)
    """By which the relay's network reaches IPv4."""

    def why_not(self, address: IPAddress) -> str:
        """Why ``address`` cannot be a peer; empty: it can.

        At one of ``relayed`` only the ports of allocations are peers: that is the server's to see to.
        """
        if address in self.relayed:
            return ""
        for form in (address, *held_addresses(address, self.nat64_prefixes)):
            reason = self._why_not_form(form)
            if reason:
                return reason
        return ""

    def _why_not_form(self, form: IPAddress) -> str:
        if any(form in network for network in _NEVER):
            return "no host has such an address"
        if any(form in network for network in self.denied):
            return "the operator forbids it"
        if form in self.own:
            listed = any(network.num_addresses == 1 and form in network for network in self.allowed)
            return "" if listed else "it is the relay's own"
        if not is_special(form) or any(form in network for network in self.allowed):
            return ""
        return "it is in a range that is not reachable by everybody"


def is_special(address: IPAddress) -> bool:
    """Whether IANA's registries of special-purpose addresses, multicast included, say that it is not global."""
    ranges: Iterable[IPNetwork] = _SPECIAL4 if isinstance(address, IPv4Address) else _SPECIAL6
    return any(address in network for network in ranges)


def held_addresses(address: IPAddress, nat64_prefixes: Collection[IPv6Network] = (NAT64,)) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address holds, in every reading that somebody on the way may have."""
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    held = []
    if any(address in network for network in _HOLDS_IN_THE_END):
        held.append(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        held.append(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        held.append(number >> 64 & 0xFFFFFFFF)  # the server
        held.append(~number & 0xFFFFFFFF)  # the client, each bit inverted
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        held.append(number & 0xFFFFFFFF)
    held.extend(_behind(number, prefix.prefixlen) for prefix in nat64_prefixes if address in prefix)
    return tuple(IPv4Address(one) for one in held)


def _behind(number: int, prefix_length: int) -> int:
    """The address behind a NAT64 prefix of that length: bits 64 to 71 are no part of it (RFC 6052 §2.2)."""
    if prefix_length == 96:
        return number & 0xFFFFFFFF
    squeezed = (number >> 64) << 56 | number & ((1 << 56) - 1)  # 120 bits, the octet "u" taken out
    return squeezed >> (120 - prefix_length - 32) & 0xFFFFFFFF
