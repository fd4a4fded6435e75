"""What the host has to have: named tables, a resolver, ports, a TUN device, one controller per tunnel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.tunnel import preflight
from warren.tunnel.dns import Resolvconf, SystemdResolved, find_resolver
from warren.tunnel.journal import Journal, controlling
from warren.tunnel.tables import number_of


def test_tables_by_number_and_name(tmp_path: Path) -> None:
    (tmp_path / "rt_tables.d").mkdir()
    (tmp_path / "rt_tables").write_text("# comment\n255\tlocal\n100 vpn # mine\nnonsense\n0x65 hex\n")
    (tmp_path / "rt_tables.d" / "a.conf").write_text("200 more\n")
    for name, number in {"vpn": 100, "hex": 101, "more": 200, "main": 254, "default": 253, 7: 7}.items():
        assert number_of(name, [tmp_path]) == number
    assert number_of("auto", [tmp_path]) is None
    assert number_of("off", [tmp_path]) is None
    with pytest.raises(OperationFailed, match='no routing table is named "other"; give its number, or add a line'):
        number_of("other", [tmp_path])


def test_the_resolver_is_resolvconf_then_resolved_else_none(tmp_path: Path) -> None:
    assert isinstance(find_resolver(lambda name: name, tmp_path), Resolvconf)
    assert isinstance(find_resolver(lambda name: name if name == "resolvectl" else None, tmp_path), SystemdResolved)
    with pytest.raises(OperationFailed, match="DNS is in the config, but neither resolvconf nor systemd-resolved"):
        find_resolver(lambda name: name if name == "resolvectl" else None, tmp_path / "not running")


def test_a_port_in_use_is_said() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(OperationFailed, match=rf"UDP port {port} is taken; choose another ListenPort"):
            preflight.check_port(port)
    preflight.check_port(0)


def test_a_missing_or_forbidden_tun_device_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match=r"tun is missing; run `modprobe tun`"):
        preflight.check_tun(tmp_path / "tun")
    with pytest.raises(OperationFailed, match="cannot be opened: Is a directory"):
        preflight.check_tun(tmp_path)


def test_one_tunnel_has_one_controller(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    with controlling("home", directory):
        refused = pytest.raises(OperationFailed, match=rf"home is run by process {os.getpid()} already; stop it")
        with refused, controlling("home", directory):
            pass
        with controlling("other", directory):
            pass
    with controlling("home", directory):
        pass
    assert list(directory.iterdir()) == []


def test_a_journal_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    for content in ("", "{", '{"made": [{"kind": "x"}], "ready": true}', "[]", '{"made": 1, "ready": true}'):
        (tmp_path / "home.warren").write_text(content)
        journal = Journal.read("home", tmp_path)
        assert journal.made == frozenset()
        assert not journal.ready
