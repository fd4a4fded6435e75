"""The policy's rules as rules of nftables, for the packets that come to one side of a node's overlay; pure.

A packet of the direction that opened a flow is judged by where it goes, an answer as the packet that it answers: by
where it comes from. Both as they are in the overlay, where no address is translated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from warren.l3.document import ACCEPT, Document, Expression, is_equal, meta
from warren.l3.ranges import Range, Ranges, common, merged, ranges_of
from warren.model.policy import ResolvedRule
from warren.model.tunnel import IPAddress, IPNetwork

VERSIONS: Final = (6, 4)
ICMP: Final = {4: 1, 6: 58}
_PROTOCOLS: Final = {"tcp": 6, "udp": 17}


class Ranged(NamedTuple):
    """A rule with its prefixes as ranges, by IP version."""

    rule: ResolvedRule
    sources: Mapping[int, Ranges]
    destinations: Mapping[int, Ranges]


def ranged(rules: Iterable[ResolvedRule]) -> list[Ranged]:
    known: dict[int, dict[int, Ranges]] = {}  # by identity: rules share the prefixes of a selector, which may be many
    kept = tuple(rules)

    def ranges(networks: tuple[IPNetwork, ...]) -> Mapping[int, Ranges]:
        if id(networks) not in known:
            known[id(networks)] = {version: ranges_of(networks, version) for version in VERSIONS}
        return known[id(networks)]

    return [Ranged(rule, ranges(rule.sources), ranges(rule.destinations)) for rule in kept]


def by_version(networks: Sequence[IPNetwork | IPAddress]) -> dict[int, Ranges]:
    """The ranges of each IP version that has any."""
    found = {version: ranges_of(networks, version) for version in VERSIONS}
    return {version: ranges for version, ranges in found.items() if ranges}


def judge(
    document: Document,
    chain: str,
    rules: Iterable[Ranged],
    ours: Mapping[int, Ranges],
    *,
    inbound: bool,
    answers: bool,
    denied: Expression,
) -> None:
    """Add what the rules say of packets that come to addresses ``ours``, or leave from there; no others come to
    ``chain``. The first that matches decides; ``denied`` is the verdict of one that denies, and none at all follows.
    """
    for rule in rules:
        near, far = (rule.sources, rule.destinations) if inbound == answers else (rule.destinations, rule.sources)
        for version, whole in ours.items():
            here, there = common(near[version], whole), far[version]
            if not here or not there:
                continue
            at = {
                "daddr" if inbound else "saddr": () if here == whole else here,
                "saddr" if inbound else "daddr": there,
            }
            ends = [
                expression
                for field in ("saddr", "daddr")
                if at[field]
                for expression in document.within(field, at[field], version)
            ]
            verdict = ACCEPT if rule.rule.action == "allow" else denied
            protocol = _protocol(rule.rule, version, "sport" if answers else "dport")
            document.rule(chain, *ends, *protocol, verdict, comment=f"rule {rule.rule.index}")


def _protocol(rule: ResolvedRule, version: int, field: str) -> tuple[Expression, ...]:
    if rule.protocol == "any":
        return ()
    if rule.protocol == "icmp":
        return (is_equal(meta("l4proto"), ICMP[version]),)
    if not rule.ports:
        return (is_equal(meta("l4proto"), _PROTOCOLS[rule.protocol]),)
    ports: list[Any] = [
        first if first == last else {"range": [first, last]}
        for first, last in merged(Range(*port) for port in rule.ports)
    ]
    left = {"payload": {"protocol": rule.protocol, "field": field}}
    return (is_equal(left, ports[0] if len(ports) == 1 else {"set": ports}),)
