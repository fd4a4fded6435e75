"""The command line: help, exit statuses, one line per error, and what is imported when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.support.logs import log_restored
from tests.unit.tunnel.fakes import private_key, public_key
from warren import __version__, cli
from warren.errors import OperationFailed, Unreachable, UsageError
from warren.tunnel import app

__all__ = ["log_restored"]

SECRET = private_key("own").base64
TEXT = f"""\
[Interface]
PrivateKey = {SECRET}
Address = 10.0.0.1/24, fd00::1/64
[Peer]
PublicKey = {public_key("peer").base64}
AllowedIPs = 0.0.0.0/0, 10.0.0.2
Endpoint = vpn.example.net:51820
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "home.conf"
    path.write_text(TEXT)
    path.chmod(0o600)
    return path


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"warren {__version__}\n"
    assert cli.run(["--help"]) == 0
    assert "tunnel       Run a WireGuard tunnel from a wg-quick config" in capsys.readouterr().out
    assert cli.run(["tunnel", "--help"]) == 0
    text = capsys.readouterr().out
    assert "SIGHUP             reads CONFIG again" in text
    assert "--name IF" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tunel"], "warren: No such command 'tunel'. Did you mean 'tunnel'? See `warren --help`\n"),
        (["zzz"], "warren: No such command 'zzz'; see `warren --help`\n"),
        (["network", "crate", "x"], "No such command 'crate'. Did you mean 'create'? See `warren network --help`\n"),
        (["lab", "lst"], "No such command 'lst'. Did you mean 'list'? See `warren lab --help`\n"),
        ([], "warren: Missing command; see `warren --help`\n"),
        (["coordinator"], "warren: Missing command; see `warren coordinator --help`\n"),
        (["coordinator", "token"], "warren: Missing command; see `warren coordinator token --help`\n"),
        (["completion"], "Choose from: bash, zsh, fish; see `warren completion --help`\n"),
        (["tunnel"], "warren: Missing argument 'CONFIG'; see `warren tunnel --help`\n"),
        (["forward", "--remove"], "Option '--remove' requires an argument; see `warren forward --help`\n"),
        (["network", "invite", "--ttl"], "Option '--ttl' requires an argument; see `warren network invite --help`\n"),
        (["tunnel", "--frob", "x"], "warren: No such option '--frob'; see `warren tunnel --help`\n"),
        (["tunnel", "/no/name which fits.conf"], "cannot name an interface"),
        (["install", "--remove", "--now"], "--remove goes with neither --now nor --print"),
        (["install", "--print", "--now"], "it goes without --now"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_a_malformed_config_is_status_2(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(TEXT.replace("10.0.0.2", "10.0.0.0/33"))
    assert cli.run(["tunnel", "--check", str(config)]) == 2
    form = "write it like 10.0.0.0/24 or fd00::/64"
    expected = f'warren: {config}:6: AllowedIPs: "10.0.0.0/33" is not an address range; {form}\n'
    assert capsys.readouterr().err == expected


def test_a_missing_config_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tunnel", str(tmp_path / "none.conf")]) == 1
    assert "none.conf does not exist; give the path of a wg-quick config" in capsys.readouterr().err


def test_check_tells_what_would_be_done_and_shows_no_secret(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tunnel", "--check", str(config)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"{config} is well-formed. It would make interface home with"
    assert f"  peer {public_key('peer').base64} at vpn.example.net:51820" in out
    assert "  IPv4 rule not fwmark 0xca6c table 51820 (priority 32765)" in out
    assert "  MTU 1420 of home (or what the way to the peers allows)" in out
    assert SECRET not in out


def test_check_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tunnel", "--check", "--json", "--name", "other", str(config)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["interface"] == "other"
    assert "route 0.0.0.0/0 dev other table 51820" in plan["changes"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(OperationFailed("x"), 1), (UsageError("x"), 2), (Unreachable("x"), 3), (KeyboardInterrupt(), 130)],
)
def test_each_failure_has_its_status(
    config: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int
) -> None:
    def fail(file: object) -> None:
        raise error

    monkeypatch.setattr(app, "run", fail)
    assert cli.run(["tunnel", str(config)]) == status


def test_an_error_in_json_mode_is_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("[Interface]\nMTU = x\n")
    assert cli.run(["tunnel", "--json", str(config)]) == 2
    entry = json.loads(capsys.readouterr().err)
    assert entry["level"] == "error"
    assert entry["message"].startswith(f"{config}:2: MTU:")


def test_a_bug_is_one_line_that_names_the_file_with_the_traceback(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(file: object) -> None:
        raise ZeroDivisionError(f"with a\nnew line and {SECRET}")

    monkeypatch.setattr(app, "run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("WARREN_DEBUG", raising=False)
    assert cli.run(["tunnel", "--check", str(config)]) == 0  # the key is known from here on
    capsys.readouterr()
    assert cli.run(["tunnel", str(config)]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("warren: this is a bug in Warren (ZeroDivisionError: with a\\nnew line and (hidden))")
    report = Path(err.rstrip("\n").rpartition(" ")[2])
    assert "ZeroDivisionError" in report.read_text()
    assert SECRET not in report.read_text()
    assert report.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "command",
    [
        *("", "up", "status", "ping", "login", "network", "network plan", "network invite", "completion"),
        *("coordinator", "coordinator run", "coordinator token create"),
    ],
)
def test_wanting_help_imports_nothing_heavy(command: str) -> None:
    heavy = ["pyroute2", "cryptography", "asyncio", "msgspec", "rich", "socket", "httpx2", "litestar", "sqlalchemy"]
    words = [*command.split(), "--help"]
    code = f"import sys, warren.cli; warren.cli.run({words!r}); print([m for m in sys.argv[1:] if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.startswith(f"Usage: warren {command}")
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_that_help_names_is_there() -> None:
    def check(group: click.Group, words: tuple[str, ...]) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None, (*words, name)
            assert command.help, (*words, name)
            if isinstance(command, click.Group):
                check(command, (*words, name))
            elif name != "exec":  # what that prints is another program's
                assert any("--json" in option.opts for option in command.params), (*words, name)

    check(cli.program, ())


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "warren", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False, env=environment)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.parametrize("arguments", [["--help"], ["completion", "bash"]])
def test_output_that_finds_no_room_is_told_in_one_line(arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "warren", *arguments]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, env=environment, text=True)
    why = "No space left on device"
    expected = f"warren: what this prints cannot be written ({why}); make room, or print elsewhere\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_a_group_says_of_each_command_a_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["connector", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "add Have members of NETWORK take streams for a service, and call that NAME. list" in text


def test_ctrl_c_while_modules_are_being_loaded_leaves_no_traceback() -> None:
    code = (
        "import os, signal, sys, warren.__main__ as w\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may have it ignored
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'warren.cli': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\n"
        "w.main()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


def test_a_locale_that_lacks_a_character_gets_another_one_for_it() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "latin-1:strict"}
    command = [sys.executable, "-m", "warren", "up", "--help"]
    done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"warren up 'warren-ticket:?'" in done.stdout
