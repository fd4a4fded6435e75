"""When connections are looked at and ended: after a change, when this node knows what is so, and as long as it is."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.unit.agent.network.test_forbidden import BOB, ME, NOBODY, deny, inbound
from tests.unit.agent.streams.fakes import view
from warren.agent.network import ending
from warren.agent.network.desired import Wanted, WantedPeer
from warren.agent.network.ending import Ending
from warren.agent.streams.directory import Directory
from warren.errors import OperationFailed
from warren.identity.keys import PublicKey
from warren.l3.firewall import Own, refusals_of
from warren.l3.refusals import Refusals
from warren.linux.nft import Command, MemoryNft, Nft
from warren.linux.tcp_sockets import Opened, TcpSocket
from warren.model.documents import Rule
from warren.model.policy import DEFAULT_POLICY, ResolvedRule, resolve
from warren.model.tunnel import IPNetwork

DENIES = (deny(25), *DEFAULT_POLICY)


class FakeTcp:
    """Connections of this host. ``before_end`` is called before some are ended."""

    def __init__(self, *sockets: TcpSocket) -> None:
        self.open = list(sockets)
        self.looks = 0
        self.can_end = True
        self.failure = ""
        self.before_end: Callable[[], None] = lambda: None
        self.batches: list[int] = []

    async def connections(self, local: Sequence[IPNetwork]) -> Sequence[TcpSocket]:
        self.looks += 1
        if self.failure:
            raise OperationFailed(self.failure)
        return tuple(self.open)

    async def end(self, sockets: Sequence[TcpSocket]) -> int | None:
        if not self.can_end:
            return None
        self.batches.append(len(sockets))
        self.open = [one for one in self.open if one not in sockets]
        self.before_end()
        return len(sockets)


def wanted(*policy: Rule, state: str = "up") -> tuple[Wanted, Directory | None]:
    directory = view(policy=policy or DEFAULT_POLICY, state=state).directory
    own = directory.own
    peers = {
        one.membership.node: WantedPeer(one.membership.node, one.name, PublicKey(bytes(32)), None, one.own)
        for one in directory.members
        if one is not own
    }
    want = Wanted(
        state,  # type: ignore[arg-type]
        peers=peers,
        own=Own((own.address6,), own.address4),
        rules=resolve(directory.spec, directory.members) if state == "up" else None,
        spec=directory.spec,
        members=directory.members,
    )
    return want, directory if state in {"up", "expired"} else None


def scenario(tcp: FakeTcp, test: Callable[[Ending], Awaitable[None]], nft: Nft | None = None) -> None:
    async def main() -> None:
        made = Ending(lambda: "home", tcp, None if nft is None else Refusals(nft, lambda: "if0"))
        try:
            async with asyncio.timeout(10):
                await test(made)
        finally:
            await made.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def rested(made: Ending) -> None:
    """Until it has nothing to do any more."""
    if made._task is not None:
        await asyncio.wait([made._task])


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "SETTLE_S", 0.0)
    monkeypatch.setattr(ending, "INFORMED_S", 0.0)
    monkeypatch.setattr(ending, "AGAIN_S", 0.0)
    monkeypatch.setattr(ending, "PAUSE_RATIO", 0.0)


DENIED, FINE = inbound(ME, 25, BOB), inbound(ME, 80, BOB)


def test_what_a_change_forbids_ends_and_it_is_looked_at_twice(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warren")
    tcp = FakeTcp(DENIED, FINE)

    async def test(made: Ending) -> None:
        made.follow(*wanted(), informed=True)
        await rested(made)
        assert (tcp.open, tcp.looks) == ([DENIED, FINE], 2)
        made.follow(*wanted(*DENIES), informed=True)
        await rested(made)
        assert (tcp.open, tcp.looks) == ([FINE], 4)
        made.follow(*wanted(*DENIES), informed=True)  # another object that says the same
        await rested(made)
        assert tcp.looks == 4

    scenario(tcp, test)
    assert "home: connections ended that its policy does not permit any more: 1" in caplog.text


def test_nothing_ends_until_a_coordinator_has_told_how_it_is() -> None:
    tcp = FakeTcp(DENIED, FINE)

    async def test(made: Ending) -> None:
        made.follow(*(known := wanted(*DENIES)), informed=False)
        await rested(made)
        assert (tcp.open, tcp.looks) == ([DENIED, FINE], 0)
        made.follow(*known, informed=True)
        await rested(made)
        assert tcp.open == [FINE]

    scenario(tcp, test)


def test_a_coordinator_that_was_just_found_first_tells_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    tcp = FakeTcp(DENIED, FINE)

    async def not_looked(made: Ending, *, looks: int) -> None:
        made.follow(*wanted(*DENIES), informed=True)
        for _ in range(10):
            await asyncio.sleep(0)
        assert tcp.looks == looks

    async def found_again(made: Ending) -> None:
        made.follow(*(known := wanted()), informed=True)
        await rested(made)
        monkeypatch.setattr(ending, "INFORMED_S", 3600.0)
        made.follow(*known, informed=False)
        await not_looked(made, looks=2)

    scenario(tcp, found_again)
    scenario(tcp, partial(not_looked, looks=2))  # an agent that has just started


def test_what_is_half_here_counts_for_nothing() -> None:
    tcp = FakeTcp(DENIED, FINE)

    async def test(made: Ending) -> None:
        made.follow(*(stale := wanted(*DENIES)), informed=True)
        made.follow(*stale, informed=False)  # before it has looked
        await rested(made)
        assert (tcp.open, tcp.looks) == ([DENIED, FINE], 0)
        made.follow(*wanted(), informed=True)
        await rested(made)
        assert (tcp.open, tcp.looks) == ([DENIED, FINE], 2)

    scenario(tcp, test)


def test_a_lease_that_has_ended_ends_nothing_here_and_a_revocation_everything() -> None:
    tcp = FakeTcp(DENIED, FINE, elsewhere := inbound("192.168.1.2", 80, "192.168.1.3"))

    async def test(made: Ending) -> None:
        made.follow(*wanted(), informed=True)
        await rested(made)
        made.follow(*wanted(state="expired"), informed=True)
        await rested(made)
        assert (len(tcp.open), tcp.looks) == (3, 2)
        made.follow(*wanted(state="revoked"), informed=False)
        await rested(made)
        assert tcp.open == [elsewhere]

    scenario(tcp, test)


def test_who_was_removed_is_spoken_to_no_more() -> None:
    tcp = FakeTcp(inbound(ME, 80, NOBODY), FINE)

    async def test(made: Ending) -> None:
        made.follow(*wanted(), informed=True)
        await rested(made)
        assert tcp.open == [FINE]

    scenario(tcp, test)


def test_a_change_of_mind_in_between_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "END_MAX", 2)
    tcp = FakeTcp()
    tcp.open = [one._replace(id=one.id[:-1] + bytes((number,))) for number, one in enumerate([DENIED] * 5)]

    async def test(made: Ending) -> None:
        tcp.before_end = lambda: made.follow(*wanted(), informed=True)
        made.follow(*wanted(*DENIES), informed=True)
        await rested(made)
        assert (tcp.batches, len(tcp.open)) == ([2], 3)

    scenario(tcp, test)


@pytest.mark.parametrize("patient", [True, False])
def test_a_change_begins_the_wait_anew_but_not_for_ever(patient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "SETTLED_BY_S", 3600.0 if patient else 0.0)
    tcp = FakeTcp(DENIED, FINE)
    laws = [wanted(*DENIES, deny(1000 + number)) for number in range(20)]

    async def test(made: Ending) -> None:
        async def sleep(_: float) -> None:
            """While it waits, the next document comes."""
            if laws:
                made.follow(*laws.pop(), informed=True)
            await asyncio.tasks.__sleep0()  # type: ignore[attr-defined]

        made.follow(*wanted(), informed=True)
        with monkeypatch.context() as patch:
            patch.setattr("warren.agent.network.ending.asyncio.sleep", sleep)
            await rested(made)
        assert tcp.open == [FINE]
        assert (tcp.looks, len(laws)) == (2, 0 if patient else 19)

    scenario(tcp, test)


def test_a_kernel_that_cannot_is_told_of_once_and_nothing_else_happens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warren")
    tcp = FakeTcp(DENIED, FINE)
    tcp.can_end = False

    async def test(made: Ending) -> None:
        for port in (25, 26, 27):
            made.follow(*wanted(deny(25), deny(port), *DEFAULT_POLICY), informed=True)
            await rested(made)
        assert tcp.open == [DENIED, FINE]

    scenario(tcp, test)
    assert caplog.text.count("CONFIG_INET_DIAG_DESTROY") == 1
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_where_tracking_cannot_be_asked_that_is_told_once_and_nothing_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warren")
    untold = DENIED._replace(opened=Opened.UNTOLD)
    tcp = FakeTcp(untold)

    async def test(made: Ending) -> None:
        for port in (25, 26):
            made.follow(*wanted(deny(25), deny(port), *DEFAULT_POLICY), informed=True)
            await rested(made)
        assert tcp.open == [untold]

    scenario(tcp, test)
    assert caplog.text.count("nf_conntrack_netlink") == 1


class OldNft(MemoryNft):
    """Of a kernel that refuses nothing."""

    tries = 0

    def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
        self.tries += 1
        raise OperationFailed("nftables refuses the rules: No such file or directory")


def test_what_is_open_and_forbidden_is_refused_once_that_is_sure_and_until_the_next_change() -> None:
    nft, there = MemoryNft(), {refusals_of("if0")}

    async def test(made: Ending) -> None:
        made.follow(*(known := wanted()), informed=False)
        await rested(made)
        assert not nft.tables()
        made.follow(*known, informed=True)
        await rested(made)
        assert nft.tables() == there
        before = nft.contents[refusals_of("if0")]
        made.follow(*wanted(*DENIES), informed=True)
        assert not nft.tables(), "nobody is refused by a policy of before"
        await rested(made)
        assert nft.tables() == there
        assert nft.contents[refusals_of("if0")] != before
        made.follow(*wanted(state="expired"), informed=True)
        await rested(made)
        assert not nft.tables()

    scenario(FakeTcp(FINE), test, nft)


def test_refusals_that_came_too_late_go_again() -> None:
    nft = MemoryNft()

    async def test(made: Ending) -> None:
        class Late(Refusals):
            async def put(self, own: Own, rules: Iterable[ResolvedRule]) -> None:
                await super().put(own, rules)
                if not made._refusing:
                    made.follow(*wanted(state="expired"), informed=True)

        made._refusals = Late(nft, lambda: "if0")
        made.follow(*wanted(), informed=True)
        await rested(made)
        assert not nft.tables()

    scenario(FakeTcp(), test, nft)


def test_whoever_ends_does_so_after_the_refusals_that_are_just_put() -> None:
    """So that taking the network's tables away comes after it, too."""
    began, go_on = threading.Event(), threading.Event()

    class Slow(MemoryNft):
        def run(self, document: Iterable[Command]) -> list[dict[str, Any]]:
            began.set()
            assert go_on.wait(10)
            return super().run(document)

    nft = Slow()

    async def test(made: Ending) -> None:
        made.follow(*wanted(), informed=True)
        assert await asyncio.to_thread(began.wait, 10)
        closing = asyncio.create_task(made.close())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing
        assert nft.tables() == {refusals_of("if0")}

    scenario(FakeTcp(), test, nft)


def test_refusals_that_somebody_took_away_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "CHECK_S", 0.0)
    nft = MemoryNft()

    async def test(made: Ending) -> None:
        made.follow(*(known := wanted()), informed=True)
        await rested(made)
        nft.contents.clear()
        made.follow(*known, informed=True)
        await rested(made)
        assert nft.tables() == {refusals_of("if0")}

    scenario(FakeTcp(), test, nft)


def test_a_kernel_that_refuses_nothing_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "warren")
    nft = OldNft()

    async def test(made: Ending) -> None:
        for port in (25, 26, 27):
            made.follow(*wanted(deny(port), *DEFAULT_POLICY), informed=True)
            await rested(made)

    scenario(FakeTcp(), test, nft)
    assert nft.tries >= 3
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "home: what its policy comes to forbid is dropped in silence: nftables refuses the rules" in caplog.text


def test_whoever_leaves_a_network_ends_all_of_it() -> None:
    tcp = FakeTcp(DENIED, FINE, elsewhere := inbound("192.168.1.2", 80, "192.168.1.3"))

    async def test(made: Ending) -> None:
        await made.everything()  # nothing is known of the network
        assert len(tcp.open) == 3
        made.follow(*wanted(), informed=True)
        await rested(made)
        assert len(tcp.open) == 3
        await made.everything()
        assert tcp.open == [elsewhere]

    scenario(tcp, test)


def test_a_failure_is_told_once_until_it_has_passed(caplog: pytest.LogCaptureFixture) -> None:
    tcp = FakeTcp(DENIED)

    async def test(made: Ending) -> None:
        for failure, times in (("it is not there", 1), ("", 1), ("it is not there", 2)):
            tcp.failure = failure
            for port in (26, 27, 28):
                made.follow(*wanted(deny(port), *DEFAULT_POLICY), informed=True)
                await rested(made)
            assert caplog.text.count("stay open: it is not there") == times

    scenario(tcp, test)


def test_a_failure_is_told_and_the_second_look_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    tcp = FakeTcp(DENIED)
    tcp.failure = "the helper has gone"

    async def test(made: Ending) -> None:
        made.follow(*wanted(*DENIES), informed=True)
        await rested(made)
        assert tcp.looks == 2
        tcp.failure = ""
        made.follow(*wanted(deny(25), deny(26), *DEFAULT_POLICY), informed=True)
        await rested(made)
        assert tcp.open == []

    scenario(tcp, test)
    assert "stay open: the helper has gone" in caplog.text


def test_subnets_of_a_member_that_left_end_as_well() -> None:
    wide = Rule(action="allow", sources=("0.0.0.0/0",), destinations=("0.0.0.0/0",))
    tcp = FakeTcp(behind := inbound("10.77.0.1", 80, "192.0.2.5"))

    async def test(made: Ending) -> None:
        want, directory = wanted(wide)
        made.follow(want, directory, informed=True)
        await rested(made)
        assert tcp.open == [behind]
        assert directory is not None
        stay = tuple(one for one in directory.members if one.name != "carol")
        nodes = {one.membership.node for one in stay}
        kept = {node: peer for node, peer in want.peers.items() if node in nodes}
        routed = {node: networks for node, networks in directory.peers.items() if node in nodes}
        made.follow(
            replace(want, peers=kept, members=stay), replace(directory, members=stay, peers=routed), informed=True
        )
        await rested(made)
        assert tcp.open == []

    scenario(tcp, test)
