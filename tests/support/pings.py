"""Pings of a lab host that go on while something is broken, and what became of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import Signals

from warren.lab import Host, Process

_EVERY_S = 0.1
_UNDER_WAY = 10
"""The last ones may be unanswered because nobody waited: that many, a second of them, and no gap before them."""


@dataclass(frozen=True)
class Answers:
    """Of how many pings how many were ``lost``: not those at the end that were under way when they were stopped."""

    sent: int
    lost: int


def pinging(host: Host, target: str) -> Process:
    """Ten pings a second until :func:`answers` stops them."""
    return host.start(["ping", "-n", "-i", f"{_EVERY_S}", "-W", "2", target], name="ping")


def answers(ping: Process) -> Answers:
    """Stop ``ping`` and count."""
    ping.signal(Signals.SIGINT)
    ping.wait(30)
    return counted(ping.output())


def counted(output: str) -> Answers:
    """What the output of a ``ping`` that has ended says, of itself or stopped: it waits a moment for its last answer,
    and a busy machine takes longer.
    """
    match = re.search(r"(\d+) packets transmitted", output)
    assert match is not None, output
    sent = int(match[1])
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output)}
    assert answered, output
    under_way = min(_UNDER_WAY, sent - max(answered))
    return Answers(sent, sent - len(answered) - under_way)
