"""``warren forward``: what is asked of the agent, and what is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import pytest

from warren import cli
from warren.cli import access_agent
from warren.cli.status_streams import goal, stream_lines
from warren.errors import Unreachable
from warren.proto.control.local import Stream


def stream(name: str = "forward 127.0.0.1:8080", **changes: object) -> Stream:
    values: dict[str, Any] = {
        "id": name,
        "kind": "forward",
        "origin": "kept",
        "target": "db:5432",
        "backends": ("db",),
        "state": "listening",
        "reason": "",
        "places": ("127.0.0.1:8080",),
        "open": 2,
        "opened": 30,
        "refused": {"policy": 3, "connect": 1},
        "last_refusal": "",
        "bytes_in": 1000,
        "bytes_out": 5_000_000,
    }
    return Stream(**(values | changes))


class FakeAgent:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    async def forward(self, listen: str, target: str | None) -> Stream:
        self.asked.append(("keep", listen, target))
        return stream()

    async def hold_forward(self, listen: str, target: str | None) -> AsyncIterator[Stream]:
        self.asked.append(("hold", listen, target))
        yield stream(target="page", backends=("bob", "carol"), origin="held")

    async def forwards(self) -> tuple[Stream, ...]:
        return (stream(),)

    async def unforward(self, place: str) -> None:
        self.asked.append(("remove", place))


def test_a_target_on_this_hosts_side_is_said_once() -> None:
    assert goal(stream(target="localhost:3000", backends=("localhost:3000",))) == "localhost:3000"
    assert goal(stream(target="page", backends=("bob", "carol"))) == "page (bob, carol)"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    made = FakeAgent()

    def ask(run: str | None, question: Callable[[FakeAgent], Awaitable[object]], **_: object) -> object:
        async def session() -> object:
            return await question(made)

        return asyncio.run(session())

    monkeypatch.setattr(access_agent, "ask", ask)
    return made


@pytest.mark.parametrize(
    ("arguments", "asked", "said"),
    [
        (["8080", "page"], ("hold", "8080", "page"), "127.0.0.1:8080 leads to page (bob, carol)\n"),
        (["8080", "db:5432", "--keep"], ("keep", "8080", "db:5432"), "127.0.0.1:8080 leads to db:5432\n"),
        (["--socks", "1080", "--keep"], ("keep", "1080", None), "127.0.0.1:8080 leads to"),
        (["--remove", "8080"], ("remove", "8080"), "The forward at 8080 is removed.\n"),
    ],
)
def test_what_is_asked_and_what_is_said(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], arguments: list[str], asked: tuple[object, ...], said: str
) -> None:
    assert cli.run(["forward", *arguments]) == 0
    assert agent.asked == [asked]
    assert capsys.readouterr().out.startswith(said)


def test_an_agent_that_ends_ends_the_command_which_says_so(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [stream(origin="held")]

    async def hold_forward(listen: str, target: str | None) -> AsyncIterator[Stream]:
        while made:
            yield made.pop()
        raise Unreachable("the agent closed the connection")

    monkeypatch.setattr(agent, "hold_forward", hold_forward)
    assert cli.run(["forward", "8080", "db:5432"]) == 3
    assert capsys.readouterr().err.startswith("warren: the agent has ended: this forward does not come back")
    assert cli.run(["forward", "8080", "db:5432"]) == 3
    assert capsys.readouterr().err == "warren: the agent closed the connection\n"


def test_json_is_the_value(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["forward", "8080", "db:5432", "--keep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["places"] == ["127.0.0.1:8080"]
    assert cli.run(["forward", "--list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["refused"] == {"policy": 3, "connect": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["8080"],
        ["8080", "db:1", "--list"],
        ["8080", "db:1", "--socks", "1080"],
        ["--list", "--keep"],
        ["--remove", "1", "--keep"],
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.run(["forward", *arguments]) == 2
    assert "say [ADDR:]PORT TARGET:PORT, or one of" in capsys.readouterr().err
    assert agent.asked == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["99999", "x:1"], "99999"),
        (["8080", "x:0"], "x:0"),
        (["8080", "x:1/sctp"], "behind the slash goes tcp or udp"),
        (["8080", ""], "is no target"),
        (["8080", "x:1", "--keep"], ""),
        (["127.0.0.1", "x:1"], "127.0.0.1"),
        (["overlay:x", "y:1"], "overlay:x"),
        (["--socks", "192.0.2.1:1080"], "SOCKS asks for no password"),
        (["--remove", "99999"], "99999"),
    ],
)
def test_a_mistake_is_found_before_an_agent_is_looked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], why: str
) -> None:
    status = cli.run(["forward", "--run", str(tmp_path), *arguments])
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    if why:
        assert status == 2
        assert why in err
    else:
        assert status == 3
        assert "no agent runs here" in err


@pytest.mark.parametrize(
    "words",
    [
        ["ping", "bad name!"],
        ["ping", ""],
        ["explain", "alice", "bob\n"],
        ["explain", "alice", "alice"],
        ["status", "x" * 300],
        ["down", "bad name", "--leave"],
    ],
)
def test_what_cannot_be_a_name_is_told_without_an_agent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str]
) -> None:
    assert cli.run([*words, "--run", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no agent" not in err


def test_a_table_of_streams_and_below_it_what_is_wrong() -> None:
    failed = stream("home: service web", state="unhealthy", reason="nobody\x1b[31m is there", origin="network")
    refusing = stream("socks 127.0.0.1:1080", last_refusal="too fast", origin="held")
    titles, first, second, third, why, last = stream_lines([stream(), failed, refusing], None)
    assert click.unstyle(titles).split()[:3] == ["STREAMS", "TO", "STATE"]
    assert " ".join(click.unstyle(first).split()) == "forward 127.0.0.1:8080 db:5432 listening 2 30 4 1.0 kB 5.0 MB"
    assert "socks 127.0.0.1:1080 (held)" in third
    assert "home: service web: nobody" in why
    assert "\x1b[31m is" not in why
    assert "socks 127.0.0.1:1080: too fast" in last
    assert stream_lines([], None) == []
    assert "unhealthy" in second


def test_what_a_page_has_said_already_is_not_below_the_table_again() -> None:
    failed = stream("home: service web", state="unhealthy", reason="nobody is there", last_refusal="nobody was there")
    assert len(stream_lines([failed, stream()], None, {"nobody is there"})) == 3
    assert len(stream_lines([failed, stream()], None, {"something else"})) == 4
