"""What a node lets in from an overlay, and what it passes on into it, as one nftables document; pure.

A network's interface has one table, ``inet warren-IF``, that is replaced as a whole, in one transaction::

    antispoof  prerouting, before connection tracking
               our overlay addresses are spoken to through the overlay or by ourselves, and spoken for by nobody else;
               members are not spoken for from elsewhere
    arrive     prerouting, after connection tracking and before any translation of addresses
               → inbound: what comes out of the overlay, judged as it was sent, whatever the host then does with it
    pass       forward
               the subnets behind us speak into the overlay from where they are
    leave      postrouting, after any translation of addresses
               → outbound: what goes into the overlay, but for the flows that our own addresses open

Nothing passes without a rule: *inbound* and *outbound* end in a drop, and without any rule *inbound* is nothing else.
Every packet is judged, so a port that is closed is closed for the flows that were open, in both directions. A packet of
the direction that opened a flow is judged by where it goes; an answer (→ *answered*, *answering*) as the flow that it
answers, else somebody could be sent to through a flow that is forbidden for as long as whoever answers likes. An ICMP
error about a tracked flow passes. Of what *inbound* lets through the rest of the host's own firewall may still drop
some; nothing here opens that up.

Who opened a flow connection tracking knows, and for flows from the overlay surely: the packet that began the entry was
judged. What this host itself sends may begin one as well that is only a late answer, in a flow of somebody else that
was forgotten meanwhile. So what comes in as an answer also passes if it may come by itself.

The flows that this host itself opens, or what it masquerades behind its own overlay address, are not judged here: their
receiver judges them. Packets of subnets behind this node are judged on both sides.

The kernel takes packets apart, so extension headers hide no port from it (it walks through them) and an unknown one is
a protocol without ports. Fragments are put together before they are judged; one that was not is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from warren.l3.document import (
    ACCEPT,
    ANSWER,
    DROP,
    IP,
    RETURN,
    WAY_BACK,
    Document,
    among,
    ct,
    differs,
    goto,
    is_,
    is_equal,
    jump,
    meta,
    payload,
    removal_of,
)
from warren.l3.judging import ICMP, Ranged, by_version, judge, ranged
from warren.l3.ranges import ranges_of, without
from warren.linux.nft import Command, Table
from warren.model.policy import ResolvedRule
from warren.model.tunnel import IPAddress, IPNetwork

FAMILY: Final = "inet"
_NO_PROTOCOL: Final = 255  # IANA: reserved
_RAW, _MANGLE, _AFTER_SOURCE_NAT = -300, -150, 300  # nft(8), standard priorities; connection tracking is at -200
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


@dataclass(frozen=True, slots=True)
class Own:
    """What of the overlay is this node's."""

    addresses6: tuple[IPv6Address, ...]
    address4: IPv4Address | None = None
    routes: tuple[IPNetwork, ...] = ()
    """Subnets behind this node that it offers."""
    prefixes: tuple[IPNetwork, ...] = ()
    """Ranges whose addresses are only ever the network's, its /48: no source on another interface has one. Leave out
    an IPv4 block that the underlay may use too.
    """

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return self.addresses6 if self.address4 is None else (*self.addresses6, self.address4)


def table_name(interface: str) -> str:
    return f"warren-{interface}"


def table_of(interface: str) -> Table:
    return Table(FAMILY, table_name(interface))


def refusals_of(interface: str) -> Table:
    """The table of :mod:`warren.l3.refusals`, which goes with the other; no interface has a slash in its name."""
    return Table(FAMILY, f"{table_name(interface)}/refusals")


def removal(interface: str) -> list[Command]:
    """The document that removes the tables, whether they are there or not. The overlay is then unfiltered: first take
    the interface down.
    """
    return [*removal_of(table_of(interface)), *removal_of(refusals_of(interface))]


def ruleset(interface: str, own: Own, rules: Iterable[ResolvedRule] | None) -> list[Command]:
    """The document that puts the table of ``interface`` in place, replacing an earlier one in the same transaction.
    That of refusals goes: it was made of other rules.

    Load it before the interface is up. ``rules`` None says that there is no policy that can be trusted: as with no
    rule at all, nothing comes in then, not even replies. Raises ValueError for what is no interface name.
    """
    if not _INTERFACE.fullmatch(interface):
        raise ValueError(f"{interface!r} is no interface name")
    document = Document(table_of(interface))
    for name, priority in (("antispoof", _RAW), ("arrive", _MANGLE)):
        document.chain(name, hook="prerouting", priority=priority)
    document.chain("pass", hook="forward")
    document.chain("leave", hook="postrouting", priority=_AFTER_SOURCE_NAT)
    for name in ("inbound", "answered", "outbound", "answering"):
        document.chain(name)
    _antispoof(document, interface, own)
    # A packet whose headers the kernel cannot follow matches nothing that asks for its protocol.
    document.rule("arrive", is_("iifname", interface), differs(meta("l4proto"), _NO_PROTOCOL), goto("inbound"))
    document.rule("arrive", is_("iifname", interface), DROP)
    document.rule("leave", is_("oifname", interface), goto("outbound"))
    judged = ranged(rules or ())
    if judged:
        _inbound(document, own, judged)
    document.rule("inbound", DROP)
    _outbound(document, own, judged)
    return [*removal(interface), *document.commands()]


def _antispoof(document: Document, interface: str, own: Own) -> None:
    addresses = by_version(own.addresses)
    for version, ours in addresses.items():
        document.rule("antispoof", differs(meta("iifname"), "lo"), *document.within("saddr", ours, version), DROP)
    document.rule("antispoof", is_("iifname", {"set": ["lo", interface]}), ACCEPT)
    for version, ours in addresses.items():  # CVE-2019-14899
        document.rule("antispoof", *document.within("daddr", ours, version), DROP)
    for version, theirs in by_version(own.prefixes).items():
        elsewhere = without(theirs, ranges_of(own.routes, version))
        document.rule("antispoof", *document.within("saddr", elsewhere, version), DROP)
    into = is_("oifname", interface)
    for version, offered in by_version(own.routes).items():  # strict reverse path (RFC 3704 §2.2)
        document.rule("pass", into, *document.within("saddr", offered, version), is_equal(WAY_BACK, 0), DROP)


def _inbound(document: Document, own: Own, rules: list[Ranged]) -> None:
    reachable = by_version((*own.addresses, *own.routes))
    for version in IP:
        document.rule("inbound", *document.outside("daddr", reachable.get(version, ()), version), DROP)
    _whole(document, "inbound")
    document.rule("inbound", *ANSWER, jump("answered"))
    judge(document, "answered", rules, reachable, inbound=True, answers=True, denied=RETURN)
    _errors(document, "inbound")
    judge(document, "inbound", rules, reachable, inbound=True, answers=False, denied=DROP)


def _outbound(document: Document, own: Own, rules: list[Ranged]) -> None:
    for version, ours in by_version(own.addresses).items():
        document.rule("outbound", *document.within("saddr", ours, version), *ANSWER, goto("answering"))
        document.rule("outbound", *document.within("saddr", ours, version), ACCEPT)
    behind = by_version(own.routes)
    if behind:
        for version in IP:
            document.rule("outbound", *document.outside("saddr", behind.get(version, ()), version), DROP)
        _whole(document, "outbound")
        document.rule("outbound", *ANSWER, goto("answering"))
        _errors(document, "outbound")
        judge(document, "outbound", rules, behind, inbound=False, answers=False, denied=DROP)
    document.rule("outbound", DROP)
    all_ours = by_version((*own.addresses, *own.routes))
    judge(document, "answering", rules, all_ours, inbound=False, answers=True, denied=DROP)
    document.rule("answering", DROP)


def _whole(document: Document, chain: str) -> None:
    document.rule(chain, differs({"&": [payload(4, "frag-off"), 0x3FFF]}, 0), DROP)  # RFC 791 §3.1: offset, MF
    for field in ("frag-off", "more-fragments"):  # RFC 8200 §4.5; both zero in a fragment that is whole (RFC 6946)
        document.rule(chain, differs({"exthdr": {"name": "frag", "field": field}}, 0), DROP)


def _errors(document: Document, chain: str) -> None:
    icmp = {"set": sorted(ICMP.values())}
    document.rule(chain, among(ct("state"), "related"), is_equal(meta("l4proto"), icmp), ACCEPT)
