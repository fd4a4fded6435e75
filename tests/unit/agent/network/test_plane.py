"""The data plane of one network: adopted, started again, and left to whom it belongs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.agent.fakes import (
    FakeNode,
    FakePlane,
    pass_time,
    replace_struct,
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.agent.config import AgentConfig
from warren.errors import Unreachable
from warren.identity.keys import PrivateKey
from warren.model.tunnel import TunnelChange, TunnelStatus


def test_a_killed_agent_leaves_traffic_running_and_the_next_one_takes_over(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        before = pair.a.plane
        assert await pair.passes(pair.a, pair.b)
        await pair.a.kill()
        assert await pair.passes(pair.a, pair.b)
        pair.a = await pair.again(pair.a)
        await settle(pair.a, pair.b)
        assert pair.a.plane is before
        assert await pair.passes(pair.a, pair.b)
        assert pair.a.runner.situation.status().state == "up"

    scenario(work, tmp_path)


def test_an_adoption_touches_nothing_that_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pair: Pair) -> None:
        changes: list[TunnelChange] = []
        real = pair.a.plane.configure

        async def configure(change: TunnelChange) -> None:
            changes.append(change)
            await real(change)

        monkeypatch.setattr(pair.a.plane, "configure", configure)
        await pair.a.kill()
        routes = await pair.a.host.netlink.routes()
        pair.a = await pair.again(pair.a, connect=False)
        await settle(pair.a)
        assert changes == []
        assert await pair.a.host.netlink.routes() == routes

    scenario(work, tmp_path)


def test_a_restart_needs_no_coordinator(tmp_path: Path) -> None:
    async def main() -> None:
        pair = await Pair(tmp_path).start()
        await pair.end()
        pair.coordinator.away = True
        pair.a, pair.b = (FakeNode(node.host, pair.coordinator, "", new=False) for node in (pair.a, pair.b))
        for node in (pair.a, pair.b):
            node.link.connect()
        await settle(pair.a, pair.b)
        await pair.time(5)
        assert await pair.passes(pair.a, pair.b)
        status = pair.a.runner.situation.status()
        assert (status.state, status.coordinator.connected) == ("up", False)
        assert "no coordinator answers" in status.coordinator.error
        await pair.end()

    asyncio.run(main())


@pytest.mark.logs_errors
def test_a_data_plane_that_dies_is_started_again_with_everything(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        port = pair.a.runner.situation.status().listen_port
        await pair.a.plane.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await pair.time(6)
        assert pair.a.runner.situation.status().listen_port == port
        assert pair.a.runner.situation.status().state == "up"
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


@pytest.mark.logs_errors
def test_a_data_plane_that_does_not_start_is_tried_ever_more_rarely(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        pair.a.host.failing_starts = 3
        await pair.a.plane.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await pair.time(4)
        assert pair.a.runner.situation.status().state == "degraded"
        assert pair.a.host.failing_starts > 0
        await pair.time(30)
        assert pair.a.runner.situation.status().state == "up"

    scenario(work, tmp_path)


@pytest.mark.logs_errors
def test_a_data_plane_that_never_answers_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(pair: Pair) -> None:
        async def status() -> TunnelStatus:
            raise Unreachable("the data plane does not answer")

        hung = pair.a.plane
        monkeypatch.setattr(hung, "status", status)
        for _ in range(30):
            await pair.time(1)
            await asyncio.sleep(0)
        assert hung.ended.is_set()
        assert pair.a.plane is not hung
        assert pair.a.runner.situation.status().state == "up"
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


@pytest.mark.parametrize("stated", [True, False])
def test_a_port_that_is_taken_is_left_to_who_has_it(tmp_path: Path, stated: bool) -> None:
    async def main() -> None:
        pair = Pair(tmp_path, AgentConfig(listen_port=4711) if stated else None)
        node = await pair.node("a", "192.0.2.10")
        other = FakePlane(pair.underlay, "wg0", "192.0.2.10", node.host.netlink)
        await other.configure(TunnelChange(listen_port=4711))
        node.runner.state.write(replace_struct(node.runner.state.settings, listen_port=4711))
        await pass_time(pair.underlay, 12, node)
        status = node.runner.situation.status()
        if stated:
            assert status.state == "degraded"
            assert "UDP port 4711 of 192.0.2.10 is taken" in repr(status.tasks)
            await other.close()
            await pass_time(pair.underlay, 12, node)
            assert node.runner.situation.status().listen_port == 4711
        else:
            assert status.listen_port != 4711
            assert (await node.plane.status()).listen_port == status.listen_port
            await other.close()
        assert node.runner.situation.status().state == "up"
        await node.end()

    asyncio.run(main())


def test_a_foreign_interface_of_the_name_is_left_alone(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        node = await pair.node("a", "192.0.2.10")
        node.host.netlink.add_link("w-home", 1500, "tun")
        await settle(node)
        assert node.runner.situation.interface != "w-home"
        assert node.runner.situation.interface.startswith("w-home-")
        assert node.runner.situation.status().state == "up"
        await node.end()
        assert "w-home" in [link.name for link in await node.host.netlink.links()]

    asyncio.run(main())


@pytest.mark.parametrize("foreign", ["program", "key"])
def test_a_data_plane_of_somebody_else_is_not_taken_over(tmp_path: Path, foreign: str) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        node = await pair.node("a", "192.0.2.10")
        plane = await node.host.start("w-home", 1420)
        plane.ours = foreign != "program"
        if foreign == "key":
            await plane.configure(TunnelChange(private_key=PrivateKey(bytes([7]) * 32)))
        await settle(node)
        assert node.runner.situation.interface != "w-home"
        assert not plane.ended.is_set()
        await node.end()
        await plane.close()

    asyncio.run(main())


def test_a_node_that_comes_back_with_a_new_data_plane_calls_the_others(tmp_path: Path) -> None:
    """Otherwise they would send to the sessions of before until WireGuard doubts them, 15 s later."""

    async def work(pair: Pair) -> None:
        await pair.a.plane.close()
        pair.a = await pair.again(pair.a)
        await settle(pair.a)
        await pair.time(2)
        (peer,) = (await pair.a.plane.status()).peers
        assert peer.last_handshake_ns > 0
        await pair.time(15)
        (peer,) = (await pair.a.plane.status()).peers
        assert peer.persistent_keepalive_s == 0

    scenario(work, tmp_path)
