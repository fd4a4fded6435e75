"""A NAT kind as an nftables document.

The kernel translates; which port it chose is then written down in maps, so that later flows of the same inner port get
the same one (``out``) and packets from outside find their way in (``in``). The maps are filled behind the translation,
from what really left, and refreshed by every packet from inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from warren.lab.nat import NatKind

TCP_LIFETIME_S: Final = 7440
"""RFC 5382 REQ-5."""
FIRST_SEQUENTIAL_PORT: Final = 20_000
SEQUENTIAL_PORTS: Final = 4096
"""So many ports are given out in order, for UDP and TCP apart, then they begin again."""
_GENERATION_PORTS: Final = 1021  # with no divisor in common: 4096 generations differ
_MAPPINGS_MAX: Final = 65_535
_TRANSPORTS: Final = "meta l4proto { tcp, udp }"


def nat_ruleset(table: str, interface: str, kind: NatKind, *, generation: int = 0) -> str:
    """The document that makes ``table`` the NAT at ``interface``, without the mappings it had, in one transaction.

    With another ``generation`` the same inner ports get other outer ones: from a NAT that preserves ports, random ones.
    """
    return "\n".join(
        [
            f"add table ip {table}",
            f"delete table ip {table}",
            f"table ip {table} {{",
            f"ct timeout short {{ protocol udp; l3proto ip; policy = {_policy(kind)}; }}",
            *_sets(kind, generation),
            *_chain("enter", "nat hook prerouting priority dstnat", _entering(interface, kind)),
            *_chain("guard_itself", "filter hook input priority filter", _guarding_itself(interface)),
            *_chain("guard_inside", "filter hook forward priority filter", _guarding_inside(interface)),
            *_chain("age", "filter hook postrouting priority mangle", _ageing(interface)),
            *_chain("leave", "nat hook postrouting priority srcnat", _leaving(interface, kind, generation)),
            *_chain("learn", "filter hook postrouting priority srcnat + 10", _learning(interface, kind)),
            "}",
        ]
    )


def _keeps_ports(kind: NatKind) -> bool:
    """Whether a new flow may have to get the port of an earlier one."""
    return kind.mapping != "apdm" and not kind.overloads


def _lets_in(kind: NatKind) -> bool:
    return kind.filtering != "apdf" or kind.hairpin


def _preserves(kind: NatKind, generation: int) -> bool:
    return kind.allocation == "preserving" and not generation


def _policy(kind: NatKind) -> str:
    return f"{{ unreplied : {kind.udp_lifetime_s}, replied : {kind.udp_lifetime_s} }}"


def _sets(kind: NatKind, generation: int) -> Iterator[str]:
    flags = f"flags dynamic,timeout; size {_MAPPINGS_MAX};"
    remote = " . ip daddr" if kind.mapping == "adm" else ""
    if _keeps_ports(kind):
        yield f"map out {{ typeof meta l4proto . ip saddr . th sport{remote} : th sport; {flags} }}"
        yield f"set taken {{ typeof meta l4proto . th sport; {flags} }}"
    if _lets_in(kind):
        yield f"map in {{ typeof meta l4proto . th dport : ip saddr . th sport; {flags} }}"
    if kind.filtering == "adf":
        yield f"set seen {{ typeof meta l4proto . th dport . ip saddr; {flags} }}"
    if kind.allocation == "sequential":
        # numgen counts in the byte order of this machine, ports are in that of the network: a map is what turns them.
        numbers = range(SEQUENTIAL_PORTS)
        shift = generation * _GENERATION_PORTS
        ports = (FIRST_SEQUENTIAL_PORT + (number + shift) % SEQUENTIAL_PORTS for number in numbers)
        elements = ", ".join(f"{number} : {port}" for number, port in zip(numbers, ports, strict=True))
        yield f"map ports {{ typeof numgen inc mod {SEQUENTIAL_PORTS} : th sport; elements = {{ {elements} }}; }}"


def _entering(interface: str, kind: NatKind) -> Iterator[str]:
    """Packets from outside to a mapping that lets them in; from inside to any mapping, with hairpin."""
    known = "meta l4proto . th dport . ip saddr @seen " if kind.filtering == "adf" else ""
    to_mapping = "dnat ip to meta l4proto . th dport map @in"
    if kind.filtering != "apdf":
        yield f'iifname "{interface}" fib daddr type local {_TRANSPORTS} {known}{to_mapping}'
    if kind.hairpin:
        yield f'iifname != "{interface}" {_TRANSPORTS} fib daddr type local fib daddr . iif type != local {to_mapping}'


def _guarding_itself(interface: str) -> Iterator[str]:
    """What was not let in ends here, unheard: an answer of the router would tell of it, and its entry in the
    connection tracking would take the port away from the mapping.
    """
    yield f'iifname "{interface}" ct state established,related accept'
    yield f'iifname "{interface}" {_TRANSPORTS} drop'
    yield f'iifname != "{interface}" {_TRANSPORTS} fib daddr . iif type unicast iifname != "lo" drop'


def _guarding_inside(interface: str) -> Iterator[str]:
    yield f'iifname "{interface}" ct state new ct status & dnat == 0 drop'


def _ageing(interface: str) -> Iterator[str]:
    for direction in ("oifname", "iifname"):
        yield f'{direction} "{interface}" meta l4proto udp ct timeout set "short"'


def _leaving(interface: str, kind: NatKind, generation: int) -> Iterator[str]:
    out, hairpinned = f'oifname "{interface}"', _hairpinned(interface)
    remote = " . ip daddr" if kind.mapping == "adm" else ""
    known = f"meta l4proto . ip saddr . th sport{remote} map @out"
    yield "fib saddr type local return"
    if _keeps_ports(kind):
        yield f"{out} {_TRANSPORTS} masquerade to :{known}"
    if kind.hairpin:
        # The kernel takes the outer port that a present flow of the same inner one has.
        yield f"{hairpinned} snat ip to ct original ip daddr"
    if kind.allocation == "sequential":
        for protocol in ("udp", "tcp"):
            yield f"{out} meta l4proto {protocol} masquerade to :numgen inc mod {SEQUENTIAL_PORTS} map @ports"
    elif not _preserves(kind, generation):
        yield f"{out} masquerade fully-random"
    elif _keeps_ports(kind):
        yield f"{out} meta l4proto . th sport @taken masquerade fully-random"
    yield f"{out} masquerade"


def _hairpinned(interface: str) -> str:
    return f'iifname != "{interface}" oifname != "{interface}" {_TRANSPORTS} ct status dnat'


def _learning(interface: str, kind: NatKind) -> Iterator[str]:
    """Headers have their outer source here. A reply that leaves is one of a flow that began outside."""
    leaving = [f'oifname "{interface}"', *([f"{_hairpinned(interface)} ct status snat"] if kind.hairpin else [])]
    for way in leaving:
        for protocol, lifetime_s in (("udp", kind.udp_lifetime_s), ("tcp", TCP_LIFETIME_S)):
            for direction, changed in (("original", "snat"), ("reply", "dnat")):
                inner = f"ct {direction} ip saddr . ct {direction} proto-src"
                remote = f" . ct {direction} ip daddr" if kind.mapping == "adm" else ""
                limit = f"timeout {lifetime_s}s"
                that = f"{way} meta l4proto {protocol} ct direction {direction} ct status {changed}"
                if _keeps_ports(kind):
                    yield f"{that} update @out {{ meta l4proto . {inner}{remote} {limit} : th sport }}"
                    yield f"{that} update @taken {{ meta l4proto . th sport {limit} }}"
                if _lets_in(kind):
                    yield f"{that} update @in {{ meta l4proto . th sport {limit} : {inner} }}"
                if kind.filtering == "adf":
                    yield f"{that} update @seen {{ meta l4proto . th sport . ip daddr {limit} }}"


def _chain(name: str, place: str, rules: Iterable[str]) -> list[str]:
    return [f"chain {name} {{ type {place};", *rules, "}"]
