"""Completion in the shells themselves: bash and zsh at a terminal, where the tab key is pressed, and fish."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

PATIENCE_S = 60.0
PROMPT = "READY> "
_RC = {"bash": ".bashrc", "zsh": ".zshrc"}
_SETTINGS = {
    "bash": f"PS1='{PROMPT}'; bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'\n"
    "bind 'set completion-query-items 0'; bind 'set page-completions off'; set +o history\n",
    "zsh": f"PS1='{PROMPT}'; unset zle_bracketed_paste; unsetopt prompt_sp beep; LISTMAX=1000\n"
    "autoload -U compinit && compinit -D -u\n",
}
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|[\r\x07]")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With ``warren`` in the path, and nothing of this user's."""
    home = tmp_path_factory.mktemp("home")
    program = home / "bin/warren"
    program.parent.mkdir()
    paths = ":".join(path for path in sys.path if path)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} -m warren "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:/usr/local/bin:/usr/bin:/bin"
    names = {"WARREN_RUN": str(home / "run"), "WARREN_STATE": str(home / "state")}
    return {"PATH": path, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "dumb", "LANG": "C", **names}


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"not installed: {shell}")


def script(shell: str, environment: dict[str, str]) -> str:
    """What `warren completion` prints; asked once for each shell."""
    kept = Path(environment["HOME"], f"{shell}.script")
    if not kept.exists():
        kept.write_text(_asked_for(shell, environment))
    return kept.read_text()


def _asked_for(shell: str, environment: dict[str, str]) -> str:
    command = [Path(environment["HOME"], "bin/warren"), "completion", shell]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    return done.stdout


class Terminal:
    """A shell that reads from a terminal, on which nothing but the tab key is pressed behind what is typed."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
        self._fd = ours
        self._shell = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            cwd=environment["HOME"],
        )
        os.close(theirs)
        self._read_until(PROMPT)

    def completed(self, line: str, expected: str) -> str:
        """What is on the terminal after ``line`` and a tab, as soon as ``expected`` (a regular expression) is."""
        os.write(self._fd, f"{line}\t".encode())
        shown = self._read_until(expected)
        os.write(self._fd, b"\x15echo done-$((1+1))\n")
        self._read_until(f"done-2\n(.*\n)*{PROMPT}")
        return shown

    def close(self) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._fd)

    def _read_until(self, expected: str) -> str:
        until, shown = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < until:
            if select.select([self._fd], [], [], 1.0)[0]:
                shown += os.read(self._fd, 4096).decode(errors="replace")
                if re.search(expected, _ESCAPES.sub("", shown)):
                    return _ESCAPES.sub("", shown)
        pytest.fail(f"{expected!r} was not shown, but {shown!r}")


@pytest.fixture(params=["bash", "zsh", "zsh by its path"])
def terminal(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Terminal]:
    shell = str(request.param).partition(" ")[0]
    needs(shell)
    home = Path(environment["HOME"])
    file = home / f"functions-{shell}/_warren"
    file.parent.mkdir(exist_ok=True)
    file.write_text(script(shell, environment))
    sourced, by_path = f"{_SETTINGS[shell]}. {file}\n", f"fpath=({file.parent} $fpath)\n{_SETTINGS[shell]}"
    (home / _RC[shell]).write_text(by_path if "path" in str(request.param) else sourced)
    made = Terminal([shell, "-i"] if shell == "zsh" else [shell, "--noprofile", "-i"], environment)
    yield made
    made.close()


def test_the_tab_key_completes(terminal: Terminal) -> None:
    assert "warren completion" in terminal.completed("warren comp", r"completion ")
    shown = terminal.completed("warren connector add home x --kind ", r"port\b(.|\n)*READY> ")
    assert {"port", "tls", "http"} <= set(shown.split())
    shown = terminal.completed("warren connector add home x --service s --at tag:a --kind ht", r"--kind http")
    assert "tag:a --kind http" in shown, "words with a colon before are none of its business"


def test_bash_completes_behind_a_colon(environment: dict[str, str]) -> None:
    """It takes words apart at colons by itself: addresses, and selectors of members, have some."""
    needs("bash")
    command = """
        warren() { printf 'plain,%s\\n' 127.0.0.1:81 '*:53'; }
        env() { echo "${1//$'\\n'/ } $2" >&2; "${@:4}"; }
    """
    command += script("bash", environment)
    command += """
        COMP_WORDS=(warren forward --remove 127.0.0.1 : 8) COMP_CWORD=5
        _warren_completion warren
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", command],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stderr == "COMP_WORDS=warren forward --remove 127.0.0.1:8 COMP_CWORD=3\n"
    assert done.stdout.splitlines() == ["81", "*:53"]


def test_fish_completes_with_whole_descriptions(environment: dict[str, str]) -> None:
    needs("fish")
    home = Path(environment["HOME"])
    file = home / ".config/fish/completions/warren.fish"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(script("fish", environment))
    asked = ["warren comp", "warren connector add home x --kind "]
    done = subprocess.run(
        ["fish", "--no-config", "-c", "; ".join([f"source {file}", *(f"complete -C '{line}'" for line in asked)])],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    described, *kinds = done.stdout.splitlines()
    assert described == "completion\tPrint the completion script for bash, zsh or fish."
    assert {line.partition("\t")[0] for line in kinds} == {"port", "tls", "http"}
