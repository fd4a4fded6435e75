"""One network of a node, over doors in memory: joining, keeping, being killed, rotating, being revoked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.support.packets import udp_packet
from tests.unit.agent.fakes import (
    FakeCoordinator,
    FakeHost,
    FakeNode,
    FakePlane,
    pass_time,
    replace_struct,
    settle,
)
from warren.agent.config import AgentConfig
from warren.agent.stated import Stated, StatedAddress
from warren.api.node_events import Disconnected, Refused, UpdateReceived
from warren.engine.memory import MemoryNetwork
from warren.errors import OperationFailed, Unreachable
from warren.identity.keys import PrivateKey
from warren.linux.netlink_values import Address, Route
from warren.linux.nft import Table
from warren.model.documents import Candidate, NodeRecord
from warren.model.envelope import pack_envelope
from warren.model.tunnel import TransportAddress, TunnelChange, TunnelStatus
from warren.model.verified import sign
from warren.proto.control import messages


class Pair:
    """Two nodes of one network that have joined."""

    def __init__(self, tmp_path: Path, config: AgentConfig | None = None) -> None:
        self.underlay = MemoryNetwork(random.Random(1).randbytes)
        self.coordinator = FakeCoordinator()
        self.coordinator.now_s = lambda: self.underlay.wall_clock_ns() / 1e9
        self.tmp_path = tmp_path
        self.config = config

    async def start(self) -> Pair:
        self.a = await self.node("a", "192.0.2.10")
        self.b = await self.node("b", "192.0.2.11")
        await settle(self.a, self.b)
        await pass_time(self.underlay, 3, self.a, self.b)
        return self

    async def node(self, name: str, ip: str) -> FakeNode:
        host = await FakeHost(self.underlay, self.tmp_path / name, ip, self.config).plug()
        node = FakeNode(host, self.coordinator, name)
        node.link.connect()
        return node

    async def again(self, node: FakeNode, *, connect: bool = True) -> FakeNode:
        """The agent of ``node`` was killed and starts again."""
        await node.kill()
        fresh = FakeNode(node.host, self.coordinator, "", new=False)
        if connect:
            fresh.link.connect()
        return fresh

    async def time(self, seconds: float, step: float = 1.0) -> None:
        await pass_time(self.underlay, seconds, self.a, self.b, step=step)

    async def passes(self, sender: FakeNode, receiver: FakeNode) -> bool:
        """Whether a packet gets from one to the other within a second, with paths found on the way."""
        mine, theirs = sender.runner.situation.own, receiver.runner.situation.own
        assert mine is not None
        assert theirs is not None
        receiver.plane.delivered.clear()
        packet = udp_packet(str(mine.address6), str(theirs.address6), b"hello")
        sender.plane.inject(packet)
        for _ in range(20):
            if receiver.plane.delivered:
                break
            await self.a.rest()
            self.underlay.advance(0.05)
        return receiver.plane.delivered == [packet]

    async def end(self) -> None:
        for node in (self.a, self.b):
            await node.end()


def scenario(work: Callable[[Pair], Awaitable[None]], tmp_path: Path, config: AgentConfig | None = None) -> None:
    """Run ``work`` with two members, and take them down afterwards."""

    async def main() -> None:
        pair = await Pair(tmp_path, config).start()
        await work(pair)
        await pair.end()

    asyncio.run(main())


def table_of(node: FakeNode) -> Table:
    return Table("inet", f"warren-{node.runner.situation.interface}")


# Joining


def test_two_nodes_join_and_reach_each_other(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        joined = pair.a.runner.joined.result()
        assert (joined.network, joined.name, joined.interface) == ("home", "a", "w-home")
        assert await pair.passes(pair.a, pair.b)
        assert await pair.passes(pair.b, pair.a)
        await pair.time(4)
        status = pair.a.runner.situation.status()
        assert status.state == "up"
        assert [(peer.name, peer.state) for peer in status.peers] == [("b", "connected")]
        assert {task.state for task in status.tasks} == {"done"}
        assert pair.a.host.names.served == {"w-home": ["a", "b"]}

    scenario(work, tmp_path)


def test_what_was_made_is_gone_afterwards(tmp_path: Path) -> None:
    async def main() -> None:
        pair = await Pair(tmp_path).start()
        await pair.end()
        host = pair.a.host
        assert [link.name for link in await host.netlink.links()] == ["eth0"]
        assert host.nft.tables() == frozenset()
        assert host.names.served == {}

    asyncio.run(main())


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


def test_a_refused_enrolment_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        pair.coordinator.refusal = messages.Refused(
            kind="ticket-used", title="used up", detail="the ticket was used", remedy="ask for another"
        )
        node = await pair.node("a", "192.0.2.10")
        await node.turn()
        with pytest.raises(OperationFailed, match="the ticket was used; ask for another"):
            node.runner.joined.result()
        assert node.host.planes == {}
        assert not (tmp_path / "a" / "networks").exists()
        await node.end()

    asyncio.run(main())


@pytest.mark.parametrize("echo", [True, False])
def test_a_node_that_has_just_joined_calls_nobody_before_it_is_known(tmp_path: Path, echo: bool) -> None:
    """Its checks would not be answered, and the next one is a while away."""

    async def work(pair: Pair) -> None:
        fresh = await pair.node("c", "192.0.2.12")
        called: list[TransportAddress] = []
        pair.underlay.carries = lambda source, destination: called.append(destination) is None
        await fresh.turn()
        mine, theirs = fresh.runner.situation.own, pair.a.runner.situation.own
        assert mine is not None
        assert theirs is not None
        if not echo:
            fresh.link.take()
        fresh.plane.inject(udp_packet(str(mine.address6), str(theirs.address6), b"hello"))
        assert called == []
        await pass_time(pair.underlay, 0.2, fresh, step=0.1)
        assert bool(called) == echo
        await pass_time(pair.underlay, 1.0, fresh, step=0.1)
        assert called
        await fresh.end()

    scenario(work, tmp_path)


# Staying


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


# Trust


def test_a_revoked_member_is_no_peer_at_once(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        assert await pair.passes(pair.b, pair.a)
        pair.coordinator.revoke(pair.b.key)
        await pair.a.turn()
        assert (await pair.a.plane.status()).peers == ()
        assert not await pair.passes(pair.b, pair.a)
        await pair.b.turn()
        assert pair.b.runner.situation.status().state == "revoked"
        assert (await pair.b.plane.status()).peers == ()

    scenario(work, tmp_path)


def test_a_member_whose_lease_ends_is_no_peer_and_knows_it_itself(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        now_s = int(pair.coordinator.now_s())
        pair.coordinator.change_member(pair.b.key, not_after=now_s + 20)
        await settle(pair.a, pair.b)
        pair.coordinator.away = True
        assert await pair.passes(pair.a, pair.b)
        await pair.time(25)
        assert (await pair.a.plane.status()).peers == ()
        assert (await pair.b.plane.status()).peers == ()
        assert pair.b.runner.situation.status().state == "expired"
        pair.coordinator.change_member(pair.b.key, not_after=now_s + 86_400)
        await pair.time(3)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


def test_a_turn_is_due_when_a_lease_ends(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        now_s = pair.coordinator.now_s()
        pair.coordinator.change_member(pair.b.key, not_after=int(now_s) + 2)
        assert await pair.a.turn() <= 2.0

    scenario(work, tmp_path)


@pytest.mark.parametrize("offset_s", [-86_400.0, 86_400.0 * 3650, -1.7e9])
def test_leases_are_judged_by_the_coordinators_clock(tmp_path: Path, offset_s: float) -> None:
    async def main() -> None:
        pair = Pair(tmp_path)
        node = await pair.node("a", "192.0.2.10")
        node.host.wall_offset_s = offset_s
        await settle(node)
        status = node.runner.situation.status()
        assert status.state == "up"
        (warning,) = status.warnings
        assert "this machine's clock is" in warning
        await node.end()

    asyncio.run(main())


def test_documents_that_nobody_signed_change_nothing(tmp_path: Path) -> None:
    async def work(pair: Pair) -> None:
        record = pair.b.link.records[-1]
        forged = sign(
            replace_struct(record, node=pair.coordinator.key.raw, version=99, wireguard_key=bytes([9]) * 32),
            pair.coordinator.authority,
        )
        stolen = replace_struct(forged.envelope, signer=pair.b.key.raw)
        before = await pair.a.plane.status()
        pair.a.link.tell(UpdateReceived(messages.Update(revision=99, put=(stolen,))))
        await pair.a.turn()
        assert (await pair.a.plane.status()).peers == before.peers

    scenario(work, tmp_path)


def test_a_node_whose_wireguard_key_is_another_members_takes_a_fresh_one(tmp_path: Path) -> None:
    """As on a machine that was made from a copy of another's disk."""

    async def work(pair: Pair) -> None:
        before = pair.a.link.records[-1]
        refusal = messages.Refused(kind="key-taken", title="The WireGuard key is another member's", retry_after_s=1.0)
        pair.a.link.tell(Refused(refusal, final=False))
        await settle(pair.a, pair.b)
        after = pair.a.link.records[-1]
        assert after.version > before.version
        assert after.wireguard_key not in {before.wireguard_key, before.next_wireguard_key}
        assert after.next_wireguard_key is None
        await pair.time(3)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


# Records


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


def test_a_record_that_a_member_sent_itself_counts_like_one_of_the_coordinator(tmp_path: Path) -> None:
    """So a member that moved is found while no coordinator is there; what is not a record is not taken."""

    async def work(pair: Pair) -> None:
        pair.coordinator.away = True
        record = pair.b.link.records[-1]
        moved = replace_struct(
            record, version=record.version + 1, candidates=(Candidate(kind="host", address="198.51.100.9", port=9),)
        )
        key = pair.b.shared.keys.node_key(pair.coordinator.key)
        coordination = pair.a.runner._coordination
        for data in (b"nonsense", pack_envelope(sign(moved, key).envelope)):
            coordination.learned(data)
        await pair.a.turn()
        (peer,) = pair.a.runner.situation.status().peers
        assert peer.candidates == ("198.51.100.9:9",)
        spec = coordination.documents.spec
        newer = sign(replace_struct(spec, version=spec.version + 1, suffix="example"), pair.coordinator.authority)
        coordination.learned(pack_envelope(newer.envelope))
        await pair.a.turn()
        assert coordination.documents.spec == spec

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


# Keys


def test_a_key_is_rotated_without_losing_a_packet(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        first = (await pair.b.plane.status()).peers[0].public_key
        handshakes = 0
        for _ in range(650):
            await pair.time(1)
            assert await pair.passes(pair.a, pair.b)
            assert await pair.passes(pair.b, pair.a)
            handshakes = max(handshakes, len((await pair.b.plane.status()).peers))
        assert handshakes == 1
        (peer,) = (await pair.b.plane.status()).peers
        assert peer.public_key != first
        record = pair.a.link.records[-1]
        assert peer.public_key.raw == record.wireguard_key
        announced = [record.next_wireguard_key for record in pair.a.link.records]
        assert peer.public_key.raw in announced

    scenario(work, tmp_path, config)


def test_a_key_is_not_taken_while_no_coordinator_knows_of_it(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        before = (await pair.a.plane.status()).private_key
        pair.coordinator.away = True
        await pair.time(900, step=5.0)
        assert (await pair.a.plane.status()).private_key == before

    scenario(work, tmp_path, config)


def test_a_partitioned_peer_finds_the_announced_key_by_trying(tmp_path: Path) -> None:
    config = AgentConfig(rotate_s=600.0, announce_s=120.0)

    async def work(pair: Pair) -> None:
        await pair.time(500, step=5.0)
        assert pair.a.link.records[-1].next_wireguard_key is not None
        # b hears nothing of the coordinator from here on, while a takes its next key.
        pair.coordinator.links.remove(pair.b.link)
        pair.b.link.tell(Disconnected("gone", 1.0))
        await pair.time(200, step=5.0)
        assert pair.a.link.records[-1].next_wireguard_key is None
        arrived = []
        for _ in range(300):
            await pair.time(1)
            arrived.append(await pair.passes(pair.b, pair.a))
        assert all(arrived[-60:])

    scenario(work, tmp_path, config)


# The disk


def test_a_disk_that_takes_nothing_is_told_and_stops_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pair: Pair) -> None:
        def full(path: Path, content: bytes) -> None:
            raise OperationFailed(f"{path} cannot be written: No space left on device; the old file is unchanged")

        with monkeypatch.context() as patched:
            patched.setattr("warren.agent.kept.write", full)
            pair.coordinator.enrol(pair.coordinator.authority.verify_key, "c")
            await pair.time(2)
            assert await pair.passes(pair.a, pair.b)
            status = pair.a.runner.situation.status()
            assert status.state == "degraded"
            assert "No space left" in next(task.reason for task in status.tasks if task.name == "state")
        await pair.time(10)
        assert pair.a.runner.situation.status().state == "up"

    scenario(work, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
@pytest.mark.parametrize("name", ["settings", "documents"])
def test_damaged_state_is_put_aside_and_the_node_comes_up_again(tmp_path: Path, name: str, damage: str) -> None:
    async def work(pair: Pair) -> None:
        await pair.a.kill()
        (path,) = (tmp_path / "a" / "networks").glob(f"*/{name}")
        data = path.read_bytes()
        damaged = {
            "truncated": data[: len(data) // 2],
            "flipped": data[:-1] + bytes([data[-1] ^ 1]),
            "empty": b"",
            "foreign": b"something else altogether",
        }
        path.write_bytes(damaged[damage])
        pair.a = await pair.again(pair.a)
        await settle(pair.a, pair.b)
        await pair.time(5)
        assert (path.parent / f"{name}.corrupt-1").exists()
        assert pair.a.runner.situation.status().state == "up"
        assert any("was damaged" in warning for warning in pair.a.runner.situation.status().warnings)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)


# Addresses


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
