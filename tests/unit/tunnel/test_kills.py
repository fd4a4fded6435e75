"""A controller killed after any number of steps: the next one finishes or cleans up, and nothing is left in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tunnel.fakes import FakeHost, FakePlane
from tests.unit.tunnel.test_controller import Site, site
from warren.errors import OperationFailed
from warren.tunnel.host import Doors
from warren.tunnel.world import World

__all__ = ["site"]

pytestmark = pytest.mark.logs_errors

_READS = {"links", "addresses", "routes", "rules", "path_to", "changes", "tables", "get", "attach"}
_STEPS_MAX = 60


class Life:
    """Lets ``steps`` changes happen; from then on nothing that its owner does reaches the world."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.dead = False

    def of(self, door: Any) -> Any:
        return _Mortal(self, door)

    def step(self, name: str) -> None:
        if name == "wait_closed":
            return
        if name not in _READS and not self.dead:
            self.dead = self.steps == 0
            self.steps -= 1
        if self.dead:
            raise OperationFailed("killed")


class _Mortal:
    def __init__(self, life: Life, door: Any) -> None:
        self._life = life
        self._door = door

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._door, name)
        if not callable(attribute):
            return attribute

        def call(*arguments: Any, **more: Any) -> Any:
            self._life.step(name)
            return attribute(*arguments, **more)

        return call


class MortalHost(FakeHost):
    """A host whose world is cut off from its controller when the controller's life ends."""

    life: Life = Life(10**9)

    def world(self) -> World:
        life, host = self.life, self
        doors = Doors(
            life.of(self.netlink), life.of(self.sysctls), lambda: life.of(self.nft), lambda: life.of(self.resolver)
        )

        class Engines:
            async def start(self, interface: str, mtu: int) -> FakePlane:
                life.step("start")
                plane: FakePlane = _Mortal(life, await host.start(interface, mtu))  # type: ignore[assignment]
                return plane

            async def attach(self, interface: str) -> FakePlane:
                plane: FakePlane = _Mortal(life, await host.attach(interface))  # type: ignore[assignment]
                return plane

        return World(doors, Engines(), self.resolve, lambda: self.now, lambda: int(self.now * 1e9))


@pytest.fixture
def mortal(site: Site) -> Site:
    site.host = MortalHost()
    return site


async def _lives(site: Site, steps: int, act: Callable[[], Any]) -> bool:
    """Do ``act`` with a controller that is killed after so many steps; whether it was."""
    assert isinstance(site.host, MortalHost)
    site.host.life = Life(steps)
    try:
        await act()
    except OperationFailed:
        assert site.host.life.dead
    killed = site.host.life.dead
    site.host.life = Life(10**9)
    return killed


async def _up_and_down(site: Site) -> None:
    async with site.running():
        pass


@pytest.mark.parametrize("also_the_data_plane", [False, True])
def test_killed_at_any_step(mortal: Site, also_the_data_plane: bool) -> None:
    async def scenario() -> None:
        before = await mortal.snapshot()
        for steps in range(_STEPS_MAX):
            killed = await _lives(mortal, steps, lambda: _up_and_down(mortal))
            if also_the_data_plane and mortal.host.planes:
                await mortal.host.plane.die()
            await _up_and_down(mortal)
            assert await mortal.snapshot() == before, f"killed after {steps} steps"
            if not killed:
                assert steps > 15, "it makes and removes more than this"
                return
        raise AssertionError("it never came to its end")

    asyncio.run(scenario())


def test_the_journal_is_never_half_written(mortal: Site, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with mortal.running():
            written = [entry.name for entry in tmp_path.iterdir()]
            assert sorted(written) == ["home.conf", "home.warren"]

    asyncio.run(scenario())
