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
               → outbound: what goes into the overlay from elsewhere than from our own addresses

Nothing passes without a rule: *inbound* and *outbound* end in a drop, and without any rule *inbound* is nothing else.
A packet in the original direction of its flow is judged each time, so a port that is closed is closed for the flows
that were open; one in the reply direction, or an ICMP error about a tracked flow, passes. Of what *inbound* lets
through the rest of the host's own firewall may still drop some; nothing here opens that up.

What this host itself sends, or what it masquerades behind its own overlay address, is not judged here: its receiver
judges it. Packets of subnets behind this node are judged on both sides.

The kernel takes packets apart, so extension headers hide no port from it (it walks through them) and an unknown one is
a protocol without ports. Fragments are put together before they are judged; one that was not is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from warren.l3.ranges import Range, Ranges, common, elements, merged, ranges_of, without
from warren.linux.nft import Command, Table
from warren.model.policy import ResolvedRule
from warren.model.tunnel import IPAddress, IPNetwork

FAMILY: Final = "inet"
_IP: Final = {6: "ip6", 4: "ip"}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}
_ICMP: Final = {4: 1, 6: 58}
_NO_PROTOCOL: Final = 255  # IANA: reserved
_RAW, _MANGLE, _AFTER_SOURCE_NAT = -300, -150, 300  # nft(8), standard priorities; connection tracking is at -200
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")

Expression = dict[str, Any]


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


def removal(interface: str) -> list[Command]:
    """The document that removes the table, whether it is there or not. The overlay is then unfiltered: first take the
    interface down.
    """
    table = {"family": FAMILY, "name": table_name(interface)}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]  # nft 1.0.6 has no `destroy`


def ruleset(interface: str, own: Own, rules: Iterable[ResolvedRule] | None) -> list[Command]:
    """The document that puts the table of ``interface`` in place, replacing an earlier one in the same transaction.

    Load it before the interface is up. ``rules`` None says that there is no policy that can be trusted: as with no
    rule at all, nothing comes in then, not even replies. Raises ValueError for what is no interface name.
    """
    if not _INTERFACE.fullmatch(interface):
        raise ValueError(f"{interface!r} is no interface name")
    document = _Document(interface)
    for name, priority in (("antispoof", _RAW), ("arrive", _MANGLE)):
        document.chain(name, hook="prerouting", priority=priority)
    document.chain("pass", hook="forward")
    document.chain("leave", hook="postrouting", priority=_AFTER_SOURCE_NAT)
    document.chain("inbound")
    document.chain("outbound")
    _antispoof(document, own)
    # A packet whose headers the kernel cannot follow matches nothing that asks for its protocol.
    document.rule("arrive", _is("iifname", interface), _differs(_meta("l4proto"), _NO_PROTOCOL), _goto("inbound"))
    document.rule("arrive", _is("iifname", interface), _DROP)
    document.rule("leave", _is("oifname", interface), _goto("outbound"))
    judged = _ranged(tuple(rules or ()))
    if judged:
        _inbound(document, own, judged)
    document.rule("inbound", _DROP)
    _outbound(document, own, judged)
    document.rule("outbound", _DROP)
    return document.commands()


def _antispoof(document: _Document, own: Own) -> None:
    addresses = _both_versions(own.addresses)
    for version, ours in addresses.items():
        document.rule("antispoof", _differs(_meta("iifname"), "lo"), *document.within("saddr", ours, version), _DROP)
    document.rule("antispoof", _is("iifname", {"set": ["lo", document.interface]}), _ACCEPT)
    for version, ours in addresses.items():  # CVE-2019-14899
        document.rule("antispoof", *document.within("daddr", ours, version), _DROP)
    for version, theirs in _both_versions(own.prefixes).items():
        elsewhere = without(theirs, ranges_of(own.routes, version))
        document.rule("antispoof", *document.within("saddr", elsewhere, version), _DROP)
    into = _is("oifname", document.interface)
    for version, offered in _both_versions(own.routes).items():  # strict reverse path (RFC 3704 §2.2)
        document.rule("pass", into, *document.within("saddr", offered, version), _is_equal(_WAY_BACK, 0), _DROP)


def _inbound(document: _Document, own: Own, rules: Iterable[_Rule]) -> None:
    reachable = _both_versions((*own.addresses, *own.routes))
    for version in _IP:
        document.rule("inbound", *document.outside("daddr", reachable.get(version, ()), version), _DROP)
    _replies_and_errors(document, "inbound")
    for rule in rules:
        for version, ours in reachable.items():
            sources, destinations = rule.sources[version], common(rule.destinations[version], ours)
            if sources and destinations:
                # The chain's first rules have left nothing but what is reachable.
                to = document.within("daddr", destinations, version) if destinations != ours else ()
                document.judge("inbound", rule.rule, version, *document.within("saddr", sources, version), *to)


def _outbound(document: _Document, own: Own, rules: Iterable[_Rule]) -> None:
    for version, ours in _both_versions(own.addresses).items():
        document.rule("outbound", *document.within("saddr", ours, version), _ACCEPT)
    behind = _both_versions(own.routes)
    if not behind:
        return
    for version in _IP:
        document.rule("outbound", *document.outside("saddr", behind.get(version, ()), version), _DROP)
    _replies_and_errors(document, "outbound")
    for rule in rules:
        for version, offered in behind.items():
            sources, destinations = common(rule.sources[version], offered), rule.destinations[version]
            if sources and destinations:
                ends = *document.within("saddr", sources, version), *document.within("daddr", destinations, version)
                document.judge("outbound", rule.rule, version, *ends)


def _replies_and_errors(document: _Document, chain: str) -> None:
    document.rule(chain, _differs({"&": [_payload(4, "frag-off"), 0x3FFF]}, 0), _DROP)  # RFC 791 §3.1: offset, MF
    for field in ("frag-off", "more-fragments"):  # RFC 8200 §4.5; both zero in a fragment that is whole (RFC 6946)
        document.rule(chain, _differs({"exthdr": {"name": "frag", "field": field}}, 0), _DROP)
    document.rule(chain, _in(_ct("state"), "established"), _is_equal(_ct("direction"), "reply"), _ACCEPT)
    icmp = {"set": sorted(_ICMP.values())}
    document.rule(chain, _in(_ct("state"), "related"), _is_equal(_meta("l4proto"), icmp), _ACCEPT)


def _both_versions(networks: Sequence[IPNetwork | IPAddress]) -> dict[int, Ranges]:
    """The ranges of each IP version that has any."""
    found = {version: ranges_of(networks, version) for version in _IP}
    return {version: ranges for version, ranges in found.items() if ranges}


class _Rule(NamedTuple):
    """A rule with its prefixes as ranges, by IP version."""

    rule: ResolvedRule
    sources: Mapping[int, Ranges]
    destinations: Mapping[int, Ranges]


def _ranged(rules: Sequence[ResolvedRule]) -> list[_Rule]:
    known: dict[int, dict[int, Ranges]] = {}  # by identity: rules share the prefixes of a selector, which may be many

    def ranges(networks: tuple[IPNetwork, ...]) -> Mapping[int, Ranges]:
        if id(networks) not in known:
            known[id(networks)] = {version: ranges_of(networks, version) for version in _IP}
        return known[id(networks)]

    return [_Rule(rule, ranges(rule.sources), ranges(rule.destinations)) for rule in rules]


# Writing nftables (libnftables-json(5))


class _Document:
    """Collects the table's parts. Ranges that occur more than once share a set."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._place = {"family": FAMILY, "table": table_name(interface)}
        self._sets: dict[tuple[int, Ranges], str] = {}
        self._chains: list[Command] = []
        self._rules: list[Command] = []

    def commands(self) -> list[Command]:
        sets = [
            self._add(
                "set",
                name=name,
                type=f"ipv{version}_addr",
                flags=["interval"],
                elem=elements(ranges, version),
            )
            for (version, ranges), name in self._sets.items()
        ]
        table = {"add": {"table": {"family": FAMILY, "name": self._place["table"]}}}
        return [*removal(self.interface), table, *sets, *self._chains, *self._rules]

    def chain(self, name: str, *, hook: str | None = None, priority: int = 0) -> None:
        base = {"type": "filter", "hook": hook, "prio": priority, "policy": "accept"} if hook else {}
        self._chains.append(self._add("chain", name=name, **base))

    def rule(self, chain: str, *expressions: Expression, comment: str = "") -> None:
        said = {"comment": comment} if comment else {}
        self._rules.append(self._add("rule", chain=chain, expr=list(expressions), **said))

    def judge(self, chain: str, rule: ResolvedRule, version: int, *ends: Expression) -> None:
        """One rule of the policy, for the packets between ``ends``."""
        verdict = _ACCEPT if rule.action == "allow" else _DROP
        self.rule(chain, *ends, *_protocol(rule, version), verdict, comment=f"rule {rule.index}")

    def within(self, field: str, ranges: Ranges, version: int) -> tuple[Expression, ...]:
        return (_is_equal(_payload(version, field), self._right(ranges, version)),)

    def outside(self, field: str, ranges: Ranges, version: int) -> tuple[Expression, ...]:
        """None at all (``ranges`` empty) leaves every packet of that IP version outside."""
        if not ranges:
            return (_is_equal(_meta("nfproto"), f"ipv{version}"),)
        return (_differs(_payload(version, field), self._right(ranges, version)),)

    def _right(self, ranges: Ranges, version: int) -> Any:
        if len(ranges) == 1:
            return elements(ranges, version)[0]
        name = self._sets.setdefault((version, ranges), f"s{len(self._sets)}")
        return f"@{name}"

    def _add(self, kind: str, **what: object) -> Command:
        return {"add": {kind: {**self._place, **what}}}


def _protocol(rule: ResolvedRule, version: int) -> tuple[Expression, ...]:
    if rule.protocol == "any":
        return ()
    if rule.protocol == "icmp":
        return (_is_equal(_meta("l4proto"), _ICMP[version]),)
    if not rule.ports:
        return (_is_equal(_meta("l4proto"), _PROTOCOLS[rule.protocol]),)
    ports: list[Any] = [
        first if first == last else {"range": [first, last]}
        for first, last in merged(Range(*port) for port in rule.ports)
    ]
    left = {"payload": {"protocol": rule.protocol, "field": "dport"}}
    return (_is_equal(left, ports[0] if len(ports) == 1 else {"set": ports}),)


_WAY_BACK: Final[Expression] = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
"""The interface by which the source would be answered, if that is the one it came by; else 0."""
_ACCEPT: Final[Expression] = {"accept": None}
_DROP: Final[Expression] = {"drop": None}


def _payload(version: int, field: str) -> Expression:
    return {"payload": {"protocol": _IP[version], "field": field}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _ct(key: str) -> Expression:
    return {"ct": {"key": key}}


def _is(key: str, value: object) -> Expression:
    return _is_equal(_meta(key), value)


def _is_equal(left: Expression, right: object) -> Expression:
    return {"match": {"op": "==", "left": left, "right": right}}


def _in(left: Expression, right: object) -> Expression:
    return {"match": {"op": "in", "left": left, "right": right}}


def _differs(left: Expression, right: object) -> Expression:
    return {"match": {"op": "!=", "left": left, "right": right}}


def _goto(chain: str) -> Expression:
    return {"goto": {"target": chain}}
