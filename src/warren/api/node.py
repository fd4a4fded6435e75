"""A node's standing link to the coordinators of one network: one connection at a time, made anew whenever it is lost.

The protocol is :mod:`warren.proto.control.client`; this is the loop around it. It brings documents and takes records,
reports and signals; it neither reads nor keeps documents.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from warren.api.node_backoff import RETRY_AFTER_MAX_S, Backoff
from warren.api.node_connection import Connection, Doors, close
from warren.api.node_events import Connected, Disconnected, Event, Refused
from warren.api.trust_race import first_of
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Coordinator, NodeRecord
from warren.model.verified import Verified
from warren.proto.control import client_events, messages
from warren.proto.control.client import ClientSession, EnrolRequest, State
from warren.proto.control.client_events import Published

EVENTS_MAX: Final = 64
"""What may wait for the owner; then the coordinator waits too."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a session ended."""

    why: str
    opened: bool
    refused: messages.Refused | None


class NodeLink:
    """Use as ``async with link:``, and take what comes from :meth:`events`; single owner, one event loop.

    Nothing is lost by an error: whatever happens to connections is told as Disconnected, and tried again.
    """

    def __init__(
        self,
        *,
        network: VerifyKey,
        node: SigningKey,
        coordinators: Sequence[Coordinator],
        since: Callable[[], int] = lambda: 0,
        enrol: EnrolRequest | None = None,
        version: str = "",
        random: random.Random,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        proxy: str | None = None,
    ) -> None:
        """``since`` is asked at each connection for the revision of the map that the owner holds then. With ``enrol``
        the node becomes a member first; ``random`` spreads its attempts. ``proxy``: the URL of an HTTP proxy; None:
        as the environment says.
        """
        self.coordinators = tuple(coordinators)
        """May be set at any time; counts from the next connection on."""
        self._network = network
        self._node = node
        self._since = since
        self._enrol = enrol
        self._version = version
        self._random = random
        self._clock = clock
        self._wall_clock = wall_clock
        self._doors = Doors(wall_clock, proxy)
        self._backoff = Backoff(random.random)
        self._events: asyncio.Queue[Event] = asyncio.Queue(EVENTS_MAX)
        self._wake = asyncio.Event()
        self._retry = asyncio.Event()
        self._session: ClientSession | None = None
        self._record: Verified[NodeRecord] | None = None
        self._report: messages.Report | None = None
        self._left: asyncio.Future[None] | None = None
        self._last_url = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"link to {self._network.short}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._left is not None and not self._left.done():
            self._left.set_exception(Unreachable("the link was closed before the coordinator had forgotten the node"))
        if not self._task.cancelled():
            self._task.result()  # raises what ended it, if that was an error

    async def events(self) -> AsyncIterator[Event]:
        """What happens, in order; ends when the node has left, may not enrol, or the link is closed."""
        task = self._task
        if task is None:
            raise RuntimeError("a link has events inside `async with` only")
        while True:
            getting = asyncio.ensure_future(self._events.get())
            try:
                await asyncio.wait({getting, task}, return_when=asyncio.FIRST_COMPLETED)
                if not getting.done():
                    break
                yield getting.result()
            finally:
                getting.cancel()
        if not task.cancelled():
            task.result()  # raises what ended it, if that was an error

    @property
    def connected(self) -> bool:
        return self._session is not None and self._session.state is State.OPEN

    @property
    def members(self) -> int:
        """How many nodes may come back at the same moment; the owner keeps it, and the waits grow with it."""
        return self._backoff.members

    @members.setter
    def members(self, count: int) -> None:
        self._backoff.members = count

    def publish(self, record: Verified[NodeRecord]) -> None:
        """Have the coordinator hand ``record`` to all members. Until Published says that it is stored, every new
        connection begins with it; a later record takes its place.
        """
        self._record = record
        if self._session is not None:
            self._session.publish(record.envelope, self._clock())
            self._wake.set()

    def report(self, report: messages.Report) -> None:
        """Tell how the node is; the latest counts, also when there is no connection now."""
        self._report = report
        if self._session is not None:
            self._session.report(report, self._clock())
            self._wake.set()

    def signal(self, to: bytes, data: bytes) -> bool:
        """Pass ``data`` (at most SIGNAL_BYTES_MAX) on to the member ``to``; it may get lost. False: not connected."""
        if self._session is None or not self.connected:
            return False
        self._session.signal(to, data, self._clock())
        self._wake.set()
        return True

    def retry_now(self) -> None:
        """The host's network has changed: what was in vain may work now, do not wait any longer."""
        self._retry.set()

    async def leave(self) -> None:
        """Give the membership up. Returns when the coordinator has forgotten the node; the link ends with it.

        Raises Unreachable when no coordinator is connected or it does not confirm, OperationFailed when it refuses.
        """
        if self._session is None or not self._session.leave(self._clock()):
            raise Unreachable("the coordinator does not answer now, so the membership cannot be given up; try again")
        left = self._left = asyncio.get_running_loop().create_future()
        self._wake.set()
        await left

    # The loop

    async def _run(self) -> None:
        while (wait_s := await self._once()) is not None:
            self._retry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._retry.wait()

    async def _once(self) -> float | None:
        """One connection, from the attempt to its end. Returns the seconds to wait; None: it was the last."""
        self._doors.wait_asked_s = 0.0
        try:
            connection = await first_of([self._doors.opener(one) for one in self._order()], close)
        except WarrenError as error:
            wait_s = self._backoff.failed() + min(self._doors.wait_asked_s, RETRY_AFTER_MAX_S)
            await self._events.put(Disconnected(str(error), wait_s))
            return wait_s
        began, self._last_url = self._clock(), connection.url
        session = self._session = self._begin(connection)
        try:
            end = await self._converse(connection, session)
        finally:
            self._session = None
            await close(connection)
        return await self._after(end, connection, lasted_s=self._clock() - began)

    def _order(self) -> list[Coordinator]:
        """In which order to try: any, but the one that was just lost last."""
        order = list(self.coordinators)
        self._random.shuffle(order)
        return sorted(order, key=lambda one: one.url == self._last_url)

    def _begin(self, connection: Connection) -> ClientSession:
        now = self._clock()
        session = ClientSession(
            network=self._network,
            key=self._node,
            certificate_sha256=connection.certificate_sha256,
            now=now,
            since=self._since(),
            enrol=self._enrol,
            version=self._version,
        )
        if self._record is not None:
            session.publish(self._record.envelope, now)
        if self._report is not None:
            session.report(self._report, now)
        return session

    async def _converse(self, connection: Connection, session: ClientSession) -> _End:
        refused, opened = None, False
        while True:
            for message in session.take_transmits():
                await connection.send(message)
            for event in session.take_events():
                match event:
                    case client_events.RefusedByCoordinator(said):
                        refused = said
                    case client_events.Ended(why):
                        return _End(why, opened, refused)
                    case client_events.Opened():
                        opened, self._enrol = True, None
                        await self._events.put(self._connected(connection.url, event))
                    case _:
                        if isinstance(event, Published):
                            self._forget_published(event.version)
                        await self._events.put(event)
            await self._step(connection, session)

    async def _step(self, connection: Connection, session: ClientSession) -> None:
        """Wait for a message, for something to send, or for the session's deadline."""
        deadline = session.next_deadline()
        timeout_s = None if deadline is None else max(0.0, deadline.at - self._clock())
        message = await connection.receive(self._wake, timeout_s)
        self._wake.clear()  # whatever set it is in the session already
        if message is not None:
            session.receive(message, self._clock())
        elif connection.why_lost:
            session.end(connection.why_lost)
        session.handle_timeout(self._clock())

    def _connected(self, url: str, opened: client_events.Opened) -> Connected:
        offset_s = opened.time_s - self._wall_clock()
        return Connected(url, opened.time_s, offset_s, opened.observed, opened.report_every_s)

    def _forget_published(self, version: int) -> None:
        if self._record is not None and self._record.document.version <= version:
            self._record = None

    async def _after(self, end: _End, connection: Connection, lasted_s: float) -> float | None:
        """Tell how a session ended. Returns the seconds to wait before the next; None: there is none."""
        if self._left is not None:
            return await self._after_leaving(end, connection, self._left)
        if end.refused is not None:
            final = end.refused.retry_after_s is None
            await self._events.put(Refused(end.refused, final))
            wait_s = None if final and self._enrol is not None else self._backoff.refused(end.refused.retry_after_s)
        elif end.opened:
            wait_s = self._backoff.lost(lasted_s, elsewhere=len(self.coordinators) > 1)
        else:
            wait_s = self._backoff.failed()
        await self._events.put(Disconnected(end.why, wait_s))
        return wait_s

    async def _after_leaving(self, end: _End, connection: Connection, left: asyncio.Future[None]) -> float | None:
        self._left = None
        gone = end.refused is None and connection.ended_well
        wait_s = None if gone else self._backoff.failed()
        await self._events.put(Disconnected("the node has left the network" if gone else end.why, wait_s))
        if left.done():
            return wait_s
        if gone:
            left.set_result(None)
        elif end.refused is not None:
            left.set_exception(OperationFailed(f"the membership was not given up: {Refused(end.refused, final=False)}"))
        else:
            left.set_exception(Unreachable(f"whether the membership was given up is not known: {end.why}; try again"))
        return wait_s
