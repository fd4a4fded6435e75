"""What an entry's kind works with: :class:`warren.l4.kinds.Tools` over the pump, the dialler and the entry's counts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Unpack
from weakref import WeakKeyDictionary

from warren.l4 import listening
from warren.l4.config import EntryState, Limits, Listen, Way
from warren.l4.connect import Dialler
from warren.l4.counters import Counters, Open
from warren.l4.kinds import Carrying, Connected, Goal, Incoming, Refused
from warren.l4.limits import Admission
from warren.l4.overlay import OverlaySockets
from warren.l4.permitted import Change, closing, is_closed
from warren.l4.pump import Pump, reset
from warren.l4.straight import Straight
from warren.l4.stream import Stream
from warren.model.tunnel import IPAddress, TransportAddress


class Question(Protocol):
    """Asks the agent for the overlay addresses of a place, with a goal for those at which the policy lets this node
    reach it. Raises Refused.
    """

    async def __call__(self, place: str, goal: Goal | None = None) -> Sequence[IPAddress]: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """What all entries of the process have in common."""

    overlay: OverlaySockets
    pump: Pump
    dialler: Dialler
    question: Question
    clock: Callable[[], float]
    """Monotonic, in seconds."""


class EntryTools:
    """Of one entry. ``transparent``: its listeners take what is meant for other addresses."""

    def __init__(self, entry_id: str, shared: Shared, *, transparent: bool = False) -> None:
        self.overlay = shared.overlay
        self.counters = Counters(entry_id, shared.clock)
        self.admission = Admission(self.counters, shared.clock)
        self.unreachable: Callable[[str], None] | None = None
        """Called with a sentence when a connection to the backends failed."""
        self.way = Way()
        """The entry's of now. It may have been closed to what a stream was being connected to."""
        self._shared = shared
        self._transparent = transparent
        self._streams: set[Stream] = set()
        self._accepted: dict[socket.socket, Open] = {}
        self._attended: WeakKeyDictionary[socket.socket, asyncio.Task[None]] = WeakKeyDictionary()
        """Clients that are not carried (yet), and who sees to them."""
        self._connected: WeakKeyDictionary[socket.socket, asyncio.Task[None] | None] = WeakKeyDictionary()
        """The same of backends."""

    async def connect(
        self, way: Way, client: TransportAddress | None, local: TransportAddress | None = None
    ) -> Connected:
        try:
            found = await self._shared.dialler.connect(way, client, local)
        except Refused as refused:
            self._tell_unreachable(refused)
            raise
        if found.backend.side == "host" and is_closed(closing(way, self.way), found.sock):
            found.sock.close()
            raise Refused("policy", f"{found.backend.name} leads to what was closed a moment ago")
        self._connected[found.sock] = asyncio.current_task()
        return found

    async def check(self, way: Way) -> None:
        """Connect, and let go at once. Raises Refused."""
        (await self._shared.dialler.connect(way, None, None, own=True)).sock.close()

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        *,
        opened: Callable[[int | None], bool] | None = None,
        **how: Unpack[Carrying],
    ) -> Stream:
        """``outgoing`` may still be being connected, see ``opened`` of the pump."""
        counted = self._accepted.pop(incoming, None)
        counts = self.counters if counted is None or counted.part is None else counted.part
        self._attended.pop(incoming, None)
        self._connected.pop(outgoing, None)
        ended = how.get("ended")
        stream: Stream | None = None

        def over() -> None:
            if stream is not None:
                self._streams.discard(stream)
            if counted is not None:
                counted()
            if ended is not None:
                ended()

        how["ended"] = over
        stream = self._shared.pump.carry(incoming, outgoing, counts, opened=opened, **how)
        if not stream.closed:
            self._streams.add(stream)
        return stream

    def straight(self) -> Straight:
        """For streams of the entry that need no task of their own."""
        return Straight(self._shared.dialler, self._shared.pump, self)

    def accepted(self, sock: socket.socket, client: TransportAddress | None = None) -> None:
        """A stream came in: it is open until :meth:`carry` has ended it, or :meth:`settled` is called before that."""
        self._accepted[sock] = self.counters.begin(client)

    def told(self, incoming: Incoming, limits: Limits) -> None:
        """``incoming``, which was accepted already, has said who its client is. Raises Refused."""
        self.admission.check_share(incoming.client, limits)
        self.admission.check_rate(incoming.client, limits)
        self._accepted[incoming.sock].belongs_to(incoming.client)

    def enter(self, incoming: Incoming, limits: Limits, name: str) -> None:
        opened = self._accepted[incoming.sock]
        opened.part = self.counters.part(name)
        self.admission.admit(incoming.client, limits, name)
        opened.enter_part()

    def attended(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        """Who sees to a stream that came in."""
        self._attended[sock] = task

    def settled(self, sock: socket.socket) -> None:
        """Its kind is done with it: if it was not handed to :meth:`carry`, it is over."""
        self._attended.pop(sock, None)
        counted = self._accepted.pop(sock, None)
        if counted is not None:
            counted()

    def refuse(self, incoming: Incoming, why: Refused) -> None:
        opened = self._accepted.get(incoming.sock)
        self.counters.refuse(why, incoming.client, None if opened is None else opened.part)
        reset(incoming.sock)

    def count(self, why: Refused, client: TransportAddress | None) -> None:
        self.counters.refuse(why, client)

    def count_failure(self, why: Refused, client: TransportAddress | None) -> None:
        """:meth:`count` of a connection to the backends that failed."""
        self._tell_unreachable(why)
        self.counters.refuse(why, client)

    def count_opened(self) -> Callable[[], None]:
        return self.counters.begin()

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        self._shared.pump.watch(sock, readable)

    def unwatch(self, sock: socket.socket) -> None:
        self._shared.pump.unwatch(sock)

    def count_bytes(self, from_clients: int, to_clients: int) -> None:
        self.counters.bytes_in += from_clients
        self.counters.bytes_out += to_clients

    def admit(self, client: TransportAddress | None, limits: Limits) -> None:
        self.admission.admit(client, limits)

    async def listen(self, where: Listen) -> socket.socket:
        return await listening.listen(where, self.overlay, transparent=self._transparent)

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        return await self._shared.question(name)

    async def permitted(self, place: IPAddress | str, goal: Goal) -> Sequence[IPAddress]:
        return await self._shared.question(str(place), goal)

    def fill(self, state: EntryState) -> EntryState:
        """``state`` with the counts."""
        return self.counters.fill(state)

    async def end_forbidden(self, change: Change) -> None:
        """Reset the streams that may not go on, and end those that are not carried (yet)."""
        if not change:
            return
        for count, stream in enumerate(list(self._streams)):
            if not stream.closed and change.ends(stream.inward.source, stream.outward.source):
                self._shared.pump.end(stream, aborted=True)
            if count % 256 == 255:  # the others go on meanwhile
                await asyncio.sleep(0)
        attending = [task for sock, task in self._attended.items() if change.ends_client(sock)]
        attending += [task for sock, task in self._connected.items() if task and change.ends_backend(sock)]
        for task in attending:
            task.cancel()

    async def end_all(self) -> None:
        """Reset the streams that are carried."""
        for count, stream in enumerate(list(self._streams)):
            self._shared.pump.end(stream, aborted=True)
            if count % 256 == 255:  # the others go on meanwhile
                await asyncio.sleep(0)

    def _tell_unreachable(self, why: Refused) -> None:
        if self.unreachable is not None and why.reason in {"connect", "timeout", "unresolved"}:
            self.unreachable(str(why))
