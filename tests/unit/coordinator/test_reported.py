"""Of services and connectors: at how many members they work, and what keeps the others, as those say."""

from __future__ import annotations

from tests.support.coordinators import Node, World, run
from warren.coordinator.reported import SHOWN_MAX
from warren.proto.control.administration import ConnectorRequest, Hindrance, ServiceRequest
from warren.proto.control.messages import Report, Task

WHY = "127.0.0.1:80 refuses connections: is the program there running?"


def said(*tasks: Task) -> Report:
    return Report(uptime_s=1.0, tasks=tasks)


def test_each_member_says_how_it_stands_and_who_has_said_nothing_is_told_from_who_is_away() -> None:
    async def scenario(w: World) -> None:
        nodes = [Node(number) for number in range(1, 5)]
        for node, name in zip(nodes, ("a", "b", "c", "d"), strict=True):
            await w.join(node, name)
        sessions = [await w.service.connected(w.key, node.key, f"192.0.2.{n}:9") for n, node in enumerate(nodes[:3])]
        request = ServiceRequest(name="web", at=("member:a", "member:b", "member:c", "member:d"), target="h:80")
        made = await w.service.add_service(w.admin, "home", request)
        assert made.working_count == 0
        assert [(one.member, one.state) for one in made.hindered] == [
            ("a", "pending"),
            ("b", "pending"),
            ("c", "pending"),
            ("d", "away"),
        ]
        await w.service.report(w.key, nodes[0].key, said(Task(name="service web", state="done")))
        task = Task(name="service web", state="failed", reason=WHY)
        await w.service.report(w.key, nodes[1].key, said(Task(name="dns", state="done"), task))
        await w.service.report(w.key, nodes[2].key, said(Task(name="service web", state="pending")))
        for _ in range(2):  # before and after it is written
            (entry,) = await w.service.services(w.admin, "home")
            assert entry.working_count == 1
            assert entry.hindered[0] == Hindrance(member="b", state="failed", reason=WHY)
            assert [(one.member, one.state) for one in entry.hindered[1:]] == [("c", "pending"), ("d", "away")]
            assert all(one.reason for one in entry.hindered)
            await w.service.heartbeat()
        await w.service.disconnected(sessions[0])
        (entry,) = await w.service.services(w.admin, "home")
        assert entry.working_count == 0
        assert ("a", "away") in [(one.member, one.state) for one in entry.hindered]

    run(scenario)


def test_a_connector_is_told_from_a_service_of_the_same_name() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "a")
        await w.service.connected(w.key, node.key, "192.0.2.1:9")
        await w.service.add_service(w.admin, "home", ServiceRequest(name="x", at=("member:a",), target="h:80"))
        await w.service.add_connector(w.admin, "home", ConnectorRequest(name="x", at=("member:a",), service="x"))
        tasks = Task(name="service x", state="done"), Task(name="connector x", state="failed", reason="in use")
        await w.service.report(w.key, node.key, said(*tasks))
        (service,) = await w.service.services(w.admin, "home")
        (connector,) = await w.service.connectors(w.admin, "home")
        assert (service.working_count, service.hindered) == (1, ())
        assert connector.hindered == (Hindrance(member="a", state="failed", reason="in use"),)

    run(scenario)


def test_of_what_is_added_again_nobody_has_said_anything() -> None:
    async def scenario(w: World) -> None:
        node = Node(1)
        await w.join(node, "a")
        await w.service.connected(w.key, node.key, "192.0.2.1:9")
        request = ServiceRequest(name="web", at=("member:a",), target="h:80")
        await w.service.add_service(w.admin, "home", request)
        await w.service.report(w.key, node.key, said(Task(name="service web", state="done")))
        await w.service.remove_service(w.admin, "home", "web")
        (one,) = (await w.service.add_service(w.admin, "home", request)).hindered
        assert one.state == "pending", "what it said was about the one before"

    run(scenario)


def test_of_very_many_members_the_first_few_are_named() -> None:
    async def scenario(w: World) -> None:
        for number in range(1, SHOWN_MAX + 3):
            await w.join(Node(number), f"n{number}")
        request = ServiceRequest(name="web", at=("members",), target="h:80")
        entry = await w.service.add_service(w.admin, "home", request)
        assert (entry.served_by_count, len(entry.hindered)) == (SHOWN_MAX + 2, SHOWN_MAX)

    run(scenario)
