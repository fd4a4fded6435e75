"""resolv.conf is borrowed: what was there comes back, and what others write meanwhile is not lost."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.dns import resolv_conf
from warren.dns.resolv_conf import ResolvConf, State
from warren.dns.upstream import Server
from warren.errors import OperationFailed

OURS = [ip_address("fd11::1")]
ORIGINAL = "# by hand\nnameserver 192.168.1.1\nnameserver 192.168.1.2\nsearch lan\noptions rotate ndots:2\n"


def _write(directory: Path, text: str = ORIGINAL) -> ResolvConf:
    (directory / "resolv.conf").write_text(text)
    return ResolvConf(directory)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def _settings(file: ResolvConf) -> list[str]:
    return [line for line in file.path.read_text().splitlines() if not line.startswith("#")]


def test_it_is_taken_and_given_back(tmp_path: Path) -> None:
    file = _write(tmp_path)
    file.path.chmod(0o640)
    before = file.path.stat()
    assert file.state() is State.FOREIGN
    assert not file.has_traces()
    file.take(OURS)
    assert file.is_taken(OURS)
    assert file.path.stat().st_mode & 0o777 == 0o644
    assert _settings(file) == [
        "nameserver fd11::1",
        "nameserver 192.168.1.1",
        "nameserver 192.168.1.2",
        "search lan",
        "options ndots:2",
    ]
    assert file.give_back() is State.INTACT
    assert file.path.read_text() == ORIGINAL
    after = file.path.stat()
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
    assert _names(tmp_path) == ["resolv.conf"]
    assert file.give_back() is State.FOREIGN
    assert file.path.read_text() == ORIGINAL


def test_the_former_servers_are_told(tmp_path: Path) -> None:
    lines = [
        "nameserver 10.0.0.1",
        "nameserver fe80::1%eth0",
        "nameserver nonsense",
        "nameserver ::1",
        "nameserver 9.9.9.9",
    ]
    file = _write(tmp_path, "\n".join(lines))
    expected = tuple(Server.parse(text) for text in ("10.0.0.1", "fe80::1%eth0", "::1"))
    assert file.former().servers == expected
    file.take(OURS)
    assert file.former().servers == expected
    assert len([line for line in _settings(file) if line.startswith("nameserver")]) == 3, "resolv.conf(5): MAXNS"


def test_taking_it_twice_keeps_the_first(tmp_path: Path) -> None:
    file = _write(tmp_path)
    file.take(OURS)
    other = [ip_address("10.7.0.1")]
    assert not file.is_taken(other)
    file.take(other)
    assert file.is_taken(other)
    assert _settings(file)[0] == "nameserver 10.7.0.1"
    assert file.kept.read_text() == ORIGINAL
    file.give_back()
    assert file.path.read_text() == ORIGINAL


def test_another_process_goes_on_with_it(tmp_path: Path) -> None:
    """As after a kill: nothing is remembered but what is in the files."""
    _write(tmp_path).take(OURS)
    later = ResolvConf(tmp_path)
    assert later.has_traces()
    assert later.is_taken(OURS)
    assert later.give_back() is State.INTACT
    assert later.path.read_text() == ORIGINAL


def test_what_replaces_it_meanwhile_counts(tmp_path: Path) -> None:
    """As a DHCP client does."""
    file = _write(tmp_path)
    file.take(OURS)
    file.path.unlink()
    file.path.write_text("nameserver 172.16.0.1\n")
    assert file.state() is State.FOREIGN
    assert not file.is_taken(OURS)
    assert file.former().servers == (Server.parse("172.16.0.1"),)
    file.take(OURS)
    assert _settings(file) == ["nameserver fd11::1", "nameserver 172.16.0.1"]
    file.give_back()
    assert file.path.read_text() == "nameserver 172.16.0.1\n"
    assert _names(tmp_path) == ["resolv.conf"]


def test_what_replaces_it_meanwhile_stays(tmp_path: Path) -> None:
    file = _write(tmp_path)
    file.take(OURS)
    file.path.write_text("nameserver 172.16.0.1\n")
    assert file.give_back() is State.FOREIGN
    assert file.path.read_text() == "nameserver 172.16.0.1\n"
    assert _names(tmp_path) == ["resolv.conf"]


@pytest.mark.parametrize("take_again", [False, True])
def test_an_edit_of_ours_is_taken_over_without_ours(tmp_path: Path, take_again: bool) -> None:
    file = _write(tmp_path)
    file.take(OURS)
    text = file.path.read_text().replace("nameserver 192.168.1.2", "nameserver 192.168.1.3") + "options attempts:1\n"
    file.path.write_text(text)
    assert file.state() is State.EDITED
    if take_again:
        file.take(OURS)
        assert file.is_taken(OURS)
        assert "nameserver 192.168.1.3" in _settings(file)
    file.give_back()
    lines = ["nameserver 192.168.1.1", "nameserver 192.168.1.3", "search lan", "options ndots:2", "options attempts:1"]
    assert file.path.read_text().splitlines() == lines
    assert _names(tmp_path) == ["resolv.conf"]


@pytest.mark.parametrize("target", ["run/stub.conf", "run/nothing.conf"])
def test_a_symbolic_link_comes_back_as_one(tmp_path: Path, target: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stub.conf").write_text("nameserver 10.0.0.53\n")
    file = ResolvConf(tmp_path)
    file.path.symlink_to(target)
    file.take(OURS)
    assert not file.path.is_symlink()
    assert (tmp_path / "run/stub.conf").read_text() == "nameserver 10.0.0.53\n", "nobody's to change"
    expected = "10.0.0.53" if target == "run/stub.conf" else "127.0.0.1"
    assert file.former().servers == (Server.parse(expected),)
    file.give_back()
    assert file.path.readlink() == Path(target)
    assert _names(tmp_path) == ["resolv.conf", "run"]


def test_what_a_link_leads_to_is_followed(tmp_path: Path) -> None:
    """NetworkManager and resolvconf write there, not here."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run/stub.conf").write_text("nameserver 10.0.0.53\n")
    file = ResolvConf(tmp_path)
    file.path.symlink_to("run/stub.conf")
    file.take(OURS)
    (tmp_path / "run/stub.conf").write_text("nameserver 10.0.0.54\n")
    assert not file.is_taken(OURS)
    file.take(OURS)
    assert _settings(file) == ["nameserver fd11::1", "nameserver 10.0.0.54"]


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_where_nothing_was_nothing_remains(tmp_path: Path, text: str | None) -> None:
    file = ResolvConf(tmp_path)
    if text is not None:
        file.path.write_text(text)
    file.take(OURS)
    assert file.former().servers == (Server.parse("127.0.0.1"),), "resolv.conf(5): no server is the local one"
    assert _settings(file) == ["nameserver fd11::1"]
    file.give_back()
    assert (file.path.read_text() if file.path.exists() else None) == text
    assert not file.has_traces()


def test_an_emptied_file_gets_its_contents_back(tmp_path: Path) -> None:
    """Which is what a kill in the middle of rewriting in place leaves, too."""
    file = _write(tmp_path)
    file.take(OURS)
    file.path.write_text("")
    assert file.has_traces()
    file.give_back()
    assert file.path.read_text() == ORIGINAL


def test_strange_bytes_survive(tmp_path: Path) -> None:
    strange = b"search caf\xe9\nnameserver 10.0.0.1\n\0\x0b\n"
    (tmp_path / "resolv.conf").write_bytes(strange)
    file = ResolvConf(tmp_path)
    file.take(OURS)
    assert file.is_taken(OURS)
    assert b"search caf\xe9\n" in file.path.read_bytes()
    file.give_back()
    assert file.path.read_bytes() == strange


def test_what_cannot_be_changed_is_said_in_one_sentence(tmp_path: Path) -> None:
    file = ResolvConf(tmp_path / "missing")
    with pytest.raises(OperationFailed, match=r"resolv\.conf cannot be changed: No such file.*fd11::1"):
        file.take(OURS)
    (tmp_path / "resolv.conf").mkdir()
    with pytest.raises(OperationFailed, match="cannot be read: Is a directory"):
        ResolvConf(tmp_path).state()


def test_a_leftover_of_an_interrupted_write_is_no_obstacle(tmp_path: Path) -> None:
    file = _write(tmp_path)
    for name in (f".resolv.conf.{os.getpid()}.new", f".resolv.conf.before-warren.{os.getpid()}.new"):
        (tmp_path / name).write_text("half")
    file.take(OURS)
    file.give_back()
    assert file.path.read_text() == ORIGINAL
    assert _names(tmp_path) == ["resolv.conf"]


def test_a_file_that_is_mounted_is_rewritten_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made beside it: the directory may be read-only, or another user's."""
    monkeypatch.setattr(resolv_conf, "_is_mounted", lambda path: True)
    monkeypatch.setattr(resolv_conf, "_replace", None)
    file = _write(tmp_path)
    (tmp_path / "run").mkdir()
    mounted = ResolvConf(tmp_path, tmp_path / "run")
    number = file.path.stat().st_ino
    mounted.take(OURS)
    assert mounted.state() is State.INTACT
    assert file.path.stat().st_ino == number
