"""From selected paths to what the data plane is told of each peer: where its packets go, and by which way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warren.model.tunnel import IPAddress, TransportAddress, Way
from warren.paths.values import Base, Path
from warren.reach.uplinks import Uplinks


@dataclass(frozen=True, slots=True)
class Course:
    """How packets to a peer travel. ``path`` says the same in the words of path selection."""

    endpoint: TransportAddress
    way: Way
    path: Path


class Courses:
    """The selected path of each peer, and the way that follows from it. Single owner."""

    def __init__(self, relays: Uplinks, socket_way: Callable[[Base], Way | None]) -> None:
        """``socket_way`` gives the data plane the socket of a base, and says how it sends from it."""
        self._relays = relays
        self._socket_way = socket_way
        self._selected: dict[bytes, Path] = {}
        self._courses: dict[bytes, Course] = {}

    def select(self, node: bytes, path: Path | None, now: float) -> bool:
        """Use ``path`` from now on; None: there is none, and what is used now stays for want of anything better.
        Returns whether the course is another one; one through a relay takes effect when its channel is bound.
        """
        if path is None:
            self._selected.pop(node, None)
            return False
        self._selected[node] = path
        leg = self._relays.leg(path.base)
        if path.base.kind == "relay" and leg is not None:
            leg.client.bind(path.remote, now)
        return self._settle(node)

    def forget(self, node: bytes) -> None:
        self._selected.pop(node, None)
        self._courses.pop(node, None)

    def refresh(self, base: Base) -> list[bytes]:
        """A channel of the allocation ``base`` was bound: the nodes whose course is another one now."""
        return [node for node, path in list(self._selected.items()) if path.base == base and self._settle(node)]

    def path(self, node: bytes) -> Path | None:
        return self._selected.get(node)

    def course(self, node: bytes) -> Course | None:
        """None: nothing was ever selected."""
        return self._courses.get(node)

    def _settle(self, node: bytes) -> bool:
        course = self._made(self._selected[node])
        if course is None or course == self._courses.get(node):
            return False
        self._courses[node] = course
        return True

    def _made(self, path: Path) -> Course | None:
        if path.base.kind == "socket":
            through = self._socket_way(path.base)
            return None if through is None else Course(path.remote, through, path)
        if path.base.kind == "host":
            return Course(path.remote, way_of(path.base), path)
        leg = self._relays.leg(path.base)
        way = None if leg is None else leg.way_to(path.remote)
        return None if leg is None or way is None else Course(leg.server, way, path)


def way_of(base: Base) -> Way:
    """How packets leave from an address of this host."""
    return Way(source=base.address, interface=base.interface)


def base_of(way: Way, bases: tuple[Base, ...]) -> Base | None:
    """The base at which something arrived by ``way``; None: at an address that is not among ``bases``."""
    hosts = [base for base in bases if base.kind == "host" and base.address == way.source]
    return next((base for base in hosts if base.interface == way.interface), hosts[0] if hosts else None)


def host_base(address: IPAddress, interface: int) -> Base:
    return Base(kind="host", address=address, interface=interface)
