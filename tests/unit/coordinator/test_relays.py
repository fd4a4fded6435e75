"""Relays: who may use which, what the NetworkSpec says of them, and the names and passwords that members get."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from tests.support.coordinators import Node, World, run
from warren.coordinator.problems import Problem
from warren.coordinator.relays import ACCESS_S, ACCESS_STEP_S, UNSEEN_S
from warren.model.documents import NetworkSpec, Relay
from warren.proto.control.administration import NetworkRequest, RelayRequest

OWN = Relay(name="coordinator-1", hosts=("192.0.2.1",), tls_port=443, certificate_sha256=bytes(32))


def request(name: str = "one", **more: object) -> RelayRequest:
    return RelayRequest(name=name, hosts=("192.0.2.7", "relay.example"), secret="s" * 32, **more)  # type: ignore[arg-type]


async def spec(w: World) -> NetworkSpec:
    found = (await w.map()).spec
    assert found is not None
    return found


def test_members_are_told_of_a_relay_by_a_new_spec_and_of_its_removal_by_another() -> None:
    async def scenario(w: World) -> None:
        before = await spec(w)
        entry = await w.service.add_relay(w.admin, "home", request(tls_port=443, certificate_sha256="ab" * 32))
        with_relay = await spec(w)
        assert [one.name for one in with_relay.relays] == ["one"]
        assert with_relay.relays[0].certificate_sha256 == b"\xab" * 32
        assert with_relay.version > before.version
        assert await w.service.relays(w.admin, "home") == (entry,)
        await w.service.remove_relay(w.admin, "home", "one")
        assert (await spec(w)).relays == ()
        assert [event.action for event in await w.service.events(w.admin, "home")][-2:] == ["relay.add", "relay.remove"]

    run(scenario)


def test_names_and_passwords_are_as_coturn_makes_them_and_good_for_a_day_at_least() -> None:
    async def scenario(w: World) -> None:
        await w.service.add_relay(w.admin, "home", request())
        (credential,) = (await w.service.relay_access(w.key, Node(1).key)).credentials
        expires, _, whom = credential.username.partition(":")
        assert (whom, int(expires)) == (Node(1).text, credential.not_after)
        assert w.clock.now + ACCESS_S < credential.not_after <= w.clock.now + ACCESS_S + ACCESS_STEP_S
        expected = hmac.digest(b"s" * 32, credential.username.encode(), hashlib.sha1)
        assert base64.b64decode(credential.password) == expected
        w.clock.now += 60
        assert (await w.service.relay_access(w.key, Node(1).key)).credentials == (credential,)
        w.clock.now += ACCESS_STEP_S
        (later,) = (await w.service.relay_access(w.key, Node(1).key)).credentials
        assert later.not_after > credential.not_after
        assert (await w.service.relay_access(w.key, Node(2).key)).credentials[0].password != later.password

    run(scenario)


def test_what_members_get_follows_the_relays_there_are() -> None:
    async def scenario(w: World) -> None:
        async def names() -> list[str]:
            return [one.relay for one in (await w.service.relay_access(w.key, Node(1).key)).credentials]

        assert await names() == []
        await w.service.add_relay(w.admin, "home", request("one"))
        assert await names() == ["one"]
        await w.service.offer_own_relay(OWN, b"own secret of the relay")
        assert await names() == ["coordinator-1", "one"]
        await w.service.remove_relay(w.admin, "home", "one")
        assert await names() == ["coordinator-1"]

    run(scenario)


def test_a_coordinators_own_relay_is_of_all_networks_also_of_those_made_later() -> None:
    async def scenario(w: World) -> None:
        await w.service.offer_own_relay(OWN, b"own secret of the relay")
        assert (await spec(w)).relays == (OWN,)
        later = await w.service.create_network(w.admin, NetworkRequest(name="later"))
        assert [one.own for one in await w.service.relays(w.admin, later.id)] == [True]
        with pytest.raises(Problem, match="own relay") as refused:
            await w.service.remove_relay(w.admin, "home", OWN.name)
        assert refused.value.kind == "conflict"
        version = (await spec(w)).version
        await w.service.offer_own_relay(OWN, b"own secret of the relay")
        assert (await spec(w)).version == version
        await w.service.withdraw_own_relay(OWN.name)
        assert (await spec(w)).relays == ()

    run(scenario)


def test_a_relay_whose_coordinator_has_not_run_for_long_is_forgotten() -> None:
    async def scenario(w: World) -> None:
        await w.service.offer_own_relay(OWN, b"own secret of the relay")
        await w.service.add_relay(w.admin, "home", request())
        w.clock.now += UNSEEN_S + 1
        await w.service.sweep()
        assert [one.name for one in (await spec(w)).relays] == ["one"]

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        (request(udp_port=None), "invalid"),
        (request("taken"), "conflict"),
    ],
)
def test_a_relay_that_cannot_be_is_refused_and_nothing_changes(asked: RelayRequest, kind: str) -> None:
    async def scenario(w: World) -> None:
        await w.service.add_relay(w.admin, "home", request("taken"))
        before = await spec(w)
        with pytest.raises(Problem) as refused:
            await w.service.add_relay(w.admin, "home", asked)
        assert refused.value.kind == kind
        assert await spec(w) == before

    run(scenario)


def test_a_network_has_no_more_relays_than_its_spec_has_room_for() -> None:
    async def scenario(w: World) -> None:
        for number in range(16):
            await w.service.add_relay(w.admin, "home", request(f"r{number}"))
        with pytest.raises(Problem) as refused:
            await w.service.add_relay(w.admin, "home", request("more"))
        assert refused.value.kind == "limit"
        with pytest.raises(Problem) as refused:
            await w.service.remove_relay(w.admin, "home", "more")
        assert refused.value.kind == "not-found"

    run(scenario)
