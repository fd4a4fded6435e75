"""``warren exec`` in front of what it becomes: whom it asks, and what it says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from tests.unit.cli.fakes import agent_status
from warren import cli
from warren.agent import entering
from warren.agent.places import Places
from warren.cli import access_agent
from warren.errors import Unreachable


class Became(Exception):
    """What this process would be now."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def become(name: str, arguments: list[str]) -> NoReturn:
        assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        raise Became(name, *arguments[1:])

    monkeypatch.setattr(os, "execvp", become)
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(*arguments: str) -> Became:
    with pytest.raises(Became) as caught:
        cli.program.main(args=["exec", *arguments], prog_name="warren", standalone_mode=False)
    return caught.value


def nest(monkeypatch: pytest.MonkeyPatch, *, answers: bool) -> list[Path]:
    entered: list[Path] = []

    def enter(where: Places) -> None:
        if not answers:
            raise Unreachable("no rootless engine answers")
        entered.append(where.nest)

    monkeypatch.setattr(entering, "enter_overlay", enter)
    return entered


@pytest.mark.usefixtures("became")
@pytest.mark.parametrize("separator", [(), ("--",)])
def test_options_behind_the_command_are_the_commands(
    monkeypatch: pytest.MonkeyPatch, separator: tuple[str, ...]
) -> None:
    entered = nest(monkeypatch, answers=True)
    assert run("--run", "/r", *separator, "curl", "-s", "--run", "x", "--", "y").args == (
        "curl", "-s", "--run", "x", "--", "y",
    )  # fmt: skip
    assert entered == [Path("/r/nest.sock")]


@pytest.mark.usefixtures("became")
def test_with_the_userspace_engine_the_command_is_run_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    nest(monkeypatch, answers=False)
    monkeypatch.setattr(access_agent, "status", lambda _: agent_status())
    assert run("true").args == ("true",)


def test_a_rootless_node_whose_helper_is_dead_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nest(monkeypatch, answers=False)
    status = msgspec.structs.replace(agent_status(), engine="rootless")
    monkeypatch.setattr(access_agent, "status", lambda _: status)
    assert cli.run(["exec", "true"]) == 3
    assert capsys.readouterr().err == "warren: no rootless engine answers\n"


def test_without_an_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["exec", "--run", str(tmp_path), "true"]) == 3
    assert "no agent runs here" in capsys.readouterr().err
    assert cli.run(["exec"]) == 2


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (FileNotFoundError(2, "No such file or directory"), 127, "x: there is no such program"),
        (PermissionError(13, "Permission denied"), 127, "x: there is no such program"),  # a closed directory of PATH
        (OSError(8, "Exec format error"), 126, "./x cannot be executed: Exec format error"),
        (ValueError("embedded null byte"), 126, "./x cannot be executed: embedded null byte"),
    ],
)
def test_what_cannot_be_executed_has_the_status_of_a_shell(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, said: str
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(os, "execvp", refuse)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(entering.OperationFailed) as caught:
        entering.execute([said.partition(" ")[0].rstrip(":")])
    assert (caught.value.exit_status, str(caught.value)) == (status, said)
