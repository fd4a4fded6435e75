"""An entry that takes streams: its listeners, who may come in, and what its kind does with them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from warren import log
from warren.errors import MalformedPacket, OperationFailed
from warren.l4 import listening, plain
from warren.l4.config import Entry, EntryState, Listen
from warren.l4.health import Health
from warren.l4.kinds import Incoming, Refused, StreamKind
from warren.l4.limits import allowed
from warren.l4.permitted import Change
from warren.l4.pump import reset
from warren.l4.straight import local_of
from warren.l4.tools import EntryTools
from warren.model.services import CONNECTOR_PORT
from warren.model.tunnel import TransportAddress
from warren.proto import proxy_protocol

RETRY_S: Final = 3.0
"""How often a place that could not be listened on is tried again."""
ACCEPTS_PER_TURN: Final = 64
"""New streams taken before the loop does other things."""
HEADER_S: Final = 5.0
"""For the PROXY header, which its sender has ready when it connects."""
FIRST_CHECK_S: Final = 0.3
"""How long :meth:`StreamEntry.open` waits for the first check, which mostly ends at once."""
NO_ROOM_S: Final = 0.2
"""How long nothing is accepted when there are no descriptors."""

_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log = log.get("streams")


class _Listener:
    """One open place."""

    __slots__ = ("accepting", "known", "place", "sock", "where")

    def __init__(self, where: Listen, sock: socket.socket) -> None:
        self.where = where
        self.sock = sock
        self.place = listening.place_of(sock)
        self.known = listening.identity(where.path) if where.path else None
        self.accepting = True


class StreamEntry:
    """A :class:`~warren.l4.kinds.Running` for streams. ``changed`` is called when its state did."""

    def __init__(self, entry: Entry, tools: EntryTools, kind: StreamKind, changed: Callable[[], None]) -> None:
        self.entry = entry
        self._tools = tools
        tools.way = entry.way
        self._kind = kind
        self._tell = changed
        self._straight = tools.straight() if kind is plain.handle else None
        if self._straight is not None:
            self._straight.plan(entry.way)
        self._listeners: dict[Listen, _Listener] = {}
        self._problems: dict[Listen, str] = {}
        self._health: Health | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._placing = asyncio.Lock()

    async def open(self) -> None:
        self._watch_health(trusted=False)
        if self._health is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_CHECK_S):
                    await self._health.checked.wait()
        await self._place()

    async def update(self, entry: Entry) -> None:
        before, self.entry = self.entry, entry
        change = Change.of(before, entry)
        self._tools.way = entry.way
        if self._straight is not None:
            self._straight.plan(entry.way)
            self._straight.end_forbidden(change)
        await self._tools.end_forbidden(change)
        if before.limits != entry.limits:
            self._tools.admission.forget()
        if before.health != entry.health or (entry.health is not None and before.way != entry.way):
            # Until it has been looked at, nothing is known that speaks against it.
            trusted = self._health is None or self._health.healthy
            await self._end_health()
            self._watch_health(trusted=trusted)
        await self._place()

    def state(self) -> EntryState:
        places = tuple(one.place for one in self._listeners.values())
        problems = [*self._problems.values(), *self._sharers()]
        if problems:
            return EntryState(id=self.entry.id, state="failed", reason="; ".join(problems), places=places)
        if self._health is not None and not self._health.healthy:
            return EntryState(id=self.entry.id, state="unhealthy", reason=self._health.reason)
        return EntryState(id=self.entry.id, state="listening", places=places)

    def _sharers(self) -> list[str]:
        found = [listening.sharers(one.where, one.sock) for one in self._listeners.values()]
        return [why for why in found if why]

    async def close(self) -> None:
        self._closed = True
        await self._end_health()
        async with self._placing:
            if self._retry is not None:
                self._retry.cancel()
            for where in list(self._listeners):
                self._shut(where)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._straight is not None:
            self._straight.close()
        await self._tools.end_all()

    def _watch_health(self, *, trusted: bool) -> None:
        health = self.entry.health
        if health is None:
            self._tools.unreachable = None
            return
        self._health = Health(self._check, health.every_s, self._health_changed, trusted=trusted)
        self._tools.unreachable = self._health.failed

    async def _end_health(self) -> None:
        health, self._health = self._health, None
        if health is not None:
            await health.close()

    async def _check(self) -> None:
        await self._tools.check(self.entry.way)

    async def _health_changed(self) -> None:
        health = self._health
        if health is None:
            return
        _log.debug("%s: %s", self.entry.id, health.reason or "its target can be connected to")
        await self._place()
        self._tell()

    async def _place(self) -> None:
        """Listen where it should be listened, and nowhere else."""
        async with self._placing:
            if self._closed:
                return
            healthy = self._health is None or self._health.healthy
            wanted = self.entry.listen if healthy else ()
            for where in [one for one in self._listeners if one not in wanted]:
                self._shut(where)
            before = dict(self._problems)
            self._problems.clear()
            for where in wanted:
                if where not in self._listeners:
                    await self._open(where, before.get(where))
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            if self._problems:
                self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    async def _open(self, where: Listen, problem: str | None) -> None:
        try:
            listener = _Listener(where, await self._tools.listen(where))
        except (OperationFailed, OSError) as error:
            self._problems[where] = str(error)
            if str(error) != problem:
                _log.debug("%s: %s", self.entry.id, error)
            return
        self._listeners[where] = listener
        asyncio.get_running_loop().add_reader(listener.sock.fileno(), self._accept, listener)

    def _shut(self, where: Listen) -> None:
        listener = self._listeners.pop(where)
        asyncio.get_running_loop().remove_reader(listener.sock.fileno())
        if listener.known is not None:
            listening.unlink(where.path, listener.known)
        listener.sock.close()

    def _try_again(self) -> None:
        self._retry = None
        _ = self._begin(self._retried())

    async def _retried(self) -> None:
        before = self.state()
        await self._place()
        if self.state() != before:
            self._tell()

    def _begin(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _accept(self, listener: _Listener) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, name = listener.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._rest(listener, error)
                return
            sock.setblocking(False)
            self._came(listener.where, sock, listening.transport_address(name))

    def _rest(self, listener: _Listener, error: OSError) -> None:
        """Accept nothing for a moment: it would fail again and again."""
        why = "there are no file descriptors left" if error.errno in _NO_ROOM else os.strerror(error.errno or 0)
        self._tools.count(Refused("resources", f"nothing can be accepted: {why}"), None)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.sock.fileno())
        loop.call_later(NO_ROOM_S, self._go_on, listener)

    def _go_on(self, listener: _Listener) -> None:
        if self._listeners.get(listener.where) is listener:
            asyncio.get_running_loop().add_reader(listener.sock.fileno(), self._accept, listener)

    def _came(self, where: Listen, sock: socket.socket, peer: TransportAddress | None) -> None:
        admission, limits = self._tools.admission, self.entry.limits
        told = self._is_told(where)
        try:
            if not told:
                admission.admit(peer, limits)
            else:  # the rate is for the client, who is not known yet
                if where.port == CONNECTOR_PORT and not (peer and allowed(peer.ip, self.entry.proxy_in_from)):
                    raise Refused("source", "only members that carry this service may say who a client is")
                if self.entry.proxy_in:
                    admission.check_source(peer, limits.sources)
                admission.check_open(peer, limits)
        except Refused as refused:
            self._tools.count(refused, peer)
            reset(sock)
            return
        self._tools.accepted(sock, peer)
        if not told and self._straight is not None and self._straight.carry(sock, peer):
            return
        local = local_of(sock)
        self._tools.attended(sock, self._begin(self._serve(Incoming(sock, peer, local, where), told)))

    def _is_told(self, where: Listen) -> bool:
        """Whether streams that come in there begin with a PROXY header."""
        return self.entry.proxy_in or (where.side == "overlay" and where.port == CONNECTOR_PORT and not where.path)

    async def _serve(self, incoming: Incoming, told: bool) -> None:
        entry, tools = self.entry, self._tools
        try:
            if told:
                await self._read_header(incoming)
            await self._kind(incoming, entry, tools)
        except Refused as refused:
            tools.refuse(incoming, refused)
        except asyncio.CancelledError:
            reset(incoming.sock)
            raise
        except Exception:  # noqa: BLE001 - a bug in one kind ends one stream
            _log.exception("%s: a stream ended in a way that was not expected", entry.id)
            reset(incoming.sock)
        finally:
            tools.settled(incoming.sock)

    async def _read_header(self, incoming: Incoming) -> None:
        """Read it, and nothing behind it; from then on the client is who it names. Raises Refused."""
        loop = asyncio.get_running_loop()
        data = b""
        try:
            async with asyncio.timeout(HEADER_S):
                while missing := proxy_protocol.missing_untrusted(data):
                    read = await loop.sock_recv(incoming.sock, missing)
                    if not read:
                        raise Refused("proxy-header", "it ended before its PROXY header")
                    data += read
            decoded = proxy_protocol.decode_untrusted(data)
        except TimeoutError:
            raise Refused("proxy-header", f"no PROXY header came within {HEADER_S:.0f} s") from None
        except OSError as error:
            raise Refused("proxy-header", f"it ended before its PROXY header: {error.strerror}") from None
        except MalformedPacket as error:
            raise Refused("proxy-header", str(error)) from None
        header = decoded[0] if decoded else None
        if header is not None and header.source is not None:
            incoming.client, incoming.local = header.source, header.destination
        limits, admission = self.entry.limits, self._tools.admission
        if not self.entry.proxy_in:
            admission.check_source(incoming.client, limits.sources)
        self._tools.told(incoming, limits)
