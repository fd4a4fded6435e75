"""Where the access string comes from, and how it is kept."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tests.unit.cli.fakes import ACCESS, FakeAdmin, admin
from warren import cli
from warren.errors import OperationFailed, Unreachable
from warren.model.tickets import read_access

__all__ = ["admin"]

SECRET = read_access(ACCESS).secret


@pytest.fixture
def kept(admin: FakeAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which is not there yet."""
    monkeypatch.delenv("WARREN_ACCESS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "warren" / "access"


def test_login_keeps_the_access_string_for_its_owner_alone(
    admin: FakeAdmin, kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["login", ACCESS]) == 0
    assert kept.read_text() == f"{ACCESS}\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    out = capsys.readouterr().out
    assert "Logged in at https://127.0.0.1:8443" in out
    assert SECRET not in out
    assert cli.run(["network", "list"]) == 0
    assert admin.asked == [("access", SECRET)] * 2


def test_login_reads_standard_input_when_no_access_string_is_said(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["login"], ["login", "-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"  {ACCESS[:40]}\n{ACCESS[40:]}\n"))
        assert cli.run(arguments) == 0
        assert kept.read_text() == f"{ACCESS}\n"


def test_login_asks_on_a_terminal_without_showing_the_answer(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda _: ACCESS)
    assert cli.run(["login"]) == 0
    assert kept.is_file()


@pytest.mark.parametrize("error", [OperationFailed("the token has been revoked"), Unreachable("nobody answers")])
def test_an_access_string_that_does_not_work_is_not_kept(
    admin: FakeAdmin, kept: Path, monkeypatch: pytest.MonkeyPatch, error: OperationFailed | Unreachable
) -> None:
    async def networks() -> None:
        raise error

    monkeypatch.setattr(admin, "networks", networks)
    assert cli.run(["login", ACCESS]) == error.exit_status
    assert not kept.exists()


def test_what_is_no_access_string_is_refused(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["login", "warren-ticket:AAAA"]) == 2
    assert "this is a ticket, not an access string" in capsys.readouterr().err
    assert cli.run(["login", ACCESS[:-5]]) == 2
    assert "cut off or damaged" in capsys.readouterr().err
    assert not kept.exists()


def test_a_file_that_others_may_read_is_refused(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["login", ACCESS]) == 0
    for mode in (0o640, 0o604, 0o620, 0o602):
        kept.chmod(mode)
        assert cli.run(["network", "list"]) == 1
        assert f"chmod 600 {kept}" in capsys.readouterr().err
    kept.chmod(0o400)
    assert cli.run(["network", "list"]) == 0


def test_a_damaged_file_is_named(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept.parent.mkdir(parents=True)
    for content in (b"", b"\xff", ACCESS[:-3].encode()):
        kept.write_bytes(content)
        kept.chmod(0o600)
        assert cli.run(["network", "list"]) == 1
        err = capsys.readouterr().err
        assert str(kept) in err
        assert "run `warren login` again" in err


def test_without_any_access_string_the_way_to_one_is_told(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "list"]) == 2
    assert "run `warren login`" in capsys.readouterr().err


def test_the_option_comes_before_the_environment_and_that_before_the_file(
    admin: FakeAdmin, kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text("damaged")
    kept.chmod(0o600)
    monkeypatch.setenv("WARREN_ACCESS", "damaged too")
    assert cli.run(["network", "list", "--access", ACCESS]) == 0
    assert cli.run(["network", "list"]) == 2
    monkeypatch.setenv("WARREN_ACCESS", ACCESS)
    assert cli.run(["network", "list"]) == 0


def test_logout_forgets(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["login", ACCESS]) == 0
    capsys.readouterr()
    assert cli.run(["logout", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] is True
    assert not kept.exists()
    assert cli.run(["logout"]) == 0
    assert capsys.readouterr().out == "There was no access string.\n"


def test_login_as_json(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["login", "--json", ACCESS]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["networks"] == 1
    assert SECRET not in str(value)
