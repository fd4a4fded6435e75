"""Streams of an entry whose way has one known place: accepted, connected and carried without a task of their own.

The pump watches both sockets from the beginning and says when the connection is there: a stream that lives for a
millisecond spends most of it in the kernel. What a connection has to wait for otherwise (a name, a second backend, a
socket of another process) is :meth:`warren.l4.connect.Dialler.connect`'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from warren import log
from warren.l4.candidates import Candidate
from warren.l4.config import Way
from warren.l4.connect import Dialler
from warren.l4.kinds import Refused
from warren.l4.listening import transport_address
from warren.l4.permitted import Change
from warren.l4.pump import Pump, reset
from warren.l4.stream import Stream
from warren.model.tunnel import TransportAddress

TOGETHER_S: Final = 0.1
"""Those whose time ends within this are refused at once: among thousands each look takes a millisecond."""
_log = log.get("streams")


class Counting(Protocol):
    """What is used of :class:`warren.l4.tools.EntryTools`."""

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        *,
        idle_s: float | None = None,
        opened: Callable[[int | None], bool] | None = None,
    ) -> Stream: ...

    def settled(self, sock: socket.socket) -> None: ...

    def count_failure(self, why: Refused, client: TransportAddress | None) -> None: ...


class _Opening(NamedTuple):
    stream: Stream
    to: Candidate
    client: TransportAddress | None
    due: float
    timeout_s: float


class Straight:
    """Of one entry. Use from the event loop of the pump."""

    def __init__(self, dialler: Dialler, pump: Pump, tools: Counting) -> None:
        self._dialler = dialler
        self._pump = pump
        self._tools = tools
        self._loop = asyncio.get_running_loop()
        self._way = Way()
        self._to: Candidate | None = None
        self._opening: dict[socket.socket, _Opening] = {}
        """By the client's socket; no more than may be open of the entry."""
        self._timer: asyncio.TimerHandle | None = None

    def plan(self, way: Way) -> None:
        """From now on streams go there."""
        self._way = way
        self._to = self._dialler.only(way)

    def carry(self, incoming: socket.socket, client: TransportAddress | None) -> bool:
        """Connect and carry it, or reset it; ``incoming`` has been counted as accepted. Returns False, and has done
        nothing, when the way is none for this.
        """
        to, way = self._to, self._way
        if to is None:
            return False
        begun = self._begin(to, incoming, client)
        if begun is None:
            self._tools.settled(incoming)
            reset(incoming)
            return True
        outgoing, there = begun
        if there:
            self._tools.carry(incoming, outgoing, idle_s=way.idle_s)
            return True
        stream = self._tools.carry(
            incoming,
            outgoing,
            idle_s=way.idle_s,
            opened=partial(self._opened, incoming, outgoing),
        )
        if not stream.closed:
            due = self._loop.time() + way.connect_timeout_s
            self._opening[incoming] = _Opening(stream, to, client, due, way.connect_timeout_s)
            if self._timer is None or due < self._timer.when():
                self._look_at(due)
        return True

    def end_forbidden(self, change: Change) -> None:
        """Reset what is being connected to where streams may not go any more: the kernel does not say yet where the
        other end is.
        """
        forbidden = change.backend
        if forbidden is None:
            return
        for one in list(self._opening.values()):
            if one.to.ip is not None and forbidden(one.to.ip):
                self._pump.end(one.stream, aborted=True)

    def close(self) -> None:
        """Streams that are being connected are the tools' to end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(
        self, to: Candidate, incoming: socket.socket, client: TransportAddress | None
    ) -> tuple[socket.socket, bool] | None:
        """See :meth:`Dialler.begin`; None when it failed, which has been counted."""
        outgoing: socket.socket | None = None
        try:
            outgoing, there = self._dialler.begin(to)
            if there:
                self._dialler.finish(to, outgoing, 0, client, partial(local_of, incoming))
        except Exception as error:  # noqa: BLE001 - a bug ends one stream
            if outgoing is not None:
                outgoing.close()
            self._failed(error, client)
            return None
        return outgoing, there

    def _opened(self, incoming: socket.socket, outgoing: socket.socket, number: int | None) -> bool:
        """The connection has come about, or not; returns whether the stream goes on."""
        opening = self._opening.pop(incoming, None)
        if opening is None or number is None:
            return False
        try:
            self._dialler.finish(opening.to, outgoing, number, opening.client, partial(local_of, incoming))
        except Exception as error:  # noqa: BLE001 - the same
            self._failed(error, opening.client)
            return False
        return True

    def _failed(self, error: Exception, client: TransportAddress | None) -> None:
        if isinstance(error, Refused):
            self._tools.count_failure(error, client)
        else:
            _log.error("a stream ended in a way that was not expected", exc_info=error)

    def _look(self) -> None:
        """Refuse what was not connected in time."""
        self._timer = None
        now = self._loop.time()
        for one in [one for one in self._opening.values() if one.due <= now]:
            self._tools.count_failure(self._dialler.late(one.to, one.timeout_s), one.client)
            self._pump.end(one.stream, aborted=True)
        if self._opening:
            self._look_at(max(min(one.due for one in self._opening.values()), now + TOGETHER_S))

    def _look_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)


def local_of(incoming: socket.socket) -> TransportAddress | None:
    """Where it came in; None for a Unix socket or a stream that is gone."""
    try:
        return transport_address(incoming.getsockname())
    except OSError:
        return None
