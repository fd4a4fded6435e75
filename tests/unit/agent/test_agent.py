"""The agent as a whole: several networks, names, changes of the config and the host, stopping."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.waiting import first, until
from tests.unit.agent.fakes import FakeCoordinator
from tests.unit.agent.machines import Machine, scenario
from warren.agent.agent import Agent
from warren.agent.config import AgentConfig
from warren.api.node_events import Disconnected
from warren.errors import OperationFailed, UsageError


@pytest.mark.parametrize("steps", range(8))
def test_a_change_of_the_host_just_when_the_agent_ends_does_not_keep_it(tmp_path: Path, steps: int) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, FakeCoordinator())
        agent = await machine.start()
        await agent.status()
        agent._moved.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        agent.stop()
        async with asyncio.timeout(30):
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
        counts: dict[str, int] = {}
        async with asyncio.timeout(30):
            while not all(counts.get(one.name) for one in (first, second)):
                await asyncio.sleep(0)
                counts = {one.network: len(one.addresses) for one in (await agent.status()).networks}
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


@pytest.mark.parametrize(
    ("retry_in_s", "said"), [(1.0, "WARNING"), (None, "INFO")], ids=["which comes back", "which is given up"]
)
def test_a_lost_coordinator_is_a_warning_unless_it_was_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, retry_in_s: float | None, said: str
) -> None:
    home = FakeCoordinator()

    def levels() -> list[str]:
        return [one.levelname for one in caplog.records if "gone for good" in one.getMessage()]

    async def work(machine: Machine, agent: Agent) -> None:
        await agent.join(home.ticket(), "a")
        machine.links[0].tell(Disconnected("gone for good", retry_in_s))
        await until(lambda: bool(levels()))
        assert levels() == [said]

    with caplog.at_level("INFO"):
        scenario(work, tmp_path, home)


def test_a_change_of_the_host_wakes_every_network(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(machine: Machine, agent: Agent) -> None:
        async def is_alone() -> bool:
            (network,) = (await agent.status()).networks
            return not network.coordinator.connected

        await agent.join(home.ticket(), "a")
        home.away = True
        retries = machine.links[0].retries
        machine.links[0].tell(Disconnected("gone", 1.0))
        await first(is_alone)
        await machine.host.netlink.set_link("eth0", up=False)
        await until(lambda: machine.links[0].retries > retries)

    scenario(work, tmp_path, home)
