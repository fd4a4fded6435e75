"""What one network wants of the host is made so, and made so again."""

from __future__ import annotations

import asyncio
import random
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path

from tests.unit.agent.fakes import (
    FakeCoordinator,
    FakeHost,
    FakeNode,
    pass_time,
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario, table_of
from warren.engine.memory import MemoryNetwork
from warren.linux.netlink_values import Address, Route


def test_the_policy_stands_before_the_interface_is_up(tmp_path: Path) -> None:
    """A table that cannot be loaded, not even a closed one, keeps the interface down."""

    async def main() -> None:
        pair = Pair(tmp_path)
        node = await pair.node("a", "192.0.2.10")
        node.host.nft.forbidden = "table"
        await settle(node)
        (link,) = [link for link in await node.host.netlink.links() if link.name == "w-home"]
        assert not link.up
        failed = [task.name for task in node.runner.situation.status().tasks if task.state == "failed"]
        assert "policy" in failed
        node.host.nft.forbidden = None
        await pass_time(pair.underlay, 10, node)
        (link,) = [link for link in await node.host.netlink.links() if link.name == "w-home"]
        assert link.up
        assert node.runner.situation.status().state == "up"
        await node.end()

    asyncio.run(main())


def test_a_policy_that_nftables_refuses_lets_nothing_in(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        pair.a.host.nft.forbidden = "rule 0"
        pair.coordinator.enrol(pair.coordinator.authority.verify_key, "c")  # its prefix changes the rules
        await pair.time(2)
        contents = repr(pair.a.host.nft.contents[table_of(pair.a)])
        assert "rule 0" not in contents
        assert "drop" in contents
        assert pair.a.runner.situation.status().state == "degraded"

    scenario(work, tmp_path)


def test_what_others_change_on_the_interface_is_put_right(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        netlink, interface = pair.a.host.netlink, pair.a.runner.situation.interface
        foreign = Address(interface, ip_interface("10.9.9.9/32"))
        await netlink.add_address(foreign)
        (route,) = [r for r in await netlink.routes() if r.network == ip_network("10.77.0.0/16")]
        await netlink.remove_route(route)
        pair.a.host.nft.run([{"delete": {"table": table_of(pair.a)._asdict()}}])
        pair.a.runner.network_changed()
        await settle(pair.a)
        assert foreign not in await netlink.addresses()
        assert route in await netlink.routes()
        assert table_of(pair.a) in pair.a.host.nft.tables()

    scenario(work, tmp_path)


def test_a_policy_that_another_program_takes_away_is_put_back_at_once(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        pair.a.host.nft.run([{"delete": {"table": table_of(pair.a)._asdict()}}])
        pair.a.runner.filter_changed()
        await settle(pair.a)
        assert table_of(pair.a) in pair.a.host.nft.tables()

    scenario(work, tmp_path)


def test_ipv4_that_the_host_has_already_is_left_out_with_a_warning(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        await pair.a.host.netlink.add_address(Address("eth0", ip_interface("10.77.3.3/24")))
        pair.a.runner.network_changed()
        await settle(pair.a)
        status = pair.a.runner.situation.status()
        assert len(status.addresses) == 1
        assert any("IPv4 is left out: 10.77.0.0/16 overlaps 10.77.3.0/24" in warning for warning in status.warnings)
        assert Route(IPv4Network("10.77.0.0/16"), "w-home") not in await pair.a.host.netlink.routes()
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


def test_a_rootless_node_changes_the_network_inside_alone(tmp_path: Path) -> None:
    async def run() -> None:
        underlay = MemoryNetwork(random.Random(1).randbytes)
        coordinator = FakeCoordinator()
        coordinator.now_s = lambda: underlay.wall_clock_ns() / 1e9
        host = await FakeHost(underlay, tmp_path, "192.0.2.10").plug()
        host.be_rootless()
        before = [await host.netlink.links(), await host.netlink.addresses(), await host.netlink.routes()]
        node = FakeNode(host, coordinator, "a")
        node.link.connect()
        await settle(node)
        membership = node.runner.situation.status()
        assert (membership.state, membership.engine) == ("up", "rootless")
        assert [link.name for link in await host.inside.links()] == ["w-home"]
        assert len(await host.inside.addresses()) == 2
        assert await host.inside.routes()
        assert [await host.netlink.links(), await host.netlink.addresses(), await host.netlink.routes()] == before
        assert membership.candidates[0].startswith("192.0.2.10:")

        host.helper_trouble = "the helper has ended"
        await pass_time(underlay, 2, node)
        failed = [task for task in node.runner.situation.status().tasks if task.state == "failed"]
        assert [(task.name, task.reason) for task in failed] == [("engine helper", "the helper has ended")]
        host.helper_trouble = ""
        await pass_time(underlay, 2, node)
        assert all(task.state == "done" for task in node.runner.situation.status().tasks)
        await node.end()

    asyncio.run(run())
