"""How resolver programs are called, with programs that write down what they were told."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.tunnel import dns
from warren.tunnel.dns import Resolvconf, SystemdResolved
from warren.tunnel.items import Dns

DNS = Dns("home", (ip_address("10.0.0.53"), ip_address("fd00::53")), ("lan", "example.net"))


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the programs were told."""
    log = tmp_path / "said"
    for name in ("resolvconf", "resolvectl"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\ncat >> {log}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(dns, "_INTERFACE_ORDER", tmp_path / "interface-order")
    return log


def test_resolvconf(said: Path) -> None:
    asyncio.run(Resolvconf().set(DNS))
    asyncio.run(Resolvconf().unset("home"))
    assert said.read_text() == (
        "resolvconf -a home -m 0 -x\nnameserver 10.0.0.53\nnameserver fd00::53\nsearch lan example.net\n"
        "resolvconf -d home -f\n"
    )


def test_debians_resolvconf_gets_the_prefix_of_tunnels(said: Path, tmp_path: Path) -> None:
    (tmp_path / "interface-order").write_text("# comment\nlo\ntun*\ntap*\n")
    asyncio.run(Resolvconf().unset("home"))
    assert said.read_text() == "resolvconf -d tun.home -f\n"


def test_systemd_resolved(said: Path) -> None:
    asyncio.run(SystemdResolved().set(DNS))
    asyncio.run(SystemdResolved().unset("lo"))
    assert said.read_text() == (
        "resolvectl dns home 10.0.0.53 fd00::53\nresolvectl domain home lan example.net ~.\n"
        "resolvectl default-route home yes\nresolvectl revert lo\n"
    )


def test_a_program_that_fails_says_why(said: Path, tmp_path: Path) -> None:
    (tmp_path / "resolvectl").write_text("#!/bin/sh\necho 'Unit not found' >&2\nexit 1\n")
    with pytest.raises(OperationFailed, match="`resolvectl revert lo` failed: Unit not found"):
        asyncio.run(SystemdResolved().unset("lo"))
