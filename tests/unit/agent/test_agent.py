"""The agent as a whole: joining by ticket, several networks, leaving, stopping."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.unit.agent.fakes import EPOCH_S, FakeCoordinator, FakeHost, FakeLink
from warren.agent import agent as module
from warren.agent.agent import Agent
from warren.agent.config import AgentConfig
from warren.api.node import Disconnected, Refused
from warren.engine.memory import MemoryNetwork
from warren.errors import OperationFailed, Unreachable, UsageError
from warren.identity.signing import VerifyKey
from warren.proto.control import messages


class Machine:
    """A host with an agent, and networks that it may join."""

    def __init__(self, tmp_path: Path, *coordinators: FakeCoordinator) -> None:
        self.underlay = MemoryNetwork(random.Random(1).randbytes)
        self.host = FakeHost(self.underlay, tmp_path / "state", "192.0.2.10")
        self.links: list[FakeLink] = []
        by_key = {coordinator.key: coordinator for coordinator in coordinators}

        def open_link(**arguments: object) -> FakeLink:
            link = by_key[arguments["network"]].open_link(**arguments)  # type: ignore[index, arg-type]
            self.links.append(link)
            return link

        self.host.open_link = open_link

    async def start(self) -> Agent:
        await self.host.plug() if not await self.host.netlink.addresses() else None
        self.agent = self.host.agent()
        self.work = asyncio.create_task(self.agent.run())
        return self.agent

    async def stop(self) -> None:
        self.agent.stop()
        await self.work


def scenario(work: Callable[[Machine, Agent], Awaitable[None]], tmp_path: Path, *coordinators: FakeCoordinator) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, *coordinators)
        await work(machine, await machine.start())
        await machine.stop()

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(8))
def test_a_change_of_the_host_just_when_the_agent_ends_does_not_keep_it(tmp_path: Path, steps: int) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, FakeCoordinator())
        agent = await machine.start()
        await asyncio.sleep(0.05)
        agent._moved.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        agent.stop()
        async with asyncio.timeout(5):
            await machine.work

    asyncio.run(main())


def test_a_machine_is_in_several_networks_each_with_an_interface(tmp_path: Path) -> None:
    home, work_ = FakeCoordinator("home"), FakeCoordinator("work", prefix4="10.78.0.0/16")

    async def work(machine: Machine, agent: Agent) -> None:
        first = await agent.join(home.ticket(), "a")
        second = await agent.join(work_.ticket(), "b")
        assert (first.interface, second.interface) == ("w-home", "w-work")
        status = await agent.status()
        assert [(one.network, one.name, one.state) for one in status.networks] == [
            ("home", "a", "up"),
            ("work", "b", "up"),
        ]
        assert len({one.listen_port for one in status.networks}) == 2
        assert set(machine.host.names.served) == {"w-home", "w-work"}

    scenario(work, tmp_path, home, work_)


def test_of_two_networks_with_one_ipv4_block_the_first_has_it_also_after_a_restart(tmp_path: Path) -> None:
    first, second = FakeCoordinator("one"), FakeCoordinator("two")
    if str(first.key) < str(second.key):  # a restart begins with the lower key: make that the second
        first, second = second, first

    async def work(machine: Machine, agent: Agent) -> None:
        assert len((await agent.join(first.ticket(), "a")).addresses) == 2
        assert len((await agent.join(second.ticket(), "a")).addresses) == 1
        await machine.stop()
        agent = await machine.start()
        for _ in range(200):
            await asyncio.sleep(0)
        status = await agent.status()
        counts = {one.network: len(one.addresses) for one in status.networks}
        assert counts == {first.name: 2, second.name: 1}

    scenario(work, tmp_path, first, second)


def test_two_networks_of_one_name_get_different_interfaces(tmp_path: Path) -> None:
    one, two = FakeCoordinator("home"), FakeCoordinator("home", authority="another")

    async def work(machine: Machine, agent: Agent) -> None:
        first, second = await agent.join(one.ticket(), "a"), await agent.join(two.ticket(), "a")
        assert first.interface == "w-home"
        assert second.interface.startswith("w-home-")
        with pytest.raises(UsageError, match="several networks are called home"):
            await agent.leave("home")

    scenario(work, tmp_path, one, two)


def test_joining_again_answers_what_the_node_is(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        first = await agent.join(home.ticket(), "a")
        assert await agent.join(home.ticket(), "other") == first
        assert len(machine.links) == 1

    scenario(work, tmp_path, home)


@pytest.mark.parametrize("how", ["revoked", "not-a-member"])
def test_a_machine_that_is_no_member_any_more_joins_again_with_a_ticket(tmp_path: Path, how: str) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        before = (await agent.status()).networks[0].node_id
        if how == "revoked":
            home.revoke(VerifyKey.from_text(before))
        else:
            refused = messages.Refused(kind="not-a-member", title="This node is no member")
            machine.links[0].tell(Refused(refused, final=True))
        await agent.status()  # a turn has seen it
        joined = await agent.join(home.ticket(), "a")
        status = (await agent.status()).networks[0]
        assert (status.state, joined.name) == ("up", "a")
        assert (status.node_id == before) == (how == "not-a-member")
        assert machine.links[-1].enrolled

    scenario(work, tmp_path, home)


def test_a_machine_whose_whole_state_was_damaged_comes_back_with_a_ticket(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        before = await agent.join(home.ticket(), "a")
        await machine.stop()
        for path in (tmp_path / "state" / "networks").glob("*/*"):
            path.write_bytes(b"")
        agent = await machine.start()
        for _ in range(20):
            await asyncio.sleep(0)
        status = (await agent.status()).networks[0]
        assert (status.state, len(status.warnings)) == ("starting", 2)
        assert await agent.join(home.ticket(), "a") == before

    scenario(work, tmp_path, home)


def test_a_ticket_that_is_refused_leaves_the_membership_that_was(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        refused = messages.Refused(kind="not-a-member", title="This node is no member")
        machine.links[0].tell(Refused(refused, final=True))
        await agent.status()  # a turn has seen it
        home.refusal = messages.Refused(kind="ticket-used", title="The ticket is used up")
        with pytest.raises(OperationFailed, match="used up"):
            await agent.join(home.ticket(), "a")
        home.refusal = None
        assert [one.network for one in (await agent.status()).networks] == ["home"]

    scenario(work, tmp_path, home)


def test_a_refused_ticket_leaves_nothing_and_says_why(tmp_path: Path) -> None:
    home = FakeCoordinator()
    home.refusal = messages.Refused(
        kind="ticket-expired",
        title="The ticket has expired",
        detail="the ticket expired at noon",
        remedy="Ask for a new ticket.",
    )

    async def work(machine: Machine, agent: Agent) -> None:
        with pytest.raises(OperationFailed) as caught:
            await agent.join(home.ticket(), "a")
        said = "home cannot be joined: the ticket expired at noon; ask for a new ticket"
        assert str(caught.value) == said
        assert agent.known() == ()
        assert (await agent.status()).networks == ()

    scenario(work, tmp_path, home)


def test_a_coordinator_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_WITHIN_S", 0.01)
    home = FakeCoordinator()
    home.away = True

    async def work(machine: Machine, agent: Agent) -> None:
        with pytest.raises(
            Unreachable, match=r"home could not be joined: no coordinator answers at https://192\.0\.2\.1"
        ):
            await agent.join(home.ticket(), "a")
        assert agent.known() == ()
        with pytest.raises(Unreachable, match=r"by this machine's clock the ticket has expired"):
            await agent.join(home.ticket(not_after=EPOCH_S - 1), "a")

    scenario(work, tmp_path, home)


@pytest.mark.parametrize(
    ("text", "says"),
    [("hello", "this is not a ticket"), ("warren-ticket:AAAA", "cut off or damaged")],
)
def test_what_is_no_ticket_is_said(tmp_path: Path, text: str, says: str) -> None:
    async def work(machine: Machine, agent: Agent) -> None:
        with pytest.raises(UsageError, match=says):
            await agent.join(text, None)

    scenario(work, tmp_path)


def test_a_name_that_is_none_is_refused_before_anything_happens(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        with pytest.raises(UsageError, match="'Not a name' is no name for a node"):
            await agent.join(home.ticket(), "Not a name")
        assert machine.links == []

    scenario(work, tmp_path, home)


def test_leaving_forgets_the_network_and_its_keys(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        home.away = True
        with pytest.raises(Unreachable):
            await agent.leave("home")
        home.away = False
        await agent.leave("home")
        assert machine.links[0].left
        assert agent.known() == ()
        assert list((tmp_path / "state" / "keys").iterdir()) == []
        assert [link.name for link in await machine.host.netlink.links()] == ["eth0"]
        with pytest.raises(OperationFailed, match="it is in: none"):
            await agent.leave("home")

    scenario(work, tmp_path, home)


def test_names_of_members_are_resolved(tmp_path: Path) -> None:
    home, other = FakeCoordinator("home"), FakeCoordinator("work", prefix4=None)

    async def work(machine: Machine, agent: Agent) -> None:
        mine = (await agent.join(home.ticket(), "a")).addresses[0].partition("/")[0]
        await agent.join(other.ticket(), "b")
        for name in ("a", "A", "a.home", "a.home.internal", "a.home.internal."):
            assert agent.resolve(name)[0] == mine
        assert len(agent.resolve("b")) == 1
        for name in ("c", "a.work", "a.home.example"):
            with pytest.raises(OperationFailed, match="no member is called"):
                agent.resolve(name)

    scenario(work, tmp_path, home, other)


def test_a_config_with_errors_leaves_the_one_before_in_force(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        path = tmp_path / "state" / "agent.toml"
        path.write_text("dns = false")
        agent = machine.agent
        machine.host.config = AgentConfig(dns=False)
        agent.reload()
        await agent.status()
        assert machine.host.names.served == {}

    scenario(work, tmp_path, home)


def test_a_config_with_another_engine_says_when_that_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(machine: Machine, agent: Agent) -> None:
        for engine, said in (("auto", 0), ("rootless", 1), ("rootless", 0)):
            caplog.clear()
            machine.host.config = AgentConfig(engine=engine)
            agent.reload()
            assert caplog.text.count("the engine stays userspace until the agent is stopped") == said

    scenario(work, tmp_path)


def test_a_change_of_the_host_wakes_every_network(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        home.away = True
        retries = machine.links[0].retries
        machine.links[0].tell(Disconnected("gone", 1.0))
        await asyncio.sleep(0.01)
        await machine.host.netlink.set_link("eth0", up=False)
        await asyncio.sleep(module._SETTLE_S * 2)
        assert machine.links[0].retries > retries

    scenario(work, tmp_path, home)
