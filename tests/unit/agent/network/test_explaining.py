"""What is said of two members beside what their paths tell."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from warren.agent.network.explaining import judged
from warren.model.tunnel import TransportAddress
from warren.paths.events import PairReport, PeerReport
from warren.paths.nat import SYMMETRIC, Situation, verdict
from warren.paths.values import Base, Path

HARD = Situation(v4=SYMMETRIC)
PUBLISHED = PairReport(
    path=Path(Base(kind="relay", relay="one"), TransportAddress(IPv4Address("203.0.113.1"), 1)),
    kind="srflx",
    state="failed",
    sent=1,
    answered=0,
    rtt_s=None,
    mapped=None,
    mtu=None,
    note="",
)
REPORT = PeerReport(
    node=bytes(32),
    state="relayed",
    path=None,
    why="",
    rtt_s=None,
    mtu=None,
    since=None,
    verdict=verdict(HARD, HARD),
    hard="",
    pairs=(PUBLISHED,),
)


def test_what_the_oracle_says_of_two_nats_is_quoted() -> None:
    assert judged(REPORT, str(HARD), str(HARD)) == REPORT.verdict
    assert judged(replace(REPORT, verdict=None), str(HARD), "") is None


def test_a_port_of_a_gateway_counts_for_more_than_the_nat() -> None:
    given = judged(replace(REPORT, pairs=(PUBLISHED, replace(PUBLISHED, kind="mapped"))), str(HARD), str(HARD))
    assert given is not None
    assert given.direct
    blocked = f"{HARD} no-udp"
    assert judged(replace(REPORT, pairs=(replace(PUBLISHED, kind="mapped"),)), str(HARD), blocked) == REPORT.verdict


def test_a_nat_that_nobody_has_seen_is_not_judged() -> None:
    assert judged(REPORT, "no-udp", str(HARD)) is None
    assert judged(REPORT, str(HARD), "no-udp no-relay") is None
    assert judged(REPORT, str(HARD), f"{HARD} no-udp") == REPORT.verdict
