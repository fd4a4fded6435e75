"""Services and connectors one by one: what the NetworkSpec then says, and what is refused without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tests.support.coordinators import Node, World, run, world
from tests.unit.coordinator.asked import ALL, connector, service, spec
from warren.coordinator.problems import Problem
from warren.model.documents import Rule
from warren.model.services import Connector, Service
from warren.proto.control.desired_services import SPEC_BYTES_MAX
from warren.proto.control.desired_state import ApplyRequest, DesiredState, ServiceState


def test_members_are_told_of_a_service_and_a_connector_and_of_their_removal() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        versions = [(await spec(w)).version]
        entry = await w.service.add_service(w.admin, "home", service(target="[2001:db8::7]:8080", port=80))
        assert (entry.full_name, entry.port, entry.served_by, entry.served_by_count, entry.connectors) == (
            "web.svc.home.internal",
            80,
            ("n",),
            1,
            (),
        )
        versions.append((await spec(w)).version)
        assert (await spec(w)).services == (
            Service(name="web", at=("member:n",), target="[2001:db8::7]:8080", port=80),
        )
        made = await w.service.add_connector(w.admin, "home", connector(kind="tls", domains=("a.example",)))
        assert (made.listen, made.taken_by, made.taken_by_count, made.warnings) == ("*:443", ("n",), 1, ())
        versions.append((await spec(w)).version)
        assert (await spec(w)).connectors == (
            Connector(name="shop", at=("member:n",), service="web", kind="tls", domains=("a.example",)),
        )
        assert await w.service.connectors(w.admin, "home") == (made,)
        (listed,) = await w.service.services(w.admin, "home")
        assert listed.connectors == ("shop",)
        assert await w.service.remove_connector(w.admin, "home", "shop") == made
        assert await w.service.remove_service(w.admin, "home", "web") == entry
        versions.append((await spec(w)).version)
        assert ((await spec(w)).services, (await spec(w)).connectors) == ((), ())
        assert sorted(set(versions)) == versions
        events = (await w.service.events(w.admin, "home"))[-4:]
        assert [(event.action, event.subject, event.detail) for event in events] == [
            ("service.add", "web", "tcp 80 at member:n to [2001:db8::7]:8080"),
            ("connector.add", "shop", "tls a.example at member:n to service web"),
            ("connector.remove", "shop", ""),
            ("service.remove", "web", ""),
        ]

    run(scenario)


async def prepared(w: World) -> None:
    await w.join(Node(1), "n", tags=("gw",))
    await w.join(Node(2), "m", tags=("gw",))
    await w.service.add_service(w.admin, "home", service())
    await w.service.add_service(w.admin, "home", service("dns", target="localhost:53", protocol="udp"))
    await w.service.add_service(w.admin, "home", service("files", target="localhost:21", helper="ftp"))
    await w.service.add_connector(w.admin, "home", connector("local", listen="8080"))
    await w.service.add_connector(w.admin, "home", connector("tls", kind="tls", domains=("a.example",)))
    await w.service.add_connector(w.admin, "home", connector("site", kind="http", domains=("b.example",)))


REFUSED: list[tuple[str, Callable[[World], Awaitable[object]], str, str]] = [
    (
        "a name that is taken",
        lambda w: w.service.add_service(w.admin, "home", service()),
        "conflict",
        "there is a service web",
    ),
    (
        "a connector's too",
        lambda w: w.service.add_connector(w.admin, "home", connector("local")),
        "conflict",
        "there is a connector local",
    ),
    (
        "a service that is not there",
        lambda w: w.service.add_connector(w.admin, "home", connector(to="wbe")),
        "invalid",
        r"connector shop: there is no service wbe \(did you mean web\?\)",
    ),
    (
        "a web site of UDP",
        lambda w: w.service.add_connector(w.admin, "home", connector(to="dns", kind="http")),
        "invalid",
        "connector shop: kind http carries streams of TCP, and the service speaks UDP; take kind port",
    ),
    (
        "TLS names of UDP",
        lambda w: w.service.add_connector(w.admin, "home", connector(to="dns", kind="tls", domains=("c.example",))),
        "invalid",
        "kind tls carries streams of TCP",
    ),
    (
        "a Unix socket of UDP",
        lambda w: w.service.add_connector(w.admin, "home", connector(to="dns", listen="unix:/run/dns")),
        "invalid",
        "a Unix socket takes streams of TCP only",
    ),
    (
        "FTP behind a load balancer",
        lambda w: w.service.add_connector(w.admin, "home", connector(to="files", accepts_proxy_protocol=True)),
        "invalid",
        "FTP's data connections would come past the load balancer",
    ),
    (
        "a port that is taken at one of its members",
        lambda w: w.service.add_connector(w.admin, "home", connector(at="tag:gw", listen="*:8080")),
        "conflict",
        r"connector shop: connector local listens at tcp 127\.0\.0\.1:8080 of n already; choose another port",
    ),
    (
        "a whole port that TLS names have",
        lambda w: w.service.add_connector(w.admin, "home", connector(listen="127.0.0.1:443")),
        "conflict",
        r"connector shop: connector site listens at tcp \*:443 of n already",
    ),
    (
        "a domain that is taken",
        lambda w: w.service.add_connector(w.admin, "home", connector(kind="http", domains=("c.example", "a.example"))),
        "conflict",
        "connector shop: connector tls has a.example at n already; leave it to one of them",
    ),
    (
        "a service that a connector leads to",
        lambda w: w.service.remove_service(w.admin, "home", "web"),
        "conflict",
        "3 connectors, as local, lead to service web",
    ),
    (
        "what is not there",
        lambda w: w.service.remove_service(w.admin, "home", "x\x1b"),
        "not-found",
        r"no service 'x\\x1b'",
    ),
    ("or a connector", lambda w: w.service.remove_connector(w.admin, "home", "x"), "not-found", "no connector 'x'"),
    (
        "or the network",
        lambda w: w.service.add_service(w.admin, "away", service("x")),
        "not-found",
        "no network 'away'",
    ),
]


@pytest.mark.parametrize(("ask", "kind", "why"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_cannot_be_is_refused_with_a_reason_and_nothing_changes(
    ask: Callable[[World], Awaitable[object]], kind: str, why: str
) -> None:
    async def scenario(w: World) -> None:
        await prepared(w)
        before = (await spec(w), (await w.map()).revision, await w.actions())
        with pytest.raises(Problem, match=why) as refused:
            await ask(w)
        assert refused.value.kind == kind
        assert refused.value.remedy
        assert (await spec(w), (await w.map()).revision, await w.actions()) == before

    run(scenario)


def test_what_is_perhaps_not_meant_is_said_and_done() -> None:
    async def scenario(w: World) -> None:
        await w.join(Node(1), "n")
        await w.join(Node(2), "m")
        entry = await w.service.add_service(w.admin, "home", service(at="member:o tag:web 2001:db8::/64"))
        assert entry.served_by == ()
        assert entry.warnings == (
            "there is no member o, so member:o matches nobody",
            "no member has the tag web, so tag:web matches nobody",
            "2001:db8::/64 is neither in the network nor behind a member, so it matches nobody; give it a route first",
        )
        await w.ticket(tags=("web",))
        (listed,) = await w.service.services(w.admin, "home")
        assert [warning for warning in listed.warnings if "tag:web" in warning] == []
        rule = Rule(action="allow", sources=("member:n",), destinations=("members",))
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(rule,))))
        await w.service.add_service(w.admin, "home", service("db", at="members", target="localhost:5432"))
        made = await w.service.add_connector(w.admin, "home", connector("db", at="members", to="db"))
        assert made.warnings == (
            "the policy does not let m reach service db (tcp 5432), so all its streams are refused there",
        )

    run(scenario)


def test_a_network_has_as_many_services_as_its_spec_has_room_for() -> None:
    async def scenario(w: World) -> None:
        states = {f"s{number}": ServiceState(at=("member:n",), target="localhost:80") for number in range(1024)}
        await w.service.apply(w.admin, "home", ApplyRequest(state=DesiredState(policy=(ALL,), services=states)))
        assert len((await spec(w)).services) == 1024
        with pytest.raises(Problem, match="there are 1024 services") as refused:
            await w.service.add_service(w.admin, "home", service("more"))
        assert refused.value.kind == "limit"

    run(scenario)


def test_a_document_that_members_would_not_take_is_not_made() -> None:
    async def scenario(w: World) -> None:
        long = tuple(f"tag:{'x' * 55}{number}" for number in range(64))
        one = ServiceState(at=long, target="h:1", comment="c" * 256)
        at = DesiredState(policy=(ALL,), services={f"s{number}": one for number in range(300)})
        before = await spec(w)
        with pytest.raises(Problem, match=r"services: policy, services and connectors make a document of \d+ bytes"):
            await w.service.apply(w.admin, "home", ApplyRequest(state=at))
        assert await spec(w) == before

    run(scenario)


def test_of_writers_at_once_each_gets_all_or_nothing(tmp_path: Path) -> None:
    """Two hands for each of ten services, and removals between; none is lost and none is there twice."""

    async def main() -> None:
        async with world(f"sqlite:///{tmp_path}/c.db") as w:
            await w.join(Node(1), "n")
            names = [f"s{number}" for number in range(10)]
            asked = [w.service.add_service(w.admin, "home", service(name)) for name in names * 2]
            done = await asyncio.gather(*asked, return_exceptions=True)
            refused = [one for one in done if isinstance(one, Problem)]
            assert [one.kind for one in refused] == ["conflict"] * 10
            assert sorted(one.name for one in (await spec(w)).services) == sorted(names)
            both = await asyncio.gather(
                *(
                    w.service.add_connector(w.admin, "home", connector(f"c{n}", to="s1", listen="*:81"))
                    for n in range(5)
                ),
                *(w.service.remove_service(w.admin, "home", name) for name in names[5:]),
                return_exceptions=True,
            )
            assert len([one for one in both if isinstance(one, Problem)]) == 4, "one place, one connector"
            now = await spec(w)
            assert (len(now.services), len(now.connectors)) == (5, 1)
            assert now.version == (await w.service.network(w.admin, "home")).version

    asyncio.run(main())


def test_the_largest_document_that_is_made_reaches_members() -> None:
    async def scenario(w: World) -> None:
        long = tuple(f"tag:{'x' * 50}{number}" for number in range(14))
        one = ServiceState(at=long, target="localhost:80", comment="c" * 64)
        many = DesiredState(policy=(ALL,), services={f"s{number}": one for number in range(1024)})
        planned = await w.service.plan(w.admin, "home", many)
        assert planned.problems == ()
        await w.service.apply(w.admin, "home", ApplyRequest(state=many))
        found = await spec(w)
        assert len(found.services) == 1024
        assert len(msgspec.msgpack.encode(found)) > SPEC_BYTES_MAX * 9 // 10

    run(scenario)
