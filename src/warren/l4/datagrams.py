"""Entries of UDP at work: flows of datagrams, one for each client, carried to the way's backends and back."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Hashable, Iterable
from functools import partial
from typing import Any, Final

from msgspec import structs

from warren.errors import OperationFailed
from warren.l4 import probe
from warren.l4.config import Backend, Entry, EntryState, Limits, Listen
from warren.l4.datagram_flow import Flow, Origin
from warren.l4.destinations import Destinations, leads_to
from warren.l4.flows import FlowTable
from warren.l4.health import Health
from warren.l4.held import Room
from warren.l4.kinds import Refused, Tools
from warren.l4.listening import place_of, sharers, transport_address
from warren.l4.permitted import closing
from warren.l4.tftp import TftpFlow, check_begins, refuse_transfer
from warren.l4.train_socket import TrainSocket, answering
from warren.l4.trains import Train
from warren.l4.transparent import TransparentFlow, original_destination

IDLE_S: Final = 60.0
"""RFC 4787 REQ-5 asks NATs for two minutes, or less where the operator says so; most have 30 to 60 s for what may be
answered only once, and clients know.
"""
RETRY_S: Final = 3.0
"""How often a place that could not be listened at is tried again."""
FIRST_CHECK_S: Final = 0.3
"""How long :meth:`DatagramEntry.open` waits for the first check: a refusal comes at once, silence says little."""


class DatagramEntry:
    """See :class:`warren.l4.kinds.Running`. A client is an address and port, at one place where it came in; what its
    flow is refused for is counted for each datagram that would have begun it.

    Changing the way ends the flows whose backend is not in it any more; the others stay. Where there is health to be
    watched (Entry.health) the entry does not listen while its backend is unreachable, by a check (:mod:`~warren.l4.
    probe`) or since a flow has met with it; so who speaks to it is told so by ICMP, and turns to another member.
    """

    def __init__(self, entry: Entry, tools: Tools) -> None:
        self.entry = entry
        self.tools = tools
        self.way = entry.way
        self.destinations = Destinations(tools)
        self.table: FlowTable[Flow] = FlowTable(entry.limits.streams_max)
        self.room = Room()
        self._admission = _without_ceiling(entry.limits)
        self._doors: dict[Listen, TrainSocket] = {}
        self._failures: dict[Listen, str] = {}
        self._health: Health | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._expiring: asyncio.TimerHandle | None = None
        self._closed = False

    async def open(self) -> None:
        self._watch_health(trusted=True)
        if self._health is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_CHECK_S):
                    await self._health.checked.wait()
        await self._listen()

    async def update(self, entry: Entry) -> None:
        others = entry.allowed != self.entry.allowed
        before, self.entry, self.way = self.entry, entry, entry.way
        self.table.ceiling = entry.limits.streams_max
        self._admission = _without_ceiling(entry.limits)
        for listen in [listen for listen in self._doors if listen not in entry.listen]:
            self._close_door(listen)
        self._failures = {listen: why for listen, why in self._failures.items() if listen in entry.listen}
        closed = closing(before.way, entry.way)
        for flow in self.table:
            gone = flow.backend is not None and not self._is_in_way(flow.backend)
            if others or entry.way.refusal or gone or (closed is not None and leads_to(flow.destination, closed)):
                self.end(flow)
        if before.health != entry.health or (entry.health is not None and before.way != entry.way):
            trusted = self._is_healthy  # until it has been looked at, nothing is known that speaks against it
            await self._end_health()
            self._watch_health(trusted=trusted)
        await self._listen()

    def state(self) -> EntryState:
        places = tuple(place_of(door.sock) for door in self._doors.values())
        if self._health is not None and not self._health.healthy:
            return EntryState(id=self.entry.id, state="unhealthy", reason=self._health.reason, places=places)
        shared = [sharers(where, door.sock) for where, door in self._doors.items()]
        reason = "; ".join([*self._failures.values(), *(why for why in shared if why)])
        return EntryState(id=self.entry.id, state="failed" if reason else "listening", reason=reason, places=places)

    async def close(self) -> None:
        self._closed = True
        await self._end_health()
        for waiting in (self._retrying, self._expiring):
            if waiting is not None:
                waiting.cancel()
        self._close_doors()
        for flow in self.table:
            self.end(flow)
        self.destinations.close()

    # What flows ask of it

    def now(self) -> float:
        return time.monotonic()  # as of the event loop, which is asked less often

    def own_ports(self, side: str) -> frozenset[int]:
        return frozenset(
            door.sock.getsockname()[1]
            for listen, door in self._doors.items()
            if listen.side == side and not self._moves
        )

    def end(self, flow: Flow, why: Refused | None = None) -> None:
        self.table.remove(flow)
        if why is not None:
            self.tools.count(why, flow.client)
            flow.refused(why)
        flow.close()

    def unreachable(self, why: Refused) -> None:
        if self._health is not None and not self._closed:
            self._health.failed(str(why))
            self._close_doors()

    # Health

    def _watch_health(self, *, trusted: bool) -> None:
        health = self.entry.health
        if health is not None:
            self._health = Health(self._check, health.every_s, self._health_changed, trusted=trusted)

    async def _end_health(self) -> None:
        health, self._health = self._health, None
        if health is not None:
            await health.close()

    async def _check(self) -> None:
        await probe.check(self.destinations, self.way, self.own_ports)

    async def _health_changed(self) -> None:
        if self._is_healthy:
            await self._listen()
        else:
            self._close_doors()

    @property
    def _is_healthy(self) -> bool:
        return self._health is None or self._health.healthy

    # Listening

    @property
    def _moves(self) -> bool:
        """Whether datagrams go on to where they were meant for."""
        return self.entry.kind == "transparent"

    async def _listen(self) -> None:
        """Listen where that is not so yet; where it fails, again later."""
        for listen in self.entry.listen:
            if listen in self._doors or not self._is_healthy:
                continue
            try:
                if listen.path:
                    raise OperationFailed(f"unix:{listen.path}: datagrams are not taken from Unix sockets; name a port")
                sock = await self.tools.listen(listen)
            except OperationFailed as failure:
                self._failures[listen] = str(failure)
                continue
            # Since we asked:
            if self._closed or listen not in self.entry.listen or listen in self._doors or not self._is_healthy:
                sock.close()
                continue
            door = TrainSocket(sock)
            try:
                door.widen()
                if self._moves:
                    door.make_transparent()
                elif not listen.address:
                    door.ask_where_to()
            except OSError as error:
                door.close()
                self._failures[listen] = f"no datagrams can be taken at port {listen.port}: {error.strerror}"
                continue
            self._failures.pop(listen, None)
            self._doors[listen] = door
            self.tools.watch(sock, partial(self._readable, door))
        if self._failures and not self._closed and self._retrying is None:
            self._retrying = asyncio.get_running_loop().create_task(self._retry())

    async def _retry(self) -> None:
        while self._failures:
            await asyncio.sleep(RETRY_S)
            await self._listen()
        self._retrying = None

    def _close_doors(self) -> None:
        for listen in list(self._doors):
            self._close_door(listen)

    def _close_door(self, listen: Listen) -> None:
        door = self._doors.pop(listen)
        self.tools.unwatch(door.sock)
        for flow in self.table:
            if flow.came_by(door):
                self.end(flow)
        door.close()

    # Datagrams

    def _readable(self, door: TrainSocket) -> None:
        if door.alone:
            one = door.receive_one()
            if one is None:
                return
            datagram, source = one
            flow = self.table.get((door, source, b""))
            if flow is None or not flow.forward_one(datagram):
                self._take(door, Train(source, b"", (datagram,), len(datagram), len(datagram)))
            trains: Iterable[Train] = door.rest()
        else:
            trains = door.trains()
        for train in trains:
            self._take(door, train)

    def _take(self, door: TrainSocket, train: Train) -> None:
        key = (door, train.source, train.local)
        flow = self.table.get(key) or self._begin(door, key, train)
        if flow is not None:
            flow.forward(train)

    def _begin(self, door: TrainSocket, key: Hashable, train: Train) -> Flow | None:
        """A new flow, within the limits; None: it is refused."""
        if door.sock.fileno() < 0:  # unreachable() has closed it while this train waited
            return None
        client = transport_address(train.source)
        if client is None:
            return None
        try:
            self.tools.admit(client, self._admission)
            flow = self._made(door, key, client, train)
        except Refused as why:
            self.tools.count(why, client)
            if self.entry.kind == "tftp":
                refuse_transfer(door, train, why)
            return None
        for gone in self.table.add(flow, self.now()):
            gone.close()
        if self._expiring is None:
            self._expire()
        return flow

    def _made(self, door: TrainSocket, key: Hashable, client: Any, train: Train) -> Flow:
        """Raises Refused."""
        if self._moves:
            where = original_destination(train.local, self.entry.allowed)
            origin = Origin(key, door, train.source, client)
            return TransparentFlow(self, origin, self.tools.count_opened(), where)
        if self.way.refusal or not self.way.backends:
            self.destinations.attempts(self.way)
        origin = Origin(key, door, train.source, client, answering(door.sock.family, train.local))
        if self.entry.kind == "tftp":
            check_begins(train)
            return TftpFlow(self, origin, self.tools.count_opened())
        return Flow(self, origin, self.tools.count_opened())

    def _is_in_way(self, backend: Backend) -> bool:
        return self._moves or backend in self.way.backends

    @property
    def _idle_s(self) -> float:
        return IDLE_S if self.way.idle_s is None else self.way.idle_s

    def _expire(self) -> None:
        """End flows that are idle, and come again when the next one may be."""
        self._expiring = None
        for flow in self.table.expire(self.now() - self._idle_s):
            flow.close()
        oldest = self.table.longest_idle()
        if oldest is not None:
            self._expiring = asyncio.get_running_loop().call_at(oldest + self._idle_s, self._expire)


def _without_ceiling(limits: Limits) -> Limits:
    """When all flows are taken, or a source has its share, one that is idle goes; nobody is refused for that."""
    return structs.replace(limits, streams_max=sys.maxsize)
