"""What the controller of a tunnel reaches outside of itself, as Protocols and one value; tests have their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from warren.engine.base import Engine
from warren.tunnel.host import Doors
from warren.tunnel.lookups import Resolve


class DataPlane(Engine, Protocol):
    """An engine that runs as a process of its own."""

    async def wait_closed(self) -> None:
        """Return when the process has ended, for whatever reason."""


class Engines(Protocol):
    """Makes data planes."""

    async def start(self, interface: str, mtu: int) -> DataPlane:
        """A new one, with a new interface. Raises OperationFailed."""

    async def attach(self, interface: str) -> DataPlane:
        """One that runs already. Raises Unreachable when there is none."""


@dataclass(frozen=True, slots=True)
class World:
    doors: Doors
    engines: Engines
    resolve: Resolve
    clock: Callable[[], float] = time.monotonic
    """Seconds; never goes back."""
    wall_clock_ns: Callable[[], int] = time.time_ns
    """What handshakes are dated with."""
