"""Names in the nest of the rootless engine: a file for its programs; the host's own is only read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.dns.nest import NestDns
from warren.dns.resolv_conf import ResolvConf
from warren.dns.resolver import Resolver
from warren.dns.upstream import Server
from warren.errors import OperationFailed

HOME, WORK = ip_address("fd11::1"), ip_address("fd22::1")
THEIRS = "nameserver 192.168.1.1\nsearch lan\noptions rotate ndots:2\n"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """The host's /etc."""
    directory = tmp_path / "etc"
    directory.mkdir()
    (directory / "resolv.conf").write_text(THEIRS)
    return directory


def made(tmp_path: Path, host: Path) -> tuple[NestDns, Path, list[tuple[Server, ...]]]:
    forwards: list[tuple[Server, ...]] = []
    file = tmp_path / "resolv.conf"
    return NestDns(lambda servers: forwards.append(tuple(servers)), file, ResolvConf(host, tmp_path)), file, forwards


def settings(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if not line.startswith("#")]


def test_programs_ask_us_and_we_ask_whom_the_host_asks(tmp_path: Path, host: Path) -> None:
    nest, file, forwards = made(tmp_path, host)
    asyncio.run(nest.engage("w-home", HOME, ("home.internal",)))
    assert settings(file) == ["nameserver fd11::1", "search lan", "options ndots:2"]
    assert forwards == [(Server(ip_address("192.168.1.1")),)]
    assert file.stat().st_mode & 0o777 == 0o644
    assert (host / "resolv.conf").read_text() == THEIRS
    assert [path.name for path in host.iterdir()] == ["resolv.conf"]


def test_programs_that_run_see_every_change_in_the_file_that_they_have(tmp_path: Path, host: Path) -> None:
    nest, file, forwards = made(tmp_path, host)
    asyncio.run(nest.engage("w-home", HOME, ()))
    inode = file.stat().st_ino
    asyncio.run(nest.engage("w-work", WORK, ()))
    assert settings(file)[:2] == ["nameserver fd11::1", "nameserver fd22::1"]
    asyncio.run(nest.disengage("w-home"))
    (host / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    asyncio.run(nest.check())
    assert settings(file) == ["nameserver fd22::1"]
    assert forwards[-1] == (Server(ip_address("9.9.9.9")),)
    count = len(forwards)
    asyncio.run(nest.check())
    assert len(forwards) == count
    assert file.stat().st_ino == inode
    asyncio.run(nest.disengage("w-work"))
    assert not file.exists()
    assert forwards[-1] == ()
    asyncio.run(nest.disengage("w-work"))


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path, host: Path) -> None:
    nest, file, _ = made(tmp_path, host)
    file.mkdir()
    with pytest.raises(OperationFailed, match=r"resolv\.conf cannot be written: Is a directory"):
        asyncio.run(nest.engage("w-home", HOME, ()))
    with pytest.raises(OperationFailed, match="cannot be removed"):
        asyncio.run(nest.restore())


def test_a_link_somebody_put_there_is_not_followed(tmp_path: Path, host: Path) -> None:
    nest, file, _ = made(tmp_path, host)
    file.symlink_to(host / "resolv.conf")
    with pytest.raises(OperationFailed, match="cannot be written"):
        asyncio.run(nest.engage("w-home", HOME, ()))
    assert (host / "resolv.conf").read_text() == THEIRS


def test_a_resolver_without_a_nest_says_why_it_cannot_listen() -> None:
    async def refuse(_family: int, _kind: int) -> object:
        raise OperationFailed("no rootless engine answers")

    async def scenario(open_socket: Callable[..., object]) -> None:
        resolver = Resolver(open_socket=open_socket)  # type: ignore[arg-type]
        try:
            with pytest.raises(OperationFailed, match=r"port 53 of fd11::1 \(no rootless engine answers\)"):
                await resolver.listen([HOME])
            assert resolver.addresses == frozenset()
        finally:
            await resolver.close()

    asyncio.run(scenario(refuse))
