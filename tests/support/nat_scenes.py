"""Two nodes that talk, for tests of what happens to them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

from tests.support.nat_nodes import PathNode, RelayServer
from tests.support.nat_world import Link, Network, Packet, World
from warren.model.tunnel import IPAddress
from warren.paths.nat import PORT_RESTRICTED, Behaviour, Situation
from warren.paths.values import Path

LATENCY_S = 0.02


class Home:
    """A node behind a box of its own."""

    def __init__(
        self,
        world: World,
        name: str,
        behaviour: Behaviour = PORT_RESTRICTED,
        relays: tuple[RelayServer, ...] = (),
        *,
        link: Link | None = None,
        more: Sequence[tuple[Network, IPAddress]] = (),
    ) -> None:
        self.link = link or Link(latency_s=LATENCY_S)
        self.site = world.site(v4=behaviour, link=self.link)
        address: IPAddress = world.private4(ord(name[0])) if behaviour.translated else world.address4()
        self.node = PathNode(
            world, name, [(self.site, address), *more], situation=Situation(v4=behaviour), relays=relays
        )


class Scene:
    """Two homes, or what ``build`` makes of them, and relays; they talk both ways and a direct path is found."""

    def __init__(
        self,
        a: Behaviour = PORT_RESTRICTED,
        b: Behaviour = PORT_RESTRICTED,
        *,
        seed: int = 1,
        relays: int = 1,
        links: tuple[Link | None, Link | None] = (None, None),
    ) -> None:
        self.world = World(seed)
        self.relays = tuple(RelayServer(self.world, f"relay{number}") for number in range(relays))
        self.homes = (
            Home(self.world, "a", a, self.relays, link=links[0]),
            Home(self.world, "b", b, self.relays, link=links[1]),
        )
        self.a, self.b = self.homes[0].node, self.homes[1].node

    def begin(self, *, direct: bool = True, within_s: float = 60.0, talk: bool = True) -> None:
        self.a.meet(self.b)
        self.run(1.0)
        self.a.talk(self.b)
        self.b.talk(self.a)
        if not self.world.run(self.world.now + within_s, lambda: self.is_direct() == direct and self.is_up()):
            raise AssertionError(f"not {'direct' if direct else 'relayed'}: {self.paths()}")
        self.run(5.0)
        if not talk:
            self.hush()
            self.run(20.0)

    def hush(self) -> None:
        self.a.hush(self.b)
        self.b.hush(self.a)

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def until(self, done: Callable[[], bool], within_s: float) -> float | None:
        """Seconds until it was so; None: it was not."""
        began = self.world.now
        return self.world.now - began if self.world.run(began + within_s, done) else None

    def paths(self) -> tuple[Path | None, Path | None]:
        return self.a.selected.get(self.b.key), self.b.selected.get(self.a.key)

    def is_up(self) -> bool:
        return all(path is not None for path in self.paths())

    def is_direct(self) -> bool:
        return all(path is not None and not path.relayed for path in self.paths())

    def is_relayed(self) -> bool:
        return all(path is not None and path.relayed for path in self.paths())

    def switches(self, since: float) -> int:
        """How often either side took another path since then."""
        return max(
            sum(1 for at, _ in one.count[other.key].selections if at > since)
            for one, other in ((self.a, self.b), (self.b, self.a))
        )

    def longest_silence(self, since: float) -> float:
        """Of the two directions: the longest time without data arriving, from then until now."""
        longest = 0.0
        for one, other in ((self.a, self.b), (self.b, self.a)):
            times = [since, *(at for at in one.count[other.key].arrived if at > since), self.world.now]
            longest = max(longest, *(later - earlier for earlier, later in pairwise(times)))
        return longest

    def arrives_again(self, since: float, within_s: float) -> float | None:
        """Seconds from ``since`` until data arrives on both sides."""

        def both() -> bool:
            counts = (self.a.count[self.b.key], self.b.count[self.a.key])
            return all(count.arrived and count.arrived[-1] > since for count in counts)

        return self.world.now - since if self.world.run(since + within_s, both) else None


class Holes:
    """Gilbert and Elliott: good times, and holes in which everything is lost; for the packets of one link."""

    def __init__(self, world: World, *, good_s: float, hole_s: float, seed: int) -> None:
        chance = random.Random(seed)
        self.world = world
        self.edges: list[float] = []
        at = world.now
        while at < world.now + 3600:
            at += chance.expovariate(1 / good_s)
            self.edges += [at, at + hole_s]
            at += hole_s

    def __call__(self, packet: Packet, outwards: bool) -> bool:
        return sum(1 for edge in self.edges if edge <= self.world.now) % 2 == 1
