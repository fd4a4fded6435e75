"""The REST API as methods, over real TLS on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.support.rest_server import SECRET, Answer, Asked, RestServer
from warren.api.rest import AdminClient, RequestInvalid
from warren.errors import OperationFailed, Unreachable, UsageError
from warren.model.tickets import Access
from warren.proto.control.administration import (
    ConnectorEntry,
    ConnectorRequest,
    Event,
    Invite,
    InviteRequest,
    MemberChange,
    Network,
    NetworkRequest,
    NetworkStatus,
    NewToken,
    RelayEntry,
    RelayRequest,
    Revoked,
    ServiceEntry,
    ServiceRequest,
    TokenRequest,
)
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan, Problem

AT = datetime(2026, 11, 21, tzinfo=UTC)
KEY = "a" * 52
NETWORK = Network(
    id=KEY, name="home", prefix6="fd00::/48", prefix4=None, suffix="internal", lease_s=60, version=1, revision=1,
    members=0, created=AT,
)  # fmt: skip
TOKEN = NewToken(id="1", label="me", role="admin", network=None, created=AT, expires=AT, secret="s")
INVITE = Invite(id="1", uses=1, used=0, tags=(), ephemeral=False, created=AT, expires=AT, revoked=False)
EVENT = Event(sequence=1, at=AT, actor="a", action="b", network=None, subject="c", detail="d")
PLAN = Plan(version=1, changes=(), problems=())
STATE = DesiredState(policy=())
RELAY = RelayEntry(
    name="one", hosts=("192.0.2.7",), udp_port=3478, tcp_port=None, tls_port=None, certificate_sha256=None, own=False,
    created=AT,
)  # fmt: skip
SERVICE_REQUEST = ServiceRequest(name="web", at=("members",), target="localhost:80")
SERVICE = ServiceEntry(
    name="web",
    at=("members",),
    target="localhost:80",
    port=80,
    full_name="web.svc.home.internal",
    served_by=("web1",),
    served_by_count=1,
    connectors=("shop",),
    warnings=(),
)
CONNECTOR_REQUEST = ConnectorRequest(name="shop", at=("members",), service="web")
CONNECTOR = ConnectorEntry(
    name="shop",
    at=("members",),
    service="web",
    listen="127.0.0.1:80",
    taken_by=("web1",),
    taken_by_count=1,
    warnings=(),
)
RELAY_REQUEST = RelayRequest(name="one", hosts=("192.0.2.7",), secret="s" * 16)
REVOKED = Revoked(id=KEY, name="web1", at=AT, lease_ended=AT)
STATUS = NetworkStatus(network=NETWORK, connected=0, members=())


def ask(answer: Callable[[Asked], Answer], question: Callable[[AdminClient], Awaitable[Any]]) -> tuple[Any, Asked]:
    """What the client made of the answer, and the one request that the server saw."""

    async def run() -> tuple[Any, Asked]:
        async with RestServer(answer).serving() as server, AdminClient(server.access) as client:
            got = await question(client)
            (asked,) = server.asked
            return got, asked

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("question", "method", "target", "value"),
    [
        (lambda c: c.tokens(), "GET", "/v1/tokens", ()),
        (lambda c: c.create_token(TokenRequest(label="me", ttl_s=1)), "POST", "/v1/tokens", TOKEN),
        (lambda c: c.networks(), "GET", "/v1/networks", (NETWORK,)),
        (lambda c: c.create_network(NetworkRequest(name="home")), "POST", "/v1/networks", NETWORK),
        (lambda c: c.network("home"), "GET", "/v1/networks/home", NETWORK),
        (lambda c: c.desired_state("home"), "GET", "/v1/networks/home/state", STATE),
        (lambda c: c.plan("home", STATE), "POST", "/v1/networks/home/plan", PLAN),
        (lambda c: c.apply("home", ApplyRequest(state=STATE)), "POST", "/v1/networks/home/apply", PLAN),
        (lambda c: c.invites("home"), "GET", "/v1/networks/home/invites", (INVITE,)),
        (lambda c: c.revoke_invite("home", "1"), "DELETE", "/v1/networks/home/invites/1", INVITE),
        (lambda c: c.relays("home"), "GET", "/v1/networks/home/relays", (RELAY,)),
        (lambda c: c.add_relay("home", RELAY_REQUEST), "POST", "/v1/networks/home/relays", RELAY),
        (lambda c: c.remove_relay("home", "one"), "DELETE", "/v1/networks/home/relays/one", RELAY),
        (lambda c: c.services("home"), "GET", "/v1/networks/home/services", (SERVICE,)),
        (lambda c: c.add_service("home", SERVICE_REQUEST), "POST", "/v1/networks/home/services", SERVICE),
        (lambda c: c.remove_service("home", "web"), "DELETE", "/v1/networks/home/services/web", SERVICE),
        (lambda c: c.connectors("home"), "GET", "/v1/networks/home/connectors", (CONNECTOR,)),
        (lambda c: c.add_connector("home", CONNECTOR_REQUEST), "POST", "/v1/networks/home/connectors", CONNECTOR),
        (lambda c: c.remove_connector("home", "shop"), "DELETE", "/v1/networks/home/connectors/shop", CONNECTOR),
        (lambda c: c.members("home"), "GET", "/v1/networks/home/members", ()),
        (lambda c: c.revoke_member("home", "web1"), "DELETE", "/v1/networks/home/members/web1", REVOKED),
        (lambda c: c.revocations("home"), "GET", "/v1/networks/home/revocations", (REVOKED,)),
        (lambda c: c.status("home"), "GET", "/v1/networks/home/status", STATUS),
        (lambda c: c.events(), "GET", "/v1/events?limit=100", (EVENT,)),
        (lambda c: c.events("home", after=5, limit=7), "GET", "/v1/networks/home/events?after=5&limit=7", (EVENT,)),
    ],
)
def test_each_method_is_one_request(
    question: Callable[[AdminClient], Awaitable[Any]], method: str, target: str, value: object
) -> None:
    got, asked = ask(lambda _: (200, value), question)
    assert got == value
    assert (asked.method, asked.target) == (method, target)
    assert asked.headers["authorization"] == f"Bearer {SECRET}"


def test_a_body_travels_as_json() -> None:
    _, asked = ask(lambda _: (201, INVITE_MADE), lambda c: c.create_invite("home", InviteRequest(uses=3)))
    assert asked.headers["content-type"] == "application/json"
    assert msgspec.json.decode(asked.body, type=InviteRequest) == InviteRequest(uses=3)


INVITE_MADE = {**msgspec.to_builtins(INVITE), "ticket": "warren-ticket:x"}


@pytest.mark.parametrize("name", ["../tokens", "a/b", "..", "a?b#c", "a b%", "ü", "", "a\n", "%2e"])
def test_no_name_leads_to_another_path(name: str) -> None:
    async def run() -> None:
        async with RestServer(lambda _: (200, NETWORK)).serving() as server, AdminClient(server.access) as client:
            for question in (client.network(name), client.revoke_member("home", name), client.revoke_token(name)):
                with pytest.raises(UsageError, match="neither a name nor a key"):
                    await question
            assert server.asked == []

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "kind", "exit_status"),
    [
        (400, UsageError, 2),
        (422, UsageError, 2),
        (401, OperationFailed, 1),
        (403, OperationFailed, 1),
        (404, OperationFailed, 1),
        (409, OperationFailed, 1),
        (429, OperationFailed, 1),
        (500, OperationFailed, 1),
        (503, Unreachable, 3),
    ],
)
def test_problems_become_errors_that_say_what_to_do(status: int, kind: type[OperationFailed], exit_status: int) -> None:
    body = {"type": "urn:warren:problem:x", "title": "The title", "status": status, "detail": "why", "remedy": "Do it."}
    with pytest.raises(kind, match=r"^why; do it$") as caught:
        ask(lambda _: (status, body), lambda c: c.network("home"))
    assert caught.value.exit_status == exit_status


def test_what_is_wrong_with_a_request_is_named_place_by_place() -> None:
    wrong = Problem(where="policy[2].sources", what="no such tag")
    with pytest.raises(RequestInvalid) as caught:
        ask(lambda _: (422, {"title": "Invalid", "problems": [wrong]}), lambda c: c.plan("home", STATE))
    assert caught.value.problems == (wrong,)


def test_an_answer_without_a_problem_names_the_status() -> None:
    with pytest.raises(OperationFailed, match="HTTP status 418"):
        ask(lambda _: (418, b"<html>"), lambda c: c.networks())


def test_an_answer_of_a_later_version_is_named_as_such() -> None:
    with pytest.raises(OperationFailed, match="update Warren"):
        ask(lambda _: (200, {"what": "is this"}), lambda c: c.network("home"))


def test_a_lost_answer_to_a_write_leaves_a_doubt_and_is_not_repeated() -> None:
    async def run() -> None:
        async with RestServer(lambda _: None).serving() as server, AdminClient(server.access) as client:
            with pytest.raises(Unreachable, match="may have been done"):
                await client.create_network(NetworkRequest(name="home"))
            assert len(server.asked) == 1

    asyncio.run(run())


def test_a_lost_answer_to_a_question_is_asked_for_once_more() -> None:
    answers: list[Answer] = [None, (200, NETWORK)]

    async def run() -> None:
        async with RestServer(lambda _: answers.pop(0)).serving() as server, AdminClient(server.access) as client:
            assert await client.network("home") == NETWORK
            assert len(server.asked) == 2

    asyncio.run(run())


def test_a_question_that_is_never_answered_is_unreachable() -> None:
    async def run() -> None:
        async with RestServer(lambda _: None).serving() as server, AdminClient(server.access) as client:
            with pytest.raises(Unreachable, match=r"before it answered$"):
                await client.networks()

    asyncio.run(run())


def test_it_moves_to_another_replica() -> None:
    async def run() -> None:
        async with RestServer(lambda _: (200, ()), number=2).serving() as second:
            async with RestServer(lambda _: (200, ())).serving() as first:
                access = Access((first.url, second.url), first.access.key, SECRET)
                client = AdminClient(access)
                await client.networks()
                assert client.url == first.url
            await client.networks()
            assert client.url == second.url
            await client.__aexit__()

    asyncio.run(run())


def test_when_nobody_is_left_it_is_unreachable() -> None:
    async def run() -> None:
        async with RestServer(lambda _: (200, ())).serving() as server:
            client = AdminClient(server.access)
            await client.networks()
        with pytest.raises(Unreachable, match="cannot be reached"):
            await client.create_network(NetworkRequest(name="home"))
        await client.__aexit__()

    asyncio.run(run())


def test_another_coordinator_never_sees_the_token() -> None:
    async def run() -> None:
        async with RestServer(lambda _: (200, ())).serving() as server:
            wrong = Access((server.url,), type(server.access.key)(bytes(32)), SECRET)
            async with AdminClient(wrong) as client:
                with pytest.raises(OperationFailed, match="another coordinator"):
                    await client.networks()
            assert server.asked == []
            assert SECRET not in repr(client)

    asyncio.run(run())


def test_a_change_of_a_member_says_only_what_changes() -> None:
    with pytest.raises(OperationFailed, match=r'^{"tags":\["a"\]}$'):
        ask(
            lambda asked: (404, {"title": asked.body.decode()}),
            lambda c: c.change_member("home", "web1", MemberChange(tags=("a",))),
        )
