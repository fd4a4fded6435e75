"""Where the agent keeps things, by who runs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from warren.agent import places as module
from warren.agent.places import places
from warren.errors import OperationFailed, UsageError

VARIABLES = ("WARREN_STATE", "WARREN_RUN", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "_SYSTEMD", tmp_path / "users")
    monkeypatch.setattr(module, "_SHARED", tmp_path)
    monkeypatch.setenv("HOME", "/home/alice")


@pytest.fixture
def uid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    """An ordinary user's, to whom ``tmp_path`` belongs."""
    uid = 1000
    if os.geteuid() == 0:
        try:
            os.chown(tmp_path, uid, uid)
        except OSError:
            pytest.skip("a user namespace has no second user")
    else:
        uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    return uid


def own(path: Path, uid: int, mode: int = 0o700) -> Path:
    path.mkdir(mode=mode, parents=True)
    path.chmod(mode)
    os.chown(path, uid, uid)
    return path


def test_the_command_line_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("WARREN_STATE", "/from/environment")
    assert places("/said", None).state == Path("/said")
    assert places(None, None).state == Path("/from/environment")
    assert places(None, None).socket == Path("/run/warren/agent.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/0")
    monkeypatch.setenv("XDG_STATE_HOME", "/root/state")
    monkeypatch.delenv("WARREN_STATE")
    assert places() == module.Places(Path("/var/lib/warren"), Path("/run/warren"))


def test_an_ordinary_user_has_the_directories_of_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int) -> None:
    runtime = own(tmp_path / "runtime", uid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("XDG_STATE_HOME", "/states")
    where = places()
    assert where == module.Places(Path("/states/warren"), runtime / "warren")
    assert where.nest == runtime / "warren/nest.sock"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # is to be ignored
    assert places().state == Path("/home/alice/.local/state/warren")


def test_without_a_runtime_directory_there_is_that_of_a_login_or_one_in_tmp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int
) -> None:
    assert places().run == tmp_path / f"warren-{uid}"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert places().run == tmp_path / f"warren-{uid}"
    login = own(tmp_path / "users" / str(uid), uid)
    assert places().run == login / "warren"


def test_a_run_directory_has_room_for_the_names_of_sockets(tmp_path: Path) -> None:
    for length, fits in ((71, True), (72, False)):
        where = places(str(tmp_path), "/" + "r" * (length - 1))
        longest = os.fsencode(where.planes / "w-123456789012345.control")
        assert (len(longest) <= 107) == fits
        if fits:
            where.check()
        else:
            with pytest.raises(UsageError, match="at most 71 bytes"):
                where.check()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
def test_directories_of_others_are_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uid: int) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own(tmp_path / "runtime", uid + 1)))  # as su(1) leaves it
    path = tmp_path / f"warren-{uid}"
    assert places().run == path
    own(path, uid + 1)
    with pytest.raises(OperationFailed, match="not a private directory of this user; remove it"):
        places()


@pytest.mark.parametrize("kind", ["open to others", "link", "file"])
def test_what_is_not_private_in_tmp_is_refused(tmp_path: Path, uid: int, kind: str) -> None:
    path = tmp_path / f"warren-{uid}"
    if kind == "open to others":
        own(path, uid, 0o755)
    elif kind == "link":
        path.symlink_to(own(tmp_path / "elsewhere", uid))
    else:
        path.write_text("")
        os.chown(path, uid, uid)
    with pytest.raises(OperationFailed, match="is not a private directory"):
        places()
    path.unlink() if kind != "open to others" else path.chmod(0o700)
    assert places().run == path
