"""What a router lets through, apart from NAT: as a value, and as an nftables document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from warren.errors import UsageError

Udp = Literal["open", "dropped", "rejected"]
TABLE: Final = "lab_firewall"
PROXY_PORT: Final = 3128
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class Firewall:
    """The rules of a router for what it forwards; the default has none. Raises UsageError for what makes no sense."""

    udp: Udp = "open"
    """UDP in and out: let through, dropped without a word, or refused by an ICMP message."""
    tcp_ports: tuple[int, ...] | None = None
    """Connections from inside go to these ports only, others are reset; None: to all. ``()``: to none."""
    stateful: bool = False
    """IPv6 flows begin inside: what begins outside is dropped. For IPv4 a NAT sees to that."""

    def __post_init__(self) -> None:
        if self.udp not in get_args(Udp):
            raise UsageError(f"firewall udp {self.udp!r}: say {', '.join(get_args(Udp))}")
        for port in self.tcp_ports or ():
            if not 1 <= port <= _PORT_MAX:
                raise UsageError(f"firewall tcp_ports {port!r}: a port is 1 to {_PORT_MAX}")

    def __str__(self) -> str:
        words = [f"UDP {self.udp}"] if self.udp != "open" else []
        if self.tcp_ports is not None:
            words.append(f"TCP to {', '.join(map(str, self.tcp_ports))} only" if self.tcp_ports else "no TCP")
        words += ["IPv6 stateful"] if self.stateful else []
        return ", ".join(words)


def firewall_ruleset(outside: str, firewall: Firewall) -> str:
    """The document that makes ``firewall`` the rules between ``outside``, an interface, and all others.

    It replaces those there were, in one transaction; flows that the new ones forbid end at once.
    """
    return "\n".join(
        [
            f"add table inet {TABLE}",
            f"delete table inet {TABLE}",
            f"table inet {TABLE} {{",
            "chain pass { type filter hook forward priority filter - 10;",
            *_rules(outside, firewall),
            "}",
            "}",
        ]
    )


def _rules(outside: str, firewall: Firewall) -> Iterator[str]:
    match firewall.udp:
        case "dropped":
            yield "meta l4proto udp drop"
        case "rejected":
            yield "meta l4proto udp reject with icmpx admin-prohibited"
    if firewall.tcp_ports is not None:
        allowed = f"tcp dport != {{ {', '.join(map(str, firewall.tcp_ports))} }} " if firewall.tcp_ports else ""
        yield f'oifname "{outside}" {allowed}meta l4proto tcp ct direction original reject with tcp reset'
    if firewall.stateful:
        yield f'iifname "{outside}" meta nfproto ipv6 ct state established,related accept'
        yield f'iifname "{outside}" meta nfproto ipv6 meta l4proto {{ tcp, udp }} drop'
