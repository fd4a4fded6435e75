"""Every path of the API × every kind of token, generated from the coordinator's own description."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import httpx2
import msgspec

from tests.unit.coordinator.web.harness import Running, answer_of, running
from warren.coordinator.web import openapi, public_routes, routes
from warren.identity.signing import VerifyKey
from warren.proto.control.administration import (
    ConnectorRequest,
    InviteRequest,
    RelayRequest,
    ServiceRequest,
    TokenRequest,
)

PUBLIC = {"read_identity", "read_liveness", "read_readiness"}


@dataclass
class Case:
    """How to ask for one operation so that an administrator gets it."""

    reader: int = 200
    """What a token of the role reader gets."""
    foreign: int = 404
    """What an administrator's token for another network gets."""
    right: int = 200
    body: Any = None


WRITE = 403
STATE = {"policy": [{"action": "allow", "sources": ["members"], "destinations": ["members"]}]}
CASES = {
    "create_token": Case(WRITE, 403, 201, {"label": "new", "ttl_s": 60}),
    "list_tokens": Case(WRITE, 200),
    "revoke_token": Case(WRITE),
    "create_network": Case(WRITE, 403, 201, {"name": "third"}),
    "list_networks": Case(foreign=200),
    "read_network": Case(),
    "read_state": Case(),
    "plan_state": Case(body=STATE),
    "apply_state": Case(WRITE, body={"state": STATE}),
    "create_invite": Case(WRITE, right=201, body={}),
    "list_invites": Case(),
    "revoke_invite": Case(WRITE),
    "add_relay": Case(WRITE, right=201, body={"name": "two", "hosts": ["192.0.2.8"], "secret": "s" * 16}),
    "list_relays": Case(),
    "remove_relay": Case(WRITE),
    "add_service": Case(WRITE, right=201, body={"name": "two", "at": ["members"], "target": "localhost:80"}),
    "list_services": Case(),
    "add_connector": Case(WRITE, right=201, body={"name": "two", "at": ["members"], "service": "free", "listen": "81"}),
    "list_connectors": Case(),
    "remove_connector": Case(WRITE),
    "remove_service": Case(WRITE),
    "list_members": Case(),
    "read_member": Case(),
    "change_member": Case(WRITE, body={"tags": ["db"]}),
    "list_revocations": Case(),
    "read_status": Case(),
    "list_network_events": Case(),
    "list_events": Case(foreign=200),
    "read_metrics": Case(foreign=403),
    "revoke_member": Case(WRITE),
}


def operations() -> dict[str, tuple[str, str]]:
    """Operation id → method and path, of all that need a token."""
    document = openapi.describe(public_routes.PUBLIC, routes.GUARDED)
    return {
        operation["operationId"]: (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation.get("security")
    }


def test_every_operation_of_the_description_has_a_case_and_the_others_are_known_to_be_public() -> None:
    document = openapi.describe(public_routes.PUBLIC, routes.GUARDED)
    named = {operation["operationId"] for methods in document["paths"].values() for operation in methods.values()}
    assert set(operations()) == set(CASES)
    assert named - set(operations()) == PUBLIC


INVENTORY = """
GET /health/live
GET /health/ready
GET /metrics
GET /v1/events
GET /v1/identity
GET /v1/networks
GET /v1/networks/{network}
GET /v1/networks/{network}/connectors
GET /v1/networks/{network}/events
GET /v1/networks/{network}/invites
GET /v1/networks/{network}/members
GET /v1/networks/{network}/members/{member}
GET /v1/networks/{network}/relays
GET /v1/networks/{network}/revocations
GET /v1/networks/{network}/services
GET /v1/networks/{network}/state
GET /v1/networks/{network}/status
GET /v1/openapi.json
GET /v1/tokens
DELETE /v1/networks/{network}/connectors/{name}
DELETE /v1/networks/{network}/invites/{invite}
DELETE /v1/networks/{network}/members/{member}
DELETE /v1/networks/{network}/relays/{relay}
DELETE /v1/networks/{network}/services/{name}
DELETE /v1/tokens/{token}
PATCH /v1/networks/{network}/members/{member}
POST /v1/networks
POST /v1/networks/{network}/apply
POST /v1/networks/{network}/connectors
POST /v1/networks/{network}/invites
POST /v1/networks/{network}/plan
POST /v1/networks/{network}/relays
POST /v1/networks/{network}/services
POST /v1/tokens
"""


def test_the_application_has_exactly_the_paths_that_are_meant() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            rest = coordinator.web.server.config.app._rest
            found = {
                f"{method} {re.sub(r':str', '', route.path_format if hasattr(route, 'path_format') else route.path)}"
                for route in rest.routes
                for method in route.methods
                if method != "OPTIONS"
            }
            assert found == set(INVENTORY.strip().splitlines())
            document = openapi.describe(public_routes.PUBLIC, routes.GUARDED)
            described = {f"{method.upper()} {path}" for path, one in document["paths"].items() for method in one}
            assert described == found - {"GET /v1/openapi.json"}

    asyncio.run(scenario())


@dataclass
class World:
    coordinator: Running
    home: VerifyKey
    ids: dict[str, str]
    tokens: dict[str, str]


async def world(coordinator: Running) -> World:
    home, other = await coordinator.make_network("home"), await coordinator.make_network("other")
    await coordinator.make_member(home, "web1")
    invite = await coordinator.service.create_invite(coordinator.admin, "home", InviteRequest())
    spare = await coordinator.service.create_token(coordinator.admin, TokenRequest(label="spare", ttl_s=3600))
    request = RelayRequest(name="one", hosts=("192.0.2.7",), secret="s" * 16)
    relay = await coordinator.service.add_relay(coordinator.admin, "home", request)
    for name in ("web", "free"):
        served = ServiceRequest(name=name, at=("member:web1",), target="localhost:80")
        await coordinator.service.add_service(coordinator.admin, "home", served)
    taken = ConnectorRequest(name="web", at=("member:web1",), service="web")
    await coordinator.service.add_connector(coordinator.admin, "home", taken)
    tokens = {
        "expired": await coordinator.make_token(ttl_s=1),
        "reader": await coordinator.make_token(role="reader"),
        "own reader": await coordinator.make_token(role="reader", network="home"),
        "foreign": await coordinator.make_token(network=str(other)),
        "foreign reader": await coordinator.make_token(network=str(other), role="reader"),
        "revoked": await coordinator.make_token(label="gone"),
        "garbage": "wrt_" + "a" * 52,
        "right": coordinator.token,
    }
    gone = next(one for one in await coordinator.service.tokens(coordinator.admin) if one.label == "gone")
    await coordinator.service.revoke_token(coordinator.admin, gone.id)
    coordinator.clock.now += 10
    return World(
        coordinator,
        home,
        {
            "network": "home",
            "member": "web1",
            "invite": invite.id,
            "token": spare.id,
            "relay": relay.name,
            "name": "web",
        },
        tokens,
    )


async def ask(world: World, client: httpx2.AsyncClient, operation: str) -> httpx2.Response:
    method, path = operations()[operation]
    return await client.request(method, path.format(**world.ids), json=CASES[operation].body)


def test_who_has_no_valid_token_gets_nothing_anywhere_and_changes_nothing() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            there = await world(coordinator)
            before = await coordinator.service.events(coordinator.admin, None)
            for kind in ("none", "garbage", "expired", "revoked"):
                async with coordinator.client(there.tokens.get(kind)) as client:
                    for operation in CASES:
                        answer = answer_of(await ask(there, client, operation))
                        assert answer.status == 401, (kind, operation, answer)
                        assert answer.problem["type"] == "urn:warren:problem:unauthorised"
                        assert answer.headers["www-authenticate"].startswith("Bearer")
            assert await coordinator.service.events(coordinator.admin, None) == before

    asyncio.run(scenario())


def test_a_token_of_another_network_sees_and_changes_nothing_of_this_one() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            there = await world(coordinator)
            before = await coordinator.service.events(coordinator.admin, None)
            for kind in ("foreign", "foreign reader"):
                async with coordinator.client(there.tokens[kind]) as client:
                    for operation, case in CASES.items():
                        answer = answer_of(await ask(there, client, operation))
                        allowed = {case.foreign} if kind == "foreign" else {case.foreign, 403}
                        assert answer.status in allowed, (kind, operation, answer)
                        assert str(there.home) not in answer.body.decode(), operation
                        assert b"web1" not in answer.body or operation.endswith("_member"), operation
                        if answer.status >= 400:
                            assert answer.problem
            assert await coordinator.service.events(coordinator.admin, None) == before

    asyncio.run(scenario())


def test_a_reader_reads_and_changes_nothing() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            there = await world(coordinator)
            before = await coordinator.service.events(coordinator.admin, None)
            async with coordinator.client(there.tokens["reader"]) as client:
                for operation, case in CASES.items():
                    answer = answer_of(await ask(there, client, operation))
                    assert answer.status == case.reader, (operation, answer)
                    if answer.status >= 400:
                        assert answer.problem["type"] == "urn:warren:problem:forbidden"
            assert await coordinator.service.events(coordinator.admin, None) == before

    asyncio.run(scenario())


def test_an_administrator_gets_everything_in_the_form_that_is_described() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            there = await world(coordinator)
            handlers = {handler.handler_name: handler for handler in routes.GUARDED}
            async with coordinator.client(there.tokens["right"]) as client:
                for operation, case in CASES.items():
                    response = await ask(there, client, operation)
                    assert response.status_code == case.right, (operation, response.text)
                    assert response.headers["cache-control"] == "no-store"
                    if operation != "read_metrics":
                        wanted = handlers[operation].parsed_fn_signature.return_type.annotation
                        assert msgspec.json.decode(response.content, type=wanted) is not None

    asyncio.run(scenario())


def test_there_is_exactly_one_bearer_token_or_none() -> None:
    async def scenario() -> None:
        async with running() as coordinator:
            right = f"Bearer {coordinator.token}"
            for headers in (
                [("authorization", right), ("authorization", right)],
                [("authorization", f"Basic {coordinator.token}")],
                [("authorization", coordinator.token)],
                [("authorization", "Bearer")],
                [("authorization", "Bearer é")],
                [("authorization", f"{right}, {right}")],
                [("authorization", f"{right}{'a' * 300}")],
                [("x-authorization", right)],
                [("cookie", f"token={coordinator.token}")],
            ):
                async with coordinator.client() as client:
                    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
                    response = await client.get("/v1/networks", headers=encoded)
                assert answer_of(response).problem["status"] == 401, headers
            async with coordinator.client() as client:
                assert (await client.get(f"/v1/networks?token={coordinator.token}")).status_code == 401
                assert (await client.get("/v1/networks", headers={"authorization": right})).status_code == 200
                lower = {"authorization": f"bearer {coordinator.token}"}
                assert (await client.get("/v1/networks", headers=lower)).status_code == 200

    asyncio.run(scenario())


def test_wrong_tokens_are_slowed_down_by_source() -> None:
    from tests.unit.coordinator.web.harness import NO_RATE
    from warren.coordinator.limits import Limits, Rate

    async def scenario() -> None:
        limits = Limits(requests=NO_RATE, failures=Rate(burst=3, per_s=0.001))
        async with running(limits) as coordinator:
            async with coordinator.client("wrt_" + "b" * 52) as client:
                statuses = [(await client.get("/v1/networks")).status_code for _ in range(5)]
                last = answer_of(await client.get("/v1/networks"))
            assert statuses == [401, 401, 401, 429, 429]
            assert int(last.headers["retry-after"]) >= 1
            assert last.problem["type"] == "urn:warren:problem:limit"

    asyncio.run(scenario())


def test_too_many_requests_of_one_source_or_token_are_told_when_to_come_back() -> None:
    from tests.unit.coordinator.web.harness import NO_RATE
    from warren.coordinator.limits import Limits, Rate

    async def scenario() -> None:
        async with running(Limits(requests=Rate(burst=4, per_s=0.001), failures=NO_RATE)) as coordinator:
            async with coordinator.client(coordinator.token) as client:
                statuses = [(await client.get("/v1/networks")).status_code for _ in range(6)]
            assert statuses == [200] * 4 + [429] * 2

    asyncio.run(scenario())
