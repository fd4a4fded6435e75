"""What one network of a node is asked from outside."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path

from tests.unit.agent.network.pair import Pair
from warren.agent.streams.order import Class, Nearness
from warren.model.services import Service
from warren.proto.control.messages import Task


def test_how_near_members_are_and_where_this_node_is_reached(tmp_path: Path) -> None:
    async def run() -> None:
        pair = await Pair(tmp_path).start()
        runner, other = pair.a.runner, pair.b.key.raw
        assert runner.situation.nearness(pair.a.key.raw) == Nearness(Class.SELF, 0.0)
        assert runner.situation.nearness(b"?" * 32).by is Class.UNREACHABLE
        assert await pair.passes(pair.a, pair.b)
        await pair.time(3)
        assert runner.situation.nearness(other).by is Class.DIRECT
        assert ip_address("192.0.2.10") in runner.situation.own_ips()
        await pair.a.end()
        await pair.b.end()

    asyncio.run(run())


def test_a_service_has_an_address_at_the_interface_and_its_name_leads_to_members_that_serve_it(tmp_path: Path) -> None:
    async def run() -> None:
        pair = await Pair(tmp_path).start()
        pair.coordinator.services = (Service(name="web", at=("members",), target="127.0.0.1:80"),)
        pair.coordinator.put_spec()
        before = pair.a.runner.situation.directory
        await pair.time(2)
        runner, own, other = pair.a.runner, pair.a.runner.situation.own, pair.b.runner.situation.own
        assert own is not None
        assert other is not None
        assert before is not runner.situation.directory
        assert runner.situation.directory is runner.situation.directory
        served = str(own.service_address("web"))
        assert served in {str(one.value.ip) for one in await pair.a.host.netlink.addresses()}
        assert runner.situation.addresses_of("web.svc") == (served, str(other.service_address("web")))
        assert runner.situation.addresses_of("b")[0] == str(other.address6)
        assert runner.situation.addresses_of("web.svc.elsewhere") == ()
        pair.coordinator.services = ()
        pair.coordinator.put_spec()
        await pair.time(2)
        assert served not in {str(one.value.ip) for one in await pair.a.host.netlink.addresses()}
        await pair.a.end()
        await pair.b.end()

    asyncio.run(run())


def test_tasks_of_streams_are_in_status_and_report_and_do_not_make_the_network_a_bad_one(tmp_path: Path) -> None:
    async def run() -> None:
        pair = await Pair(tmp_path).start()
        runner = pair.a.runner
        assert runner.situation.settled
        failed = Task(name="connector shop", state="failed", reason="port 443 is in use")
        runner.situation.tell_tasks((failed,))
        await pair.time(3)
        assert failed in runner.situation.status().tasks
        assert failed in runner.situation.report().tasks
        assert failed in pair.a.link.reports[-1].tasks
        assert runner.situation.status().state == "up"
        await pair.a.end()
        await pair.b.end()

    asyncio.run(run())


def test_a_network_is_settled_when_its_documents_are_known_or_a_coordinator_has_said_something(tmp_path: Path) -> None:
    async def run() -> None:
        pair = await Pair(tmp_path).start()
        again = await pair.again(pair.a, connect=False)
        assert not again.runner.situation.settled
        await again.turn()
        assert again.runner.situation.settled  # from what it has saved
        turned = []
        again.runner.turned = lambda: turned.append(1)
        await again.turn()
        assert turned == [1]
        await again.end()
        await pair.b.end()

    asyncio.run(run())
