"""Whether domains lead to the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from warren.agent.streams.domains import Domains, comparable, objection
from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress

HERE, THERE, INSIDE = map(ip_address, ("8.8.8.8", "9.9.9.9", "192.168.1.2"))


def test_one_address_of_ours_is_enough_since_a_name_may_have_several_gateways() -> None:
    assert objection("a.example.org", [THERE, HERE], [HERE, INSIDE]) == ""


def test_a_domain_that_leads_elsewhere_is_told_with_both_sides() -> None:
    assert objection("a.example.org", [THERE], [INSIDE, HERE]) == (
        "a.example.org leads to 9.9.9.9, and not to this gateway, which has 8.8.8.8: correct it where its DNS is kept"
    )
    assert "which has no address that is known" in objection("a.example.org", [THERE], [])


def test_domains_are_looked_up_while_they_are_wanted() -> None:
    async def run() -> None:
        answers: dict[str, IPAddress | None] = {"a": HERE, "b": THERE, "c": None}
        changed = asyncio.Event()

        async def resolve(hosts: Sequence[str]) -> Sequence[IPAddress]:
            found = answers[hosts[0]]
            if found is None:
                raise OperationFailed("the name c cannot be looked up: there is none")
            return (found,)

        domains = Domains(resolve, lambda: {HERE}, changed.set)
        domains.keep(["a", "b", "c"])
        async with asyncio.timeout(30):
            while len(domains.answers) < 3:
                await changed.wait()
                changed.clear()
        assert domains.answers["a"] == ""
        assert domains.answers["b"].startswith("b leads to 9.9.9.9")
        assert domains.answers["c"] == (
            "c does not lead to this gateway: the name c cannot be looked up: there is none; give it an address of "
            f"this one where its DNS is kept: {HERE}"
        )
        domains.keep(["a"])
        assert domains.answers == {"a": ""}
        await domains.close()
        assert domains.answers == {}

    asyncio.run(run())


def test_a_domain_that_led_here_for_an_agent_before_does_until_it_is_known_better() -> None:
    async def run() -> None:
        changed = asyncio.Event()

        async def resolve(_: Sequence[str]) -> Sequence[IPAddress]:
            return (THERE,)

        domains = Domains(resolve, lambda: {HERE}, changed.set, ["a"])
        assert domains.answers == {"a": ""}
        domains.keep(["a"])
        assert domains.answers == {"a": ""}
        async with asyncio.timeout(10):
            await changed.wait()
        assert domains.answers["a"].startswith("a leads to 9.9.9.9")
        await domains.close()

    asyncio.run(run())


def test_a_resolver_that_fails_takes_no_domain_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.agent.streams.domains.AGAIN_S", 0)
    monkeypatch.setattr("warren.agent.streams.domains.WRONG_AGAIN_S", 0)
    asked = 0

    async def run() -> None:
        enough = asyncio.Event()

        async def resolve(_: Sequence[str]) -> Sequence[IPAddress]:
            nonlocal asked
            asked += 1
            if asked == 3:
                enough.set()
            if asked > 1:
                raise OperationFailed("the name a cannot be looked up: try again")
            return (HERE,)

        domains = Domains(resolve, lambda: {HERE}, lambda: None)
        domains.keep(["a"])
        async with asyncio.timeout(30):
            await enough.wait()
        assert domains.answers == {"a": ""}
        await domains.close()

    asyncio.run(run())


def test_who_does_not_know_its_own_public_address_cannot_say_that_a_domain_leads_elsewhere() -> None:
    assert comparable([THERE], [INSIDE, HERE])
    assert not comparable([THERE], [])
    assert not comparable([THERE], [INSIDE, ip_address("2606:4700::1")])
    assert comparable([INSIDE], [])


def test_while_no_relay_says_which_address_it_has_a_gateway_lets_no_domain_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.agent.streams.domains.AGAIN_S", 0)
    monkeypatch.setattr("warren.agent.streams.domains.WRONG_AGAIN_S", 0)
    own: set[IPAddress] = {INSIDE}
    asked = 0

    async def run() -> None:
        enough, changed = asyncio.Event(), asyncio.Event()

        async def resolve(_: Sequence[str]) -> Sequence[IPAddress]:
            nonlocal asked
            asked += 1
            if asked == 3:
                enough.set()
            return (THERE,)

        domains = Domains(resolve, lambda: own, changed.set, ["a"])
        domains.keep(["a"])
        async with asyncio.timeout(10):
            await enough.wait()
            assert domains.answers == {"a": ""}
            own.add(HERE)
            await changed.wait()
        assert domains.answers["a"].startswith("a leads to 9.9.9.9")
        await domains.close()

    asyncio.run(run())
