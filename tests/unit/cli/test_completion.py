"""Completion: the scripts, and what they offer, in a real shell where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from tests.unit.cli.fakes import agent_status, membership, peer
from warren import cli
from warren.cli import access_agent
from warren.errors import Unreachable

COMPLETER = ShellComplete(cli.program, {}, "warren", "_WARREN_COMPLETE")


def offered(*words: str) -> list[str]:
    """For the last of ``words`` on a command line."""
    return [item.value for item in COMPLETER.get_completions(list(words[:-1]), words[-1])]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> None:
    home = membership(peers=(peer("web1", 2), peer("bob", 3)))
    work = membership(network="work", peers=(peer("carol", 2, fqdn="carol.work.internal"),))
    monkeypatch.setattr(access_agent, "status", lambda run, **_: agent_status(home, work))


def test_commands_are_offered_without_importing_them() -> None:
    assert offered("") == list(cli.program.list_commands(None))  # type: ignore[arg-type]
    assert offered("net") == ["network"]
    assert offered("network", "in") == ["invite", "invites"]
    assert "--json" in offered("status", "--")


def test_networks_and_members_are_offered_by_name(agent: None) -> None:
    assert offered("network", "show", "") == ["home", "work"]
    assert offered("network", "revoke", "home", "") == ["bob", "web1"]
    assert offered("network", "revoke", "work", "") == ["carol"]
    assert offered("status", "h") == ["home"]
    assert offered("ping", "c") == ["carol.work.internal"]


def test_without_an_agent_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(run: str | None, **_: object) -> None:
        raise Unreachable("the agent does not answer")

    monkeypatch.setattr(access_agent, "status", gone)
    assert offered("network", "show", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_every_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_WARREN_COMPLETE={shell}_complete" in script
    assert cli.run(["completion", shell, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["script"] == script.removesuffix("\n")


def test_another_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", "tcsh"]) == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "warren"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m warren "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(warren completion bash)"
        COMP_WORDS=(warren network in) COMP_CWORD=2
        _warren_completion warren
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    assert done.stdout.splitlines() == ["invite", "invites"]
    assert done.stderr == ""
