"""Whether somebody takes datagrams, asked of this host's loopback."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from tests.support.l4_ends import free_port
from tests.support.l4_tools import FakeTools
from warren.l4 import probe
from warren.l4.config import Backend, Closed, Way
from warren.l4.destinations import Destinations
from warren.l4.kinds import Refused


def asked(*places: tuple[str, int], own: frozenset[int] = frozenset(), **way: Any) -> None:
    """Ask backends at ``places``. Raises Refused."""

    async def whole() -> None:
        backends = tuple(
            Backend(name=f"b{n}", side="host", host=host, port=port) for n, (host, port) in enumerate(places)
        )
        destinations = Destinations(FakeTools())
        try:
            await probe.check(destinations, Way(backends=backends, **way), lambda _: own)
        finally:
            destinations.close()

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SILENCE_S", 0.05)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_that_nobody_is_there_is_said_at_once(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SILENCE_S", 3600)
    with pytest.raises(Refused, match="b0 takes no datagrams: is the program there running") as refused:
        asked((host, free_port()))
    assert refused.value.reason == "connect"


def test_what_is_silent_is_there() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        asked(sock.getsockname())
        assert sock.recv(10, socket.MSG_DONTWAIT) == b""
        asked(("127.0.0.1", free_port()), sock.getsockname())  # one of two is enough
        asked(("localhost", sock.getsockname()[1]))  # though ::1 comes first


def test_a_name_that_does_not_resolve_is_no_backend() -> None:
    with pytest.raises(Refused, match="does not resolve"):
        asked(("nobody.invalid", 1))


def test_where_the_entry_itself_listens_is_no_backend() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(Refused, match="a loop"):
            asked(sock.getsockname(), own=frozenset({sock.getsockname()[1]}))
        with pytest.raises(BlockingIOError):
            sock.recv(10, socket.MSG_DONTWAIT)


def test_what_the_way_is_closed_to_is_not_even_asked() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(Refused, match="is not for this"):
            asked(sock.getsockname(), closed=(Closed(prefix="127.0.0.0/8", what="is not for this"),))
        with pytest.raises(BlockingIOError):
            sock.recv(10, socket.MSG_DONTWAIT)


def test_what_else_icmp_says_is_told_in_its_words() -> None:
    assert "No route to host" in str(probe.unreachable(Backend(name="x", side="host"), 113))
    assert str(probe.unreachable(None)).startswith("the backend takes no datagrams")
