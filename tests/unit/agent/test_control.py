"""The agent behind its control socket: what commands on this machine get to see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.waiting import first
from tests.unit.agent.fakes import FakeCoordinator
from tests.unit.agent.machines import Machine
from tests.unit.agent.streams.fakes import FakeProcess
from warren.agent.control import serve
from warren.agent.streams.doors import Doors
from warren.api.varlink_agent import AgentClient, agent_at
from warren.errors import OperationFailed, UsageError
from warren.proto.control import messages


def asked(
    tmp_path: Path,
    work: Callable[[AgentClient, Machine], Awaitable[None]],
    *coordinators: FakeCoordinator,
    prepare: Callable[[Machine], None] = lambda _: None,
) -> None:
    async def main() -> None:
        machine = Machine(tmp_path, *coordinators)
        prepare(machine)
        agent = await machine.start()
        async with serve(agent, tmp_path / "agent.sock"), agent_at(tmp_path / "agent.sock") as client:
            await work(client, machine)
        await machine.stop()

    asyncio.run(main())


def test_a_network_is_joined_seen_and_left(tmp_path: Path) -> None:
    home = FakeCoordinator()

    async def work(client: AgentClient, machine: Machine) -> None:
        joined = await client.join(home.ticket(), "a")
        (network,) = (await client.status()).networks
        assert (network.network, network.interface, network.state) == ("home", joined.interface, "up")
        assert await client.resolve("a") == tuple(address.partition("/")[0] for address in joined.addresses)
        await client.leave("home")
        assert (await client.status()).networks == ()

    asked(tmp_path, work, home)


def test_errors_arrive_as_what_they_are(tmp_path: Path) -> None:
    home = FakeCoordinator()
    home.refusal = messages.Refused(kind="ticket-used", title="The ticket is used up")

    async def work(client: AgentClient, machine: Machine) -> None:
        with pytest.raises(UsageError, match="this is not a ticket"):
            await client.join("hello")
        with pytest.raises(OperationFailed, match="The ticket is used up"):
            await client.join(home.ticket(), "a")
        with pytest.raises(OperationFailed, match="no member is called"):
            await client.resolve("nobody")

    asked(tmp_path, work, home)


def test_a_forward_that_a_command_holds_ends_with_its_connection_and_a_kept_one_stays(tmp_path: Path) -> None:
    home = FakeCoordinator()
    processes: list[FakeProcess] = []

    async def open_process(run: Path, nest: Path | None) -> FakeProcess:
        processes.append(FakeProcess())
        return processes[-1]

    async def work(client: AgentClient, machine: Machine) -> None:
        async def only_one_is_left() -> bool:
            return len(await client.forwards()) == 1

        joined = await client.join(home.ticket(), "a")
        target = joined.addresses[0].partition("/")[0]
        kept = await client.forward("7000", f"[{target}]:80")
        async with agent_at(tmp_path / "agent.sock") as other:
            answers = other.hold_forward("7001", f"[{target}]:80")
            held = await anext(answers)
            assert (kept.origin, held.origin) == ("kept", "held")
            assert [one.id for one in await client.forwards()] == [kept.id, held.id]
            assert [one.id for one in (await client.status()).streams] == [kept.id, held.id]
        await first(only_one_is_left)
        (network,) = (await client.status()).networks
        assert ("forward 127.0.0.1:7000", "done") in {(task.name, task.state) for task in network.tasks}
        with pytest.raises(OperationFailed, match="no member and no service is called nobody"):
            await client.forward("7002", "nobody:80")
        with pytest.raises(UsageError, match="a port is 1 to 65535"):
            await client.forward("0", "nobody:80")
        await client.unforward("7000")
        assert await client.forwards() == ()

    def prepare(machine: Machine) -> None:
        machine.host.doors = Doors(open_process=open_process)

    asked(tmp_path, work, home, prepare=prepare)
    assert processes
    assert all(process.closed for process in processes)


def test_stop_is_answered_before_the_agent_ends(tmp_path: Path) -> None:
    async def work(client: AgentClient, machine: Machine) -> None:
        await client.stop()
        await asyncio.wait_for(machine.agent.stopping.wait(), 30)

    asked(tmp_path, work)
