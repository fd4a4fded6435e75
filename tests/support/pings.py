"""Pings of a lab host that go on while something is broken, and what became of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import Signals

from warren.lab import Host, Process


@dataclass(frozen=True)
class Answers:
    """Of how many pings how many were ``lost``: not the very last one, which was under way when they were stopped."""

    sent: int
    lost: int


def pinging(host: Host, target: str) -> Process:
    """Ten pings a second until :func:`answers` stops them."""
    return host.start(["ping", "-n", "-i", "0.1", "-W", "2", target], name="ping")


def answers(ping: Process) -> Answers:
    """Stop ``ping`` and count."""
    ping.signal(Signals.SIGINT)
    ping.wait(10)
    return counted(ping.output())


def counted(output: str) -> Answers:
    """What the output of a ``ping`` that was stopped says."""
    match = re.search(r"(\d+) packets transmitted", output)
    assert match is not None, output
    sent = int(match[1])
    answered = {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", output)}
    assert answered, output
    return Answers(sent, sent - len(answered) - (sent not in answered))
