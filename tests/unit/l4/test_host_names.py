"""Names that the host's resolver knows, asked seldom and forgotten in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.support.l4_ends import LIMIT_S
from warren.l4 import host_names
from warren.l4.config import Backend
from warren.l4.host_names import NAME_S, HostNames
from warren.l4.kinds import Refused


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Resolver:
    """Knows all names, and which it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[object]:
        self.asked.append(host)
        return [(socket.AF_INET, 1, 6, "", ("192.0.2.7", port))] * 2


def run(monkeypatch: pytest.MonkeyPatch, main: Callable[[HostNames, Clock, Resolver], Awaitable[None]]) -> None:
    async def limited() -> None:
        clock, resolver = Clock(), Resolver()
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolver.getaddrinfo)
        async with asyncio.timeout(LIMIT_S):
            await main(HostNames(clock), clock, resolver)

    asyncio.run(limited())


def web(host: str) -> Backend:
    return Backend(name="web", side="host", host=host, port=80)


def test_an_answer_is_used_again_for_a_moment_and_an_address_is_not_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main(names: HostNames, clock: Clock, resolver: Resolver) -> None:
        for host, count in (("a.example", 1), ("a.example", 1), ("192.0.2.7", 1), ("b.example", 2)):
            assert [str(ip) for ip in await names.addresses(web(host), 1.0)] == ["192.0.2.7"]
            assert len(resolver.asked) == count
        clock.now += NAME_S
        await names.addresses(web("a.example"), 1.0)
        assert resolver.asked == ["a.example", "b.example", "a.example"]

    run(monkeypatch, main)


def test_how_many_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_names, "NAMES_MAX", 3)

    async def main(names: HostNames, clock: Clock, resolver: Resolver) -> None:
        for number in range(5):
            await names.addresses(web(f"{number}.example"), 1.0)
            assert len(names._names) <= 3

    run(monkeypatch, main)


def test_what_is_no_name_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(names: HostNames, clock: Clock, resolver: Resolver) -> None:
        async def unusable(host: str, port: int, **_: object) -> list[object]:
            raise UnicodeError("label too long")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unusable)
        with pytest.raises(Refused, match="it is no name: correct the name") as refused:
            await names.addresses(web("a" * 64), 1.0)
        assert refused.value.reason == "unresolved"

    run(monkeypatch, main)
