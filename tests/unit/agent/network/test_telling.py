"""What a node says of itself: to the members, to the coordinator."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_interface
from pathlib import Path

from tests.unit.agent.fakes import (
    replace_struct,
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.agent.config import AgentConfig
from warren.agent.stated import Stated, StatedAddress
from warren.linux.netlink_values import Address
from warren.model.documents import NodeRecord


def test_the_number_of_the_record_goes_on_after_a_restart_and_above_a_newer_one_of_the_map(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        first = pair.a.link.records[-1].version
        pair.a = await pair.again(pair.a)
        await settle(pair.a)
        second = pair.a.link.records[-1].version
        assert second > first
        # An old backup of the state: the number in it is behind.
        settings = pair.a.runner.state.settings
        pair.a.runner.state.write(replace_struct(settings, record_version=0))
        pair.a = await pair.again(pair.a)
        await settle(pair.a)
        assert pair.a.link.records[-1].version > second

    scenario(work, tmp_path)


def test_a_node_tells_where_it_is_when_that_changes(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        netlink = pair.a.host.netlink
        await netlink.remove_address(Address("eth0", ip_interface("192.0.2.10/24")))
        await netlink.add_address(Address("eth0", ip_interface("198.51.100.10/24")))
        pair.a.runner.network_changed()
        await settle(pair.a, pair.b)
        record: NodeRecord = pair.a.link.records[-1]
        assert [candidate.address for candidate in record.candidates] == ["198.51.100.10"]
        (peer,) = pair.b.runner.situation.status().peers
        assert peer.candidates == (f"198.51.100.10:{pair.a.runner.situation.status().listen_port}",)

    scenario(work, tmp_path)


def test_stated_addresses_come_first_and_a_disagreement_shows(tmp_path: Path) -> None:
    stated = Stated((StatedAddress(ip_interface("203.0.113.7").ip),), segment=IPv4Network("203.0.113.0/24"))

    async def work(pair: Pair) -> None:
        record = pair.a.link.records[-1]
        assert [(c.kind, c.address) for c in record.candidates] == [("stated", "203.0.113.7"), ("host", "192.0.2.10")]
        status = pair.a.runner.situation.status()
        assert status.stated == ("address 203.0.113.7", "segment 203.0.113.0/24")
        assert any(one.startswith("stated segment 203.0.113.0/24, observed 192.0.2.0/24: ") for one in status.warnings)
        assert any(warning.startswith("stated address 203.0.113.7, observed") for warning in status.warnings)

    scenario(work, tmp_path, AgentConfig(stated=stated))


def test_reports_tell_tasks_interfaces_and_peers(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        await pair.time(65)
        report = pair.a.link.reports[-1]
        assert report.revision == pair.coordinator.revision
        assert [interface.name for interface in report.interfaces] == ["eth0"]
        assert {task.state for task in report.tasks} == {"done"}
        assert [peering.node for peering in report.peers] == [pair.b.key.raw]
        assert len(pair.a.link.reports) < 10

    scenario(work, tmp_path)
