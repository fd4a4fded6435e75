"""Which file is meant, and what reading it may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.tunnel.fakes import private_key
from warren.errors import OperationFailed, UsageError
from warren.tunnel.files import ConfigFile, load, locate

TEXT = f"[Interface]\nPrivateKey = {private_key('own').base64}\n"


@pytest.mark.parametrize(
    ("argument", "name", "path", "interface"),
    [
        ("home", None, "/etc/wireguard/home.conf", "home"),
        ("home", "other", "/etc/wireguard/home.conf", "other"),
        ("home.conf", None, "home.conf", "home"),
        ("./x/wg0.conf", None, "x/wg0.conf", "wg0"),
        ("/a/a-name-that-is-too-long.conf", "wg1", "/a/a-name-that-is-too-long.conf", "wg1"),
        ("/a/plain", None, "/a/plain", "plain"),
        ("a_=+.-9", None, "/etc/wireguard/a_=+.-9.conf", "a_=+.-9"),
    ],
)
def test_which_file_and_interface_are_meant(argument: str, name: str | None, path: str, interface: str) -> None:
    assert locate(argument, name) == ConfigFile(Path(path), interface)


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("/a/a-name-that-is-too-long.conf", None),
        ("/a/b c.conf", None),
        ("/a/lo.conf", None),
        ("home", ".."),
        ("/", None),
    ],
)
def test_a_name_that_linux_would_not_take_is_refused(argument: str, name: str | None) -> None:
    with pytest.raises(UsageError, match="cannot name an interface"):
        locate(argument, name)


def _file(tmp_path: Path, data: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "home.conf"
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_a_config_is_loaded(tmp_path: Path) -> None:
    loaded = load(_file(tmp_path, TEXT.encode()))
    assert loaded.config.private_key == private_key("own")
    assert loaded.warnings == ()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_loose_permissions_draw_a_warning(tmp_path: Path, mode: int) -> None:
    path = _file(tmp_path, TEXT.encode(), mode)
    assert load(path).warnings == (f"{path} holds a private key and is open to other users; run `chmod 600 {path}`",)


def test_a_missing_file_and_a_directory_are_said(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match=r"none\.conf does not exist; give the path of a wg-quick config"):
        load(tmp_path / "none.conf")
    with pytest.raises(OperationFailed, match="is a directory"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (TEXT.encode("utf-16"), r"home\.conf: the file is UTF-16; save it as UTF-8"),
        (TEXT.encode() + b"\n# caf\xe9\n", r"home\.conf:4: the file is not UTF-8 text here"),
        (b"\0" * 100, r"home\.conf:1: a key stands before any section"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(_file(tmp_path, data))
