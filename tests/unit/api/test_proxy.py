"""A coordinator behind an HTTP proxy, which many company networks have as their only way out."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.http_proxy import HttpProxy
from tests.unit.coordinator.web.harness import running
from warren.api.node_connection import Doors
from warren.api.trust import establish_trust
from warren.errors import OperationFailed, Unreachable
from warren.model.documents import Coordinator


def test_trust_and_the_link_go_through_the_proxy() -> None:
    async def scenario() -> None:
        async with running() as coordinator, HttpProxy().serving() as proxy:
            key = coordinator.service.identity.verify_key
            doors = Doors(time.time, proxy.url)
            connection = await doors.open(Coordinator(url=coordinator.url, key=key.raw))
            assert await connection.receive(asyncio.Event(), 10.0)
            await connection.close()
            assert proxy.asked == [f"CONNECT {coordinator.url.removeprefix('https://')} HTTP/1.1"] * 2

    asyncio.run(scenario())


def test_the_proxy_of_the_environment_is_used_and_no_proxy_spares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running() as coordinator, HttpProxy().serving() as proxy:
            key = coordinator.service.identity.verify_key
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.delenv("NO_PROXY", raising=False)
            monkeypatch.delenv("no_proxy", raising=False)
            await establish_trust([coordinator.url], key)
            assert len(proxy.asked) == 1
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            await establish_trust([coordinator.url], key)
            assert len(proxy.asked) == 1

    asyncio.run(scenario())


def test_a_proxy_that_refuses_is_named_as_the_reason() -> None:
    async def scenario() -> None:
        async with running() as coordinator, HttpProxy(refuses=True).serving() as proxy:
            key = coordinator.service.identity.verify_key
            with pytest.raises(Unreachable, match="403 Forbidden"):
                await establish_trust([coordinator.url], key, proxy=proxy.url)

    asyncio.run(scenario())


def test_a_socks_proxy_in_the_environment_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:9")
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.delenv(name, raising=False)
            with pytest.raises(OperationFailed, match="SOCKS"):
                await establish_trust([coordinator.url], coordinator.service.identity.verify_key)

    asyncio.run(scenario())
