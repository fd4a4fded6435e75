"""The relay that a coordinator brings, as a real process on loopback."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.coordinators import Node, World, run
from tests.support.waiting import first, until
from warren.coordinator import own_relay
from warren.coordinator.own_relay import OwnRelay, relaying
from warren.model.documents import Relay

URLS = ("https://127.0.0.1:8443", "https://relay.example:8443", "https://127.0.0.1:9443")
ANY = OwnRelay(udp_port=0, tls_port=0)


async def offered(w: World) -> tuple[Relay, ...]:
    spec = (await w.map()).spec
    assert spec is not None
    return spec.relays


def test_members_are_offered_what_is_really_served(tmp_path: Path) -> None:
    async def scenario(w: World) -> None:
        async with relaying(ANY, w.service, tmp_path, URLS) as ready:
            assert ready is not None
            (relay,) = await offered(w)
            assert relay.hosts == ("127.0.0.1", "relay.example")
            assert (relay.udp_port, relay.tls_port) == (ready.udp_port, ready.tls_port)
            assert relay.certificate_sha256 == ready.certificate_sha256
            access = await w.service.relay_access(w.key, Node(1).key)
            assert [one.relay for one in access.credentials] == [relay.name]
        same = OwnRelay(relay.udp_port, relay.tls_port)
        async with relaying(same, w.service, tmp_path, URLS):
            before = (await w.map()).spec
        async with relaying(same, w.service, tmp_path, URLS):
            assert (await w.map()).spec == before
        async with relaying(None, w.service, tmp_path, URLS) as nothing:
            assert nothing is None
            assert await offered(w) == ()

    run(scenario)


def test_a_relay_that_dies_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_relay, "AGAIN_FIRST_S", 0.0)
    started: list[own_relay.RelayProcess] = []

    class Noted(own_relay.RelayProcess):
        async def start(self) -> own_relay.Ready:
            ready = await super().start()
            started.append(self)
            return ready

    monkeypatch.setattr(own_relay, "RelayProcess", Noted)

    async def scenario(w: World) -> None:
        async with relaying(ANY, w.service, tmp_path, URLS):
            (first,) = started
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
            await until(lambda: len(started) == 2)
            assert started[1].pid != first.pid

    run(scenario)


def test_a_port_that_is_taken_is_no_reason_not_to_serve(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(w: World) -> None:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
            port = taken.getsockname()[1]
            async with relaying(OwnRelay(0, port), w.service, tmp_path, URLS) as ready:
                assert ready is not None
                assert ready.tls_port is None
                assert "does without TLS" in caplog.text
            async with relaying(OwnRelay(None, port), w.service, tmp_path / "other", URLS) as ready:
                assert ready is None
                assert "get no relay" in caplog.text

    (tmp_path / "other").mkdir()
    run(scenario)


def test_a_udp_port_that_is_taken_is_told_once_and_the_whole_relay_comes_when_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(own_relay, "AGAIN_FIRST_S", 0.0)

    async def scenario(w: World) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
            taken.bind(("::", 0))
            port = taken.getsockname()[1]
            async with relaying(OwnRelay(port, 0), w.service, tmp_path, URLS) as ready:
                assert ready is None
                assert "without TLS" not in caplog.text
                assert caplog.text.count("get no relay") == 1
                taken.close()
                (relay,) = await first(lambda: offered(w))
                assert (relay.udp_port, relay.tls_port is None) == (port, False)
                assert "the relay ended" not in caplog.text

    run(scenario)
