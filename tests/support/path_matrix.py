"""Every kind of site against every kind: the real program, the kernel's NATs, and what the oracle says of each pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tests.support.path_watch import Watched, watch
from warren.lab import Host, Lab
from warren.lab.nat import NatKind
from warren.lab.network import Network
from warren.lab.site import Internet
from warren.lab.site_kinds import SiteKind, site_kind
from warren.paths.nat import FIREWALLED, OPEN, Behaviour, Situation, Verdict, behind, verdict

KINDS = (
    "open",
    "full-cone",
    "address-restricted",
    "port-restricted",
    "symmetric",
    "symmetric-sequential",
    "cgn",
    "ipv6-firewalled",
    "ipv6-only",
    "udp-blocked",
)
DIRECT_WITHIN_S = 60.0
"""The budget of hole punching with its repeats and of a busy machine; of a pair that is to have a direct path."""
RELAYED_FOR_S = 3.0
"""A pair that must stay relayed is watched that long after the first answer."""
REPLY_WITHIN_S = 30.0
_PATIENCE_S = 60.0


def behaviour_of(nat: NatKind | None) -> Behaviour:
    return OPEN if nat is None else Behaviour(nat.mapping, nat.filtering, nat.allocation, nat.hairpin)


def situation_of(name: str) -> Situation:
    """What the oracle is to think of a node at a site of this kind."""
    kind: SiteKind = site_kind(name)
    v4 = behaviour_of(kind.nat)
    if kind.carrier is not None:
        v4 = behind(v4, behaviour_of(kind.carrier))
    v6 = None
    if "6" in kind.families:
        v6 = FIREWALLED if kind.firewall.stateful else OPEN
    if kind.families == "6":  # the router's masquerading of its NAT64's pool
        v4 = Behaviour("eim", "apdf", "preserving")
    return Situation(
        v4=v4,
        v6=v6,
        udp=kind.firewall.udp == "open",
        tcp=kind.firewall.tcp_ports is None,
        nat64=kind.families == "6",
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """What two kinds came to."""

    row: str
    column: str
    verdict: Verdict
    watched: Watched

    @property
    def agrees(self) -> bool:
        """It works, and is direct exactly if the oracle says so."""
        return self.watched.first_reply_s is not None and (self.watched.direct_s is not None) == self.verdict.direct

    def __str__(self) -> str:
        seen = self.watched
        if seen.first_reply_s is None:
            return f"**no reply** ({seen.reason})"
        how = "relayed" if seen.direct_s is None else self.verdict.by
        if seen.direct_s is None:
            return f"{how}, {seen.first_reply_s:.1f} s"
        return f"{how}, {seen.first_reply_s:.1f} / {seen.direct_s:.1f} s"


class Matrix:
    """Two sites of each kind with a node each, a coordinator, and a relay, in ``lab``."""

    def __init__(self, lab: Lab, kinds: Sequence[str] = KINDS) -> None:
        self.kinds = tuple(kinds)
        internet = Internet(lab)
        server = internet.server("server")
        urls = [f"https://{internet.address('server')}:8443", f"https://[{internet.address('server', 6)}]:8443"]
        self.network = Network(server, "home", url=urls[0])
        self._urls = urls
        self.hosts: dict[str, tuple[Host, Host]] = {}
        for kind in self.kinds:
            sites = [internet.site(f"{_short(kind)}{number}", kind) for number in (1, 2)]
            first, second = (site.host(f"n-{site.name}") for site in sites)
            self.hosts[kind] = first, second
        self.addresses: dict[str, str] = {}

    def start(self) -> None:
        """Everybody joins, a few at a time, and knows everybody."""
        self.network.start("--url", self._urls[1])
        everybody = [host for pair in self.hosts.values() for host in pair]
        ticket = self.network.ticket("--uses", str(len(everybody)))
        for begin in range(0, len(everybody), 4):
            some = everybody[begin : begin + 4]
            for host in some:
                self.network.join(host, ticket=ticket, wait=False)
            for host in some:
                self.network.wait_up(host)
        for host in everybody:
            self.addresses[host.name] = self.network.address(host)
        for host in everybody:
            others = [one for one in everybody if one is not host]
            host.wait_for(partial(self.network.knows, host, others), _PATIENCE_S)

    def cells(self) -> Iterator[Cell]:
        """Each pair of kinds, as many at a time as need no host twice."""
        for round_ in rounds(self.kinds):
            calls = []
            for row, column in round_:
                expected = verdict(situation_of(row), situation_of(column))
                timeout_s = DIRECT_WITHIN_S if expected.direct else REPLY_WITHIN_S
                here, there = self.hosts[row][0], self.hosts[column][1]
                target = self.addresses[there.name]
                arguments = (self.network.name, there.name, target, timeout_s, RELAYED_FOR_S)
                calls.append((row, column, expected, here.begin(watch, *arguments)))
            for row, column, expected, call in calls:
                yield Cell(row, column, expected, call.result(DIRECT_WITHIN_S + _PATIENCE_S))


def rounds(kinds: Sequence[str]) -> list[list[tuple[str, str]]]:
    """All pairs of kinds, each kind with itself too, in rounds in which no kind is twice on a side."""
    pairs = [(row, column) for number, row in enumerate(kinds) for column in kinds[number:]]
    found: list[list[tuple[str, str]]] = []
    for pair in pairs:
        for round_ in found:
            if len(round_) < _AT_ONCE and all(pair[0] != row and pair[1] != column for row, column in round_):
                round_.append(pair)
                break
        else:
            found.append([pair])
    return found


_AT_ONCE = 4


def _short(kind: str) -> str:
    """A name for interfaces and hosts."""
    words = kind.split("-")
    return words[0][:4] + "".join(word[0] for word in words[1:])


def table(cells: Sequence[Cell], kinds: Sequence[str]) -> str:
    """Markdown; the lower half is left empty, because a pair is a pair."""
    by_pair = {(cell.row, cell.column): cell for cell in cells}
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for row in kinds:
        texts = [str(by_pair[row, column]) if (row, column) in by_pair else "" for column in kinds]
        lines.append(f"| **{row}** | " + " | ".join(texts) + " |")
    return "\n".join(lines)
