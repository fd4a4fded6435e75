"""Why there is no user namespace, or one without power, in words; attempts in a child process."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.linux import userns
from warren.linux.tun import Tun
from warren.linux.userns import in_child, why_no_tun, why_refused

NOT_PERMITTED = PermissionError(errno.EPERM, "unshare: Operation not permitted")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(userns, "_SETTINGS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            (
                "user namespaces are switched off for ordinary users: run as root, or `sysctl -w "
                "kernel.unprivileged_userns_clone=1`"
            ),
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            (
                "AppArmor leaves user namespaces of ordinary users without power: run as root, or allow them to "
                "Warren by a profile as docs/rootless.md has it, or to all by "
                "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
            ),
        ),
        (
            "user/max_user_namespaces",
            "0",
            "no more user namespaces are allowed: run as root, or raise the sysctl user.max_user_namespaces",
        ),
    ],
)
def test_a_setting_that_forbids_it_is_named_with_its_remedy(
    settings: Path, setting: str, value: str, words: str
) -> None:
    (settings / setting).parent.mkdir()
    (settings / setting).write_text(f"{value}\n")
    assert why_refused(NOT_PERMITTED) == words


def test_settings_that_allow_it_are_not_blamed(settings: Path) -> None:
    for setting, value in (
        ("kernel/unprivileged_userns_clone", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "0"),
        ("user/max_user_namespaces", "1000"),
    ):
        (settings / setting).parent.mkdir(exist_ok=True)
        (settings / setting).write_text(value)
    reason = why_refused(NOT_PERMITTED)
    assert reason.startswith("the kernel or the container gives no user namespace (")
    assert "--cap-add NET_ADMIN" in reason
    assert "user.max_user_namespaces" in why_refused(OSError(errno.ENOSPC, "unshare: No space left on device"))


def test_a_namespace_without_power_is_told_as_such_and_not_as_a_device(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu ≥ 23.10: unshare works, and then nothing is permitted."""
    (settings / "kernel").mkdir()
    (settings / "kernel/apparmor_restrict_unprivileged_userns").write_text("1")

    def refused(name: str, *, offloads: bool = True) -> Tun:
        raise OperationFailed(f"interface {name} may not be made") from NOT_PERMITTED

    monkeypatch.setattr(Tun, "create", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert "AppArmor leaves user namespaces of ordinary users without power" in (why_no_tun() or "")


def test_a_device_that_is_missing_or_closed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userns, "TUN_DEVICE", tmp_path / "tun")
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory")

    def refused(name: str, *, offloads: bool = True) -> Tun:
        raise OperationFailed("there is no /dev/net/tun: `modprobe tun`") from missing

    monkeypatch.setattr(Tun, "create", refused)
    assert why_no_tun() == "there is no /dev/net/tun: `modprobe tun`"
    (tmp_path / "tun").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert (why_no_tun() or "").startswith(f"this user may not open {tmp_path}/tun: run as root, or `chmod 0666")


def test_an_attempt_in_a_child_tells_what_it_found() -> None:
    assert in_child(lambda: None) is None
    assert in_child(lambda: "too bad") == "too bad"
    assert len(in_child(lambda: "long" * 1000) or "") < 1100
    here = os.getpid()
    assert in_child(lambda: "another" if os.getpid() != here else "the same") == "another"


def test_an_attempt_that_breaks_is_a_reason_too(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> str | None:
        raise RuntimeError("broken")

    def end_at_once() -> str | None:
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    assert in_child(broken) == "the attempt to make namespaces was ended from outside: run as root"
    assert "RuntimeError: broken" in capfd.readouterr().err
    assert in_child(end_at_once) == "the attempt to make namespaces was ended from outside: run as root"
