"""The driver: with networks, a stream process and a Caddy in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.unit.agent.streams.fakes import FakeWeb, view
from tests.unit.agent.streams.keeper_world import SHOP, WEB, FakeNetwork, World, running
from warren.agent.streams import process as stream_process
from warren.agent.streams.config import Gateway, StreamConfig
from warren.agent.streams.doors import Doors
from warren.agent.streams.forward_store import ForwardStore
from warren.agent.streams.forward_text import parse_forward
from warren.errors import OperationFailed, UsageError
from warren.ingress.sites import Ports, Settings, Site
from warren.model.documents import Rule
from warren.model.services import Connector, Service


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_process, "AGAIN_S", 0.0)
    monkeypatch.setattr("warren.agent.streams.keeper.PAUSE_S", 0.0)
    monkeypatch.setattr("warren.agent.streams.keeper.AGAIN_S", 0.01)


def test_nothing_is_started_while_there_is_nothing_to_do_and_ended_when_there_is_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view())
        async with running(World(tmp_path, network)) as world:
            await world.keeper.settle()
            assert (world.processes, world.webs) == ([], [])
            network.see(view(WEB))
            await world.keeper.settle()
            assert world.ids() == ["home: service web"]
            assert [(one.name, one.state) for one in network.tasks] == [("service web", "done")]
            assert world.process.resolver("bob") == ("fd00::1",)
            assert world.process.judge(ip_address("10.77.0.2"), "tcp", 25) is None
            network.see(view(WEB, policy=(Rule(action="deny", sources=("members",), destinations=("member:bob",)),)))
            refused = world.process.judge(ip_address("10.77.0.2"), "tcp", 25)
            assert refused is not None
            assert refused[0] == "policy"
            network.see(view())
            await world.keeper.settle()
            assert world.process.closed
            assert network.tasks == ()

    asyncio.run(run())


def test_what_did_not_change_is_not_told_again_and_news_of_the_process_are_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view(WEB))
        async with running(World(tmp_path, network)) as world:
            for _ in range(3):
                await world.keeper.settle()
            assert len(world.process.configs) == 1
            world.process.refuses["home: service web"] = "nobody is there"
            world.process.changed.set()
            await world.until(lambda: [one.reason for one in network.tasks] == ["nobody is there"])

    asyncio.run(run())


def test_a_process_that_ends_is_followed_by_another_that_is_told_all(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view(WEB)))) as world:
            await world.keeper.settle()
            world.process.ended.set()
            await world.until(lambda: len(world.processes) == 2 and world.process.configs)
            assert world.ids() == ["home: service web"]

    asyncio.run(run())


def test_what_survives_of_another_agent_is_left_alone_until_each_network_has_told(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view(WEB))
        network.settled = False
        (tmp_path / "streams.sock").touch()
        world = World(tmp_path, network)
        world.starting = True
        async with running(world):
            await world.keeper.settle()
            world.starting = False
            await world.keeper.settle()
            assert world.processes == []
            network.settled = True
            await world.keeper.settle()
            assert world.ids() == ["home: service web"]
            assert len(world.process.configs) == 1

    asyncio.run(run())


def test_a_network_that_never_tells_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    async def run() -> None:
        told, silent = FakeNetwork(view(WEB)), FakeNetwork(view(network="work"))
        silent.directory, silent.settled = None, False
        (tmp_path / "streams.sock").touch()
        async with running(World(tmp_path, told, silent)) as world:
            await world.keeper.settle()
            assert world.processes == []
            world.now = 60.0
            await world.keeper.settle()
            assert world.ids() == ["home: service web"]

    asyncio.run(run())


def test_a_process_that_cannot_be_started_is_told_to_who_asked_and_tried_again(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view()))) as world:
            world.broken = "no memory"
            with pytest.raises(OperationFailed, match="no memory"):
                await world.forwards.keep("8080", "bob:80")
            assert world.keeper.asked == {}
            world.broken = ""
            await world.forwards.keep("8080", "bob:80")

    asyncio.run(run())


# Web sites


def test_a_site_is_served_when_its_domain_leads_here_and_caddy_runs(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view(Service(name="web", at=("member:bob",), target="localhost:80"), connectors=[SHOP]))
        world = World(tmp_path, network)
        world.config = StreamConfig(gateway=Gateway(acme_email="a@example.org"))
        async with running(world):
            await world.until(lambda: world.processes and "gateway *:443" in world.ids())
            (web,) = world.webs
            assert [site.domains for site in web.sites] == [("shop.example.org",)]
            assert web.settings.acme_email == "a@example.org"
            (tls,) = [one for one in world.process.config.entries if one.id == "gateway *:443"]
            assert tls.names[0].way.backends[0].port == 8443
            await world.until(lambda: {one.state for one in network.tasks} == {"done"})
            web.troubles["home: connector shop"] = "no certificate"
            web.changed.set()
            await world.until(lambda: "no certificate" in {one.reason for one in network.tasks})
            network.see(view())
            await world.keeper.settle()
            assert web.closed

    asyncio.run(run())


def test_a_site_whose_domain_leads_elsewhere_is_told_and_not_served(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view(WEB, connectors=[SHOP]))
        world = World(tmp_path, network)
        world.config, world.leads_to = StreamConfig(gateway=Gateway()), ip_address("9.9.9.9")
        async with running(world):
            await world.until(lambda: any(one.reason for one in network.tasks))
            (task,) = [one for one in network.tasks if one.reason]
            assert (task.name, task.state) == ("connector shop", "failed")
            assert "shop.example.org leads to 9.9.9.9" in task.reason
            assert world.webs == []

    asyncio.run(run())


def test_without_caddy_its_sites_say_so_and_it_is_tried_again(tmp_path: Path) -> None:
    async def run() -> None:
        network = FakeNetwork(view(WEB, connectors=[SHOP]))
        world = World(tmp_path, network)
        world.config = StreamConfig(gateway=Gateway())
        made = world._web

        def broken(settings: Settings, lookup: Path) -> FakeWeb:
            web = made(settings, lookup)
            web.failure = "Caddy is not installed: apt install caddy"
            return web

        world.keeper._web._doors = Doors(world._open, broken, world._resolve)
        async with running(world):
            await world.until(lambda: any("apt install caddy" in one.reason for one in network.tasks))
            world.webs[0].failure = ""
            await world.until(lambda: {one.state for one in network.tasks} == {"done"})

    asyncio.run(run())


# Forwards by command


def test_a_forward_is_made_listed_and_removed(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view()))) as world:
            made = await world.forwards.keep("8080", "bob:80")
            assert (made.id, made.state, made.origin, made.places) == (
                "forward 127.0.0.1:8080",
                "listening",
                "kept",
                ("somewhere",),
            )
            await world.forwards.keep("1080", None)
            assert [one.id for one in await world.forwards.all()] == [
                "forward 127.0.0.1:8080",
                "socks 127.0.0.1:1080",
            ]
            await world.forwards.remove("8080")
            assert world.ids() == ["socks 127.0.0.1:1080"]
            with pytest.raises(OperationFailed, match=r"no forward at 127.0.0.1:8080; there are: 127.0.0.1:1080"):
                await world.forwards.remove("8080")

    asyncio.run(run())


def test_what_was_kept_is_there_when_another_agent_runs_and_what_was_held_is_not(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view()))) as world:
            await world.forwards.keep("8080", "bob:80")
            async with world.forwards.hold("8081", "bob:80"):
                pass
            await world.forwards.keep("8082", "bob:80")
        async with running(World(tmp_path, FakeNetwork(view()))) as world:
            await world.keeper.settle()
            assert world.ids() == ["forward 127.0.0.1:8080", "forward 127.0.0.1:8082"]

    asyncio.run(run())


def test_a_forward_that_is_held_ends_with_its_holder(tmp_path: Path) -> None:
    async def run() -> None:
        async with running(World(tmp_path, FakeNetwork(view()))) as world:
            async with world.forwards.hold("8080", "bob:80") as (stream, ended):
                assert stream.origin == "held"
                assert world.ids() == ["forward 127.0.0.1:8080"]
                assert not ended.is_set()
            await world.keeper.settle()
            assert world.process.closed
            async with world.forwards.hold("8080", "bob:80") as (_, ended):
                await world.forwards.remove("8080")
                assert ended.is_set()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("listen", "target", "sentence"),
    [
        ("8080", "nobody:80", "no member and no service is called nobody"),
        ("8080", "10.1.2.3:80", "behind no member"),
        ("7000", "bob:80", "there is a forward at 127.0.0.1:7000 already"),
        ("7001", "bob:80", "port 7001 is in use"),
        ("7002", "bob:80", "there is a forward at 127.0.0.1:7002 already"),
    ],
)
def test_a_forward_that_cannot_work_is_refused_and_nothing_of_it_stays(
    tmp_path: Path, listen: str, target: str, sentence: str
) -> None:
    async def run() -> None:
        world = World(tmp_path, FakeNetwork(view()))
        world.config = StreamConfig(forwards=(parse_forward("7002", "bob:80"),))
        async with running(world):
            await world.forwards.keep("7000", "bob:80")
            world.process.refuses["forward 127.0.0.1:7001"] = "port 7001 is in use"
            with pytest.raises(OperationFailed, match=sentence):
                await world.forwards.keep(listen, target)
            with pytest.raises(OperationFailed, match=sentence):
                async with world.forwards.hold(listen, target):
                    raise AssertionError("it is not there")
            await world.keeper.settle()
            assert world.ids() == ["forward 127.0.0.1:7002", "forward 127.0.0.1:7000"]
            assert set(world.keeper.asked) == {"127.0.0.1:7000"}
        assert [one.place for one in ForwardStore(tmp_path).load()[0]] == ["127.0.0.1:7000"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("listen", "other"),
    [
        ("8081", "connector a of home"),
        ("*:8081", "connector a of home"),
        ("*:7002", "forward 127.0.0.1:7002"),
    ],
)
def test_a_forward_does_not_take_the_place_of_what_listens_there(tmp_path: Path, listen: str, other: str) -> None:
    async def run() -> None:
        web = Service(name="web", at=("member:bob",), target="localhost:80")
        connector = Connector(name="a", at=("members",), service="web", listen="8081")
        world = World(tmp_path, FakeNetwork(view(web, connectors=[connector])))
        world.config = StreamConfig(forwards=(parse_forward("7002", "bob:80"),))
        async with running(world):
            await world.keeper.settle()
            before = world.ids()
            with pytest.raises(OperationFailed, match=f"is taken by {other}: choose another port$"):
                await world.forwards.keep(listen, "bob:80")
            assert world.ids() == before
            await world.forwards.keep("8081", "bob:80/udp")
            await world.forwards.keep("[::1]:8081", "bob:80")

    asyncio.run(run())


def test_one_of_agent_toml_is_removed_there(tmp_path: Path) -> None:
    async def run() -> None:
        world = World(tmp_path, FakeNetwork(view()))
        world.config = StreamConfig(forwards=(parse_forward("7002", "bob:80"),))
        async with running(world):
            with pytest.raises(OperationFailed, match="stands in agent"):
                await world.forwards.remove("7002")
            with pytest.raises(UsageError, match="a port is 1 to 65535"):
                await world.forwards.remove("0")
            with pytest.raises(UsageError, match="no place to listen"):
                await world.forwards.keep("x:1", "bob:80")

    asyncio.run(run())


def test_caddy_gets_its_sites_when_the_front_doors_lead_to_it(tmp_path: Path) -> None:
    """It asks an authority at once, which then comes by them."""

    async def run() -> None:
        world = World(tmp_path, FakeNetwork(view(WEB, connectors=[SHOP])))
        world.config = StreamConfig(gateway=Gateway())
        doors: list[list[str]] = []

        class Late(FakeWeb):
            async def keep(self, sites: Sequence[Site]) -> Ports | None:
                doors.append([one.id for one in world.process.config.entries if one.kind in {"sni", "ended"}])
                return await super().keep(sites)

        world.make_web = Late
        async with running(world):
            await world.until(lambda: doors)
        assert set(doors[0]) == {"gateway *:443", "gateway *:80"}

    asyncio.run(run())


def test_the_front_doors_lead_to_a_caddy_of_an_agent_before_from_the_beginning(tmp_path: Path) -> None:
    """Else all who are connected to web sites would be cut off."""
    directory = tmp_path / "caddy" / "certificates" / "authority" / "shop.example.org"
    directory.mkdir(parents=True)
    (directory / "shop.example.org.crt").write_text(make_certificate("shop.example.org").pem)
    (tmp_path / "run" / "caddy").mkdir(parents=True)

    async def run() -> None:
        world = World(tmp_path, FakeNetwork(view(WEB, connectors=[SHOP])))
        world.keeper._run = tmp_path / "run"
        world.config = StreamConfig(gateway=Gateway())

        class Running(FakeWeb):
            async def find(self) -> Ports | None:
                return Ports(8080, 8443)

        world.make_web = Running
        async with running(world):
            await world.until(lambda: world.processes and world.process.configs)
        first = [one.id for one in world.process.configs[0].entries]
        assert {"gateway *:443", "gateway *:80", "home: connector shop"} <= set(first)

    asyncio.run(run())
