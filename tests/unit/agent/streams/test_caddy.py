from __future__ import annotations

import asyncio
from pathlib import Path

from tests.unit.agent.streams.fakes import FakeWeb
from warren.agent.streams.caddy import WebKeeper
from warren.agent.streams.doors import Doors
from warren.ingress.sites import Ports, Settings, Site

SITE = Site("home: connector www", ("www.example.org",), "internal", Path("/run/warren/sites/www.sock"))


def test_a_configuration_that_is_refused_leaves_the_sites_of_before_where_they_are(tmp_path: Path) -> None:
    made: list[FakeWeb] = []

    def make(settings: Settings, _: Path) -> FakeWeb:
        made.append(FakeWeb(settings))
        return made[-1]

    async def main() -> None:
        settings = Settings(tmp_path, tmp_path, None, None, None)
        keeper = WebKeeper(tmp_path / "peers.sock", Doors(make_web=make), lambda: None)
        await keeper.keep(settings, (SITE,))
        made[0].failure = "a domain that Caddy does not take"
        await keeper.keep(settings, (SITE, SITE))
        assert keeper.ports == Ports(8080, 8443)
        assert keeper.problem == "a domain that Caddy does not take"
        await keeper.close()
        assert keeper.ports is None

    asyncio.run(main())


def test_one_that_never_ran_has_no_ports(tmp_path: Path) -> None:
    async def main() -> None:
        web = FakeWeb(Settings(tmp_path, tmp_path, None, None, None))
        web.failure = "Caddy is not installed: `apt install caddy`"
        keeper = WebKeeper(tmp_path / "peers.sock", Doors(make_web=lambda *_: web), lambda: None)
        await keeper.keep(web.settings, (SITE,))
        assert keeper.ports is None
        assert "not installed" in keeper.problem
        await keeper.close()

    asyncio.run(main())


def test_one_of_an_agent_before_is_known_before_anything_is_asked_of_it(tmp_path: Path) -> None:
    async def main() -> None:
        web = FakeWeb(Settings(tmp_path, tmp_path, None, None, None))
        web.ports = Ports(8080, 8443)
        keeper = WebKeeper(tmp_path / "sites" / "peers.sock", Doors(make_web=lambda *_: web), lambda: None)
        await keeper.find(web.settings)
        assert keeper.ports is None
        web.settings.generations.mkdir()
        await keeper.find(web.settings)
        assert keeper.ports == Ports(8080, 8443)
        await keeper.keep(web.settings, ())
        assert web.closed

    asyncio.run(main())


def test_without_sites_the_sockets_of_a_stream_process_that_was_killed_are_removed(tmp_path: Path) -> None:
    async def main() -> None:
        sites = tmp_path / "sites"
        sites.mkdir()
        (sites / "0123.sock").touch()
        keeper = WebKeeper(sites / "peers.sock", Doors(), lambda: None)
        await keeper.keep(Settings(tmp_path, tmp_path), ())
        assert list(tmp_path.iterdir()) == []

    asyncio.run(main())
