"""At all addresses, beside single ones where the name service of the same node is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Iterator
from ipaddress import ip_address
from typing import Literal

import dns.message
import dns.rcode
import pytest

from tests.support.l4_ends import running, state
from warren.dns.resolver import Resolver
from warren.errors import OperationFailed
from warren.l4 import listening
from warren.l4.config import Entry, Listen, Way
from warren.l4.overlay import HostSockets
from warren.linux.port_users import bound_at

OVERLAY = "127.0.0.77"
"""Stands for an address of the overlay."""
PROTOCOLS = pytest.mark.parametrize("protocol", ["udp", "tcp"])
Protocol = Literal["udp", "tcp"]
QUERY = dns.message.make_query("bob.home.internal", "A").to_wire()


async def everywhere(port: int, protocol: Protocol = "udp", beside: tuple[str, ...] = (OVERLAY,)) -> socket.socket:
    return await listening.listen(Listen(protocol=protocol, port=port, beside=beside), HostSockets())


@pytest.fixture
def port() -> int:
    """Free at all addresses, of UDP and TCP, and not one that the kernel gives to others meanwhile."""
    first = 10_000 + os.getpid() % 20_000
    return next(one for one in range(first, 32_000) if not bound_at(one, "udp") and not bound_at(one, "tcp"))


def kind_of(protocol: Protocol) -> int:
    return socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM


def refused(work: Coroutine[None, None, socket.socket]) -> str:
    with pytest.raises(OperationFailed) as error:
        asyncio.run(work).close()
    return str(error.value)


def ask(protocol: Protocol, address: str, port: int) -> bytes:
    """What is answered there; empty: nothing yet."""
    with socket.socket(socket.AF_INET, kind_of(protocol)) as sock:
        sock.settimeout(10)
        sock.connect((address, port))
        if protocol == "udp":
            sock.send(QUERY)
            return sock.recv(4096)
        sock.sendall(len(QUERY).to_bytes(2, "big") + QUERY)
        return sock.recv(4096)[2:]


async def resolver_answers(protocol: Protocol, port: int) -> bool:
    answer = await asyncio.to_thread(ask, protocol, OVERLAY, port)
    return dns.message.from_wire(answer).rcode() == dns.rcode.REFUSED  # it has no network


@PROTOCOLS
@pytest.mark.parametrize("first", ["resolver", "everywhere"])
def test_each_gets_what_is_meant_for_it_whoever_is_there_first(first: str, protocol: Protocol, port: int) -> None:
    async def main() -> None:
        resolver = Resolver(port=port)
        listener: socket.socket | None = None
        try:
            if first == "everywhere":
                listener = await everywhere(port, protocol)
            await resolver.listen([ip_address(OVERLAY)])
            listener = listener or await everywhere(port, protocol)
            for _ in range(20):
                assert await resolver_answers(protocol, port)
            with pytest.raises(BlockingIOError):
                listener.accept() if protocol == "tcp" else listener.recv(1)
            for address in ("127.0.0.1", "127.0.0.78"):
                with socket.socket(socket.AF_INET, kind_of(protocol)) as client:
                    client.connect((address, port))
                    if protocol == "tcp":
                        listener.accept()[0].close()
                    else:
                        client.send(b"hello")
                        assert listener.recv(100) == b"hello"
        finally:
            await resolver.close()
            if listener is not None:
                listener.close()

    asyncio.run(main())


@PROTOCOLS
@pytest.mark.parametrize("reuse", [False, True])
def test_another_program_is_seen_even_if_it_would_share_and_its_address_is_named(
    protocol: Protocol, reuse: bool, port: int
) -> None:
    with other(protocol, "127.0.0.53", port, reuse=reuse):
        said = refused(everywhere(port, protocol))
    assert said.startswith(f"{protocol} *:{port} is in use at 127.0.0.53 (`ss -ln{protocol[0]}p` says by what): ")
    assert 'name one address of this host instead of *, stop what is there (systemd-resolved: "DNSStubL' in said


@PROTOCOLS
@pytest.mark.parametrize("address", ["0.0.0.0", "::", "127.0.0.53"])  # noqa: S104 - tried
def test_who_comes_to_share_it_later_is_told_of(protocol: Protocol, address: str, port: int) -> None:
    where = Listen(protocol=protocol, port=port, beside=(OVERLAY,))

    async def main() -> None:
        entry = Entry(id="forward x", listen=(where,), way=Way(refusal="nobody"))
        async with running(entry) as server:
            with other(protocol, OVERLAY, port, reuse=True):
                assert state(server).state == "listening"
                with other(protocol, address, port, reuse=True):
                    found = state(server)
                    at = "127.0.0.53" if address == "127.0.0.53" else "*"
                    assert (found.state, found.places) == ("failed", (f"*:{port}",))
                    assert f"has taken {protocol} port {port} at {at} since" in found.reason
                assert state(server).state == "listening"

    asyncio.run(main())


@PROTOCOLS
@pytest.mark.parametrize("reuse", [False, True])
def test_two_do_not_share_all_addresses(protocol: Protocol, reuse: bool, port: int) -> None:
    with other(protocol, "::", port, reuse=reuse):
        assert "is in use at * (" in refused(everywhere(port, protocol))
    with asyncio.run(everywhere(port, protocol)):
        assert "is in use at * (" in refused(everywhere(port, protocol))


@PROTOCOLS
def test_whoever_has_the_very_address_of_the_name_service_keeps_it(protocol: Protocol, port: int) -> None:
    async def main() -> None:
        resolver = Resolver(port=port)
        try:
            with pytest.raises(OperationFailed, match="end the other name server there"):
                await resolver.listen([ip_address(OVERLAY)])
        finally:
            await resolver.close()

    with other(protocol, OVERLAY, port, reuse=True):
        asyncio.run(main())


def test_who_shares_nothing_is_in_nobodys_way_and_nobody_in_his(port: int) -> None:
    with asyncio.run(everywhere(port, beside=())):
        assert "is in use" in refused(everywhere(port))
        with pytest.raises(OSError, match="in use"), other("udp", OVERLAY, port, reuse=True):
            pass


def test_when_the_kernel_does_not_tell_who_has_a_port_nothing_is_shared(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(port: int, protocol: str) -> frozenset[object]:
        raise OSError(2, os.strerror(2))

    monkeypatch.setattr(listening, "bound_at", silent)
    with other("udp", OVERLAY, port, reuse=True):
        assert "in use at one address at least" in refused(everywhere(port))


def test_the_name_services_own_address_is_not_another_programs(port: int) -> None:
    where = Listen(protocol="udp", address=OVERLAY, port=port, beside=(OVERLAY,))
    with other("udp", OVERLAY, port, reuse=True):
        said = refused(listening.listen(where, HostSockets()))
    assert said.endswith("this node itself answers for names there; choose another port")


@contextlib.contextmanager
def other(protocol: Protocol, address: str, port: int, *, reuse: bool) -> Iterator[None]:
    """A program at that place; ``reuse``: it would share it with others of its user."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind_of(protocol)) as sock:
        if protocol == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # despite connections of the test before
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        if protocol == "tcp":
            sock.listen()
        yield
