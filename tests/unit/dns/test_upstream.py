"""Asking other name servers: what counts as an answer, and who is asked next. Over loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address

import dns.message
import dns.rcode
import pytest

from tests.support.name_servers import Behaviour, NameServer, response_to
from warren.dns import upstream as upstream_module
from warren.dns.upstream import Server, Upstream

QUERY = dns.message.make_query("www.example.org", "A", id=7).to_wire()
SOON_S = 0.05


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _asked(
    *behaviours: Behaviour | None, tcp: bool = False, timeout_s: float = 20.0
) -> tuple[bytes | None, list[NameServer | None]]:
    """The response when servers behave so in turn (None: nobody listens), and the servers."""

    async def run() -> tuple[bytes | None, list[NameServer | None]]:
        port = _free_port()
        async with contextlib.AsyncExitStack() as stack:
            servers: list[NameServer | None] = []
            places = []
            for number, behaviour in enumerate(behaviours, 1):
                places.append(Server(ip_address(f"127.0.1.{number}"), port))
                server = None if behaviour is None else NameServer(f"127.0.1.{number}", behaviour, port=port)
                servers.append(server and await stack.enter_async_context(server))
            return await Upstream(places, timeout_s=timeout_s).ask(QUERY, tcp=tcp), servers

    return asyncio.run(run())


def _good(query: bytes) -> list[bytes]:
    return [response_to(query, "192.0.2.1")]


def _silent(_: bytes) -> list[bytes]:
    return []


def _code(code: dns.rcode.Rcode) -> Behaviour:
    return lambda query: [response_to(query, "", code=int(code))]


def _spoiled(change: Callable[[bytearray], object]) -> Behaviour:
    def behave(query: bytes) -> list[bytes]:
        response = bytearray(response_to(query, "192.0.2.66"))
        change(response)
        return [bytes(response)]

    return behave


@pytest.mark.parametrize("tcp", [False, True])
def test_the_first_server_that_answers_counts(tcp: bool) -> None:
    response, servers = _asked(None, _good, _good, tcp=tcp)
    assert response is not None
    assert response[:2] == QUERY[:2]
    first, second = servers[1:]
    assert first is not None
    assert second is not None
    assert response[2:] == first.answered[0][2:]
    assert not second.asked


@pytest.mark.parametrize("tcp", [False, True])
def test_a_silent_server_is_given_up(tcp: bool) -> None:
    response, _ = _asked(_silent, _good, tcp=tcp, timeout_s=1.0)
    assert response is not None
    assert _asked(_silent, tcp=tcp, timeout_s=SOON_S)[0] is None


def test_a_refusal_counts_when_nobody_does_better() -> None:
    refused, failed = _code(dns.rcode.REFUSED), _code(dns.rcode.SERVFAIL)
    assert _rcode(_asked(refused, failed, _good)) == dns.rcode.NOERROR
    assert _rcode(_asked(None, refused, failed)) == dns.rcode.REFUSED
    assert _rcode(_asked(_code(dns.rcode.NXDOMAIN), _good)) == dns.rcode.NXDOMAIN


def _rcode(asked: tuple[bytes | None, object]) -> dns.rcode.Rcode:
    assert asked[0] is not None
    return dns.message.from_wire(asked[0]).rcode()


@pytest.mark.parametrize(
    "change",
    [
        lambda response: response.__setitem__(0, response[0] ^ 1),
        lambda response: response.__setitem__(2, response[2] & 0x7F),
        lambda response: response.__setitem__(14, ord("x")),
        lambda response: response.__delitem__(slice(11, None)),
    ],
    ids=["number", "no response", "question", "short"],
)
def test_what_answers_something_else_is_passed_over(change: Callable[[bytearray], object]) -> None:
    """RFC 5452: whoever has not seen the question has to guess all of it."""
    assert _asked(_spoiled(change), timeout_s=SOON_S)[0] is None
    response, _ = _asked(lambda query: [*_spoiled(change)(query), *_good(query)])
    assert response is not None
    assert b"\xc0\x00\x02\x01" in response, "the right one after it counts"
    assert _asked(_spoiled(change), tcp=True, timeout_s=SOON_S)[0] is None


def test_its_number_is_not_the_askers() -> None:
    numbers = set()
    for _ in range(8):
        _, (server,) = _asked(_good)
        assert server is not None
        numbers.add(server.asked[0][:2])
    assert len(numbers) > 1


def test_a_case_that_the_server_changes_is_no_matter() -> None:
    assert _asked(_spoiled(lambda response: response.__setitem__(13, response[13] ^ 0x20)))[0] is not None


def test_too_many_at_a_time_are_not_asked() -> None:
    async def run() -> tuple[list[bytes | None], int]:
        port = _free_port()
        upstream = Upstream([Server(ip_address("127.0.1.1"), port)], timeout_s=20.0)
        async with NameServer("127.0.1.1", _good, port=port):
            return list(await asyncio.gather(*(upstream.ask(QUERY, tcp=False) for _ in range(3)))), upstream._under_way

    before = upstream_module.QUERIES_MAX
    upstream_module.QUERIES_MAX = 2
    try:
        responses, left = asyncio.run(run())
    finally:
        upstream_module.QUERIES_MAX = before
    assert [response is None for response in responses] == [False, False, True]
    assert left == 0


def test_a_server_is_an_address() -> None:
    assert Server.parse("192.0.2.1") == Server(ip_address("192.0.2.1"), 53)
    assert Server.parse("fe80::1%eth0") is not None
    assert Server.parse("dns.example.org") is None
    assert len(Upstream([Server(ip_address(f"192.0.2.{n}")) for n in range(9)]).servers) == 3
