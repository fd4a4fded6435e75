"""What the stream process gives to the kinds of entries, as a fake: real sockets of this host, everything counted."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence

from warren.l4 import listening
from warren.l4.config import Limits, Listen, Way
from warren.l4.kinds import Connected, Goal, Incoming, Refused
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.model.tunnel import IPAddress, TransportAddress


class FakeTools:
    """See :class:`warren.l4.kinds.Tools`. ``names`` are what the agent would answer."""

    def __init__(self) -> None:
        self.overlay: OverlaySockets = HostSockets()
        self.names: dict[str, Sequence[IPAddress]] = {}
        self.asked: list[str] = []
        self.forbidden: set[str] = set()
        """Names and addresses that the policy does not let this node reach."""
        self.goals: list[tuple[str, Goal]] = []
        """What the agent was asked about."""
        self.refusals: list[Refused] = []
        self.reasons: Counter[str] = Counter()
        self.open = 0
        self.opened = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.ways: list[Way] = []
        self.carried: list[tuple[socket.socket, socket.socket, bytes, bytes]] = []
        self.refuse_to_admit: Refused | None = None
        self.changed = asyncio.Event()
        """Set whenever something is counted."""

    async def connect(self, way: Way, client: TransportAddress | None) -> Connected:
        self.ways.append(way)
        if way.refusal:
            raise Refused("policy", way.refusal)
        for backend in way.backends:
            sock = socket.socket(socket.AF_INET6 if ":" in backend.host else socket.AF_INET)
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().sock_connect(sock, (backend.host, backend.port))
            except OSError:
                sock.close()
                continue
            return Connected(sock, backend)
        raise Refused("connect", "nobody is there")

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        *,
        idle_s: float | None = None,
        head: bytes = b"",
        answer: bytes = b"",
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.carried.append((incoming, outgoing, head, answer))
        self.changed.set()

    def refuse(self, incoming: Incoming, why: Refused) -> None:
        self.count(why, incoming.client)
        incoming.sock.close()

    def count(self, why: Refused, client: TransportAddress | None) -> None:
        self.refusals.append(why)
        self.reasons[why.reason] += 1
        self.changed.set()

    def count_opened(self) -> Callable[[], None]:
        self.open += 1
        self.opened += 1

        def ended() -> None:
            self.open -= 1
            self.changed.set()

        return ended

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        asyncio.get_running_loop().add_reader(sock.fileno(), readable)

    def unwatch(self, sock: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(sock.fileno())

    def count_bytes(self, from_clients: int, to_clients: int) -> None:
        self.bytes_in += from_clients
        self.bytes_out += to_clients
        self.changed.set()

    def admit(self, client: TransportAddress | None, limits: Limits) -> None:
        if self.refuse_to_admit is not None:
            raise self.refuse_to_admit

    def enter(self, incoming: Incoming, limits: Limits, name: str) -> None:
        raise NotImplementedError

    async def listen(self, where: Listen) -> socket.socket:
        return await listening.listen(where, self.overlay)

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        self.asked.append(name)
        if name not in self.names:
            raise Refused("unresolved", f"{name} is not in the overlay")
        return self.names[name]

    async def permitted(self, place: IPAddress | str, goal: Goal) -> Sequence[IPAddress]:
        self.goals.append((str(place), goal))
        self.changed.set()
        if str(place) in self.forbidden:
            raise Refused("policy", f"{place} may not be reached")
        return await self.resolve(place) if isinstance(place, str) else (place,)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something counted to make ``condition`` true; not longer than half a minute."""
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()
