"""``warren explain``: whom it asks about, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click
import msgspec
import pytest

from tests.unit.cli.fakes import agent_status, membership
from warren import cli
from warren.cli import access_agent
from warren.cli.explain import page
from warren.proto.control import local

ATTEMPT = local.Attempt(
    source="192.168.1.10",
    target="45.80.4.2:53743",
    kind="srflx",
    state="valid",
    selected=True,
    sent=4,
    answered=3,
    rtt_ms=7.25,
    mapped="45.80.3.2:4000",
    mtu=1420,
    note="",
)
FOUND = local.Explanation(
    network="home",
    node="alice",
    peer="bob",
    state="connected",
    path="direct",
    endpoint="45.80.4.2:53743",
    relay="",
    rtt_ms=7.25,
    mtu=1420,
    since_s=90.0,
    why="It answered first.",
    verdict="punched",
    verdict_direct=True,
    verdict_why="Both NATs let answers in.",
    hard="",
    nat="v4:eim,apdf,preserving",
    peer_nat="",
    attempts=(ATTEMPT, msgspec.structs.replace(ATTEMPT, selected=False, state="failed", answered=0, rtt_ms=None)),
    relays=(),
    coordinator=membership().coordinator,
    handshake_age_s=5.0,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the agent is asked about."""
    names: list[str] = []

    class Agent:
        def explain(self, name: str) -> local.Explanation:
            names.append(name)
            return FOUND

    def ask(run: str | None, question: Callable[[Any], Any], **_: object) -> Any:
        return question(Agent())

    monkeypatch.setattr(access_agent, "ask", ask)
    monkeypatch.setattr(access_agent, "status", lambda run: agent_status(membership()))
    return names


def lines(found: local.Explanation) -> list[str]:
    return [click.unstyle(line) for line in page(found)]


@pytest.mark.parametrize("arguments", [["bob"], ["alice", "bob"], ["bob", "alice"], ["alice.home.internal", "bob"]])
def test_one_of_the_two_is_this_machine(
    asked: list[str], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["explain", *arguments]) == 0
    assert asked == ["bob"]
    assert "alice and bob in home" in capsys.readouterr().out


def test_of_two_others_only_they_themselves_know(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "bob", "carol"]) == 1
    assert asked == []
    error = capsys.readouterr().err
    assert "neither bob nor carol is this machine (it is alice)" in error
    assert "run `warren explain bob carol` on one of them" in error


def test_a_node_and_itself_are_no_pair(asked: list[str]) -> None:
    assert cli.run(["explain", "bob", "bob"]) == 2


def test_everything_is_there_in_json(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["explain", "bob", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["attempts"][0]["target"] == "45.80.4.2:53743"
    assert answer["verdict"] == "punched"


def test_the_page_says_what_is_used_and_why_and_what_was_tried() -> None:
    shown = lines(FOUND)
    assert shown[0] == "alice and bob in home"
    text = "\n".join(shown)
    assert "direct, at 45.80.4.2:53743, round trip 7.25 ms, packets of 1420 bytes fit, for " in text
    assert "A direct path must be possible. Both NATs let answers in." in text
    assert "of bob: not known" in text
    assert sum(line.startswith("  *") for line in shown) == 1


def test_a_pair_without_a_path_is_told_what_is_in_the_way() -> None:
    relay = local.Relay(
        name="near", state="failed", transport=None, address="", relayed=(), rtt_ms=None, why="it does not answer"
    )
    away = msgspec.structs.replace(FOUND.coordinator, connected=False)
    found = msgspec.structs.replace(
        FOUND, path="none", verdict="none", verdict_direct=False, relays=(relay,), coordinator=away
    )
    text = "\n".join(lines(found))
    assert "There can be no direct path." in text
    assert "near: it does not answer" in text
    assert "no coordinator is connected" in text


def test_a_direct_path_against_all_expectation_is_no_contradiction() -> None:
    text = click.unstyle("\n".join(page(msgspec.structs.replace(FOUND, verdict="relay", verdict_direct=False))))
    assert "By their NATs alone there would be no direct path. Both NATs let answers in." in text
    blocked = msgspec.structs.replace(FOUND, verdict="", nat="no-udp")
    assert "not judged: UDP is blocked on one side" in click.unstyle("\n".join(page(blocked)))
