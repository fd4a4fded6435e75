"""Places become sockets, or sentences with what to do."""

from __future__ import annotations

import asyncio
import errno
import socket
import stat
from pathlib import Path

import pytest

from tests.support.l4_ends import client, read_all
from warren.errors import OperationFailed
from warren.l4 import listening
from warren.l4.config import Listen
from warren.l4.overlay import HostSockets


def opened(where: Listen, sockets: object = None) -> socket.socket:
    return asyncio.run(listening.listen(where, sockets or HostSockets()))  # type: ignore[arg-type]


def refused(where: Listen, sockets: object = None) -> str:
    with pytest.raises(OperationFailed) as error:
        opened(where, sockets).close()
    return str(error.value)


def test_without_an_address_both_ip_versions_come_to_one_socket() -> None:
    async def main() -> None:
        with await listening.listen(Listen(), HostSockets()) as sock:
            port = sock.getsockname()[1]
            assert listening.place_of(sock) == f"*:{port}"
            loop = asyncio.get_running_loop()
            async with client(port):
                connection, name = await loop.sock_accept(sock)
                connection.close()
                found = listening.transport_address(name)
                assert found is not None
                assert str(found.ip) == "127.0.0.1"

    asyncio.run(main())


def test_an_ipv6_address_takes_ipv6_alone() -> None:
    with opened(Listen(address="::1")) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
        assert listening.place_of(sock) == f"[::1]:{sock.getsockname()[1]}"


class NoIPv6(HostSockets):
    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no")
        return await super().open(family, kind, protocol)


def test_a_host_without_ipv6_listens_everywhere_on_ipv4() -> None:
    with opened(Listen(side="overlay"), NoIPv6()) as sock:
        assert (sock.family, listening.place_of(sock)[:2]) == (socket.AF_INET, "*:")


def test_datagrams_are_bound_and_not_listened_for() -> None:
    with opened(Listen(protocol="udp", address="127.0.0.1")) as sock:
        assert sock.type == socket.SOCK_DGRAM
        assert sock.getsockname()[1]


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with opened(Listen(address="127.0.0.1")) as sock:
        port = sock.getsockname()[1]
        sentence = refused(Listen(address="127.0.0.1", port=port))
    assert f"tcp 127.0.0.1:{port} is in use by another program" in sentence
    assert "`ss -lntp`" in sentence


def test_all_addresses_cannot_be_had_where_one_is_in_use() -> None:
    with opened(Listen(protocol="udp", address="127.0.0.1")) as sock:
        port = sock.getsockname()[1]
        sentence = refused(Listen(protocol="udp", port=port))
    assert sentence.startswith(f"udp *:{port} is in use at one address at least (`ss -lnup` says by what): name one")
    assert "another program" not in sentence


def test_an_address_of_somebody_else_is_named_unless_it_may_come_later() -> None:
    assert "this host has no address 192.0.2.77" in refused(Listen(address="192.0.2.77", port=1))
    with opened(Listen(address="192.0.2.77", freebind=True)) as sock:
        assert sock.getsockname()[0] == "192.0.2.77"


def test_other_reasons_are_told_too() -> None:
    class Forbidden(HostSockets):
        async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
            raise PermissionError(errno.EACCES, "no")

    assert "ports below 1024 need root" in refused(Listen(side="overlay", address="127.0.0.1", port=80), Forbidden())


def test_a_path_is_for_its_owner_alone_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with opened(Listen(path=str(path))) as sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert listening.place_of(sock) == f"unix:{path}"


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    opened(Listen(path=str(path))).close()
    assert path.exists()
    with opened(Listen(path=str(path))):
        assert "another program listens" in refused(Listen(path=str(path)))
        assert path.is_socket()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert "is no socket" in refused(Listen(path=str(path)))
    assert path.read_text() == "precious"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "no such directory" in refused(Listen(path=str(tmp_path / "none" / "s.sock")))


def test_only_the_own_socket_file_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with opened(Listen(path=str(path))):
        known = listening.identity(str(path))
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            listening.unlink(str(path), known)
            assert path.is_socket()
            listening.unlink(str(path), listening.identity(str(path)))
            assert not path.exists()
            listening.unlink(str(path), known)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (("192.0.2.1", 5), "192.0.2.1:5"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1:5"),
        (("2001:db8::1", 5, 0, 3), "[2001:db8::1]:5"),
        (("fe80::1%eth0", 5, 0, 3), "[fe80::1%3]:5"),
    ],
)
def test_addresses_are_normalised(name: tuple[object, ...], text: str) -> None:
    assert str(listening.transport_address(name)) == text


def test_unix_sockets_have_no_address() -> None:
    assert listening.transport_address("") is None
    assert listening.transport_address("/x") is None


def test_what_is_accepted_has_the_options_of_its_listener() -> None:
    async def main() -> None:
        with await listening.listen(Listen(address="127.0.0.1"), HostSockets()) as sock:
            async with client(sock.getsockname()[1]) as asking:
                connection, _ = await asyncio.get_running_loop().sock_accept(sock)
                with connection:
                    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                    assert idle == listening.KEEPALIVE_IDLE_S
                assert await read_all(asking) == b""

    asyncio.run(main())
