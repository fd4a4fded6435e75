"""Becoming a member by a ticket, and leaving again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.agent.fakes import EPOCH_S, FakeCoordinator
from tests.unit.agent.machines import Machine, scenario
from warren.agent import joining
from warren.agent.agent import Agent
from warren.api.node_events import Refused
from warren.errors import OperationFailed, Unreachable, UsageError
from warren.identity.signing import VerifyKey
from warren.proto.control import messages


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
    monkeypatch.setattr(joining, "JOIN_WITHIN_S", 0.01)
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
