"""Connections to backends: the best one first, the next a quarter of a second later or as soon as one has failed.

That is RFC 8305 §5 over all addresses of all backends. Who has failed of late comes last, so that a dead backend is not
waited for by each stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed
from warren.l4 import own_places
from warren.l4.candidates import (
    Candidate,
    Failure,
    at,
    at_path,
    begun,
    explained,
    key,
    literal,
    named,
    objection,
    say_who,
)
from warren.l4.config import Way
from warren.l4.host_names import HostNames
from warren.l4.kinds import Connected, Refused
from warren.l4.listening import prepare, transport_address
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.model.tunnel import TransportAddress

STAGGER_S: Final = 0.25
"""RFC 8305 §8: Connection Attempt Delay."""
FAILED_S: Final = 10.0
"""For so long a backend that failed comes after those that did not."""
REMEMBERED_MAX: Final = 4096
"""Backends that failed; then all is forgotten, which costs an attempt for each."""
_HOST: Final = HostSockets()


class Dialler:
    """Makes connections for all entries of the process. ``clock`` is monotonic, in seconds. ``closed``: directories
    whose Unix sockets nothing is connected to.
    """

    def __init__(self, overlay: OverlaySockets, clock: Callable[[], float], closed: Sequence[Path] = ()) -> None:
        self._overlay = overlay
        self._closed = closed
        self._clock = clock
        self._failed: dict[Any, float] = {}
        self._names = HostNames(clock)

    async def connect(
        self,
        way: Way,
        client: TransportAddress | None,
        local: TransportAddress | None,
        *,
        own: bool = False,
    ) -> Connected:
        """See :meth:`warren.l4.kinds.Tools.connect`. ``own``: it is for a check, which the PROXY header then says."""
        if way.refusal:
            raise Refused(way.refused_as, way.refusal)
        if not way.backends:
            raise Refused("no-backend", "nobody serves this now")
        candidates, failure = await self._candidates(way)
        if not candidates:
            raise Refused(*failure)
        if len(candidates) == 1:
            found = await self._attempt(candidates[0], way.connect_timeout_s)
        else:
            found = await self._race(candidates, way.connect_timeout_s)
        if not isinstance(found, Connected):
            raise Refused(*found)
        try:
            say_who(found.sock, found.backend, client, local, own=own)
        except BaseException:
            found.sock.close()
            raise
        return found

    def only(self, way: Way) -> Candidate | None:
        """The one place of ``way`` that a connection can be begun to without waiting for anybody; None: there are
        several, or none, or somebody is to be asked first.
        """
        if way.refusal or len(way.backends) != 1:
            return None
        backend = way.backends[0]
        if backend.path:
            return at_path(backend)
        if backend.side == "overlay" and not isinstance(self._overlay, HostSockets):
            return None
        ip = literal(backend.host)
        return None if ip is None or objection(backend, ip, way) else at(backend, ip)

    def begin(self, only: Candidate) -> tuple[socket.socket, bool]:
        """A socket that is being connected to it, and whether it is already; the caller owns it. Raises Refused."""
        sock: socket.socket | None = None
        try:
            self._check(only)
            sock = _HOST.make(only.family, socket.SOCK_STREAM)
            if only.ip is not None:
                prepare(sock)
            return sock, begun(sock, only.place)
        except (OSError, OperationFailed, Refused) as error:
            if sock is not None:
                sock.close()
            raise self._failure(only, error) from None

    def finish(
        self,
        only: Candidate,
        sock: socket.socket,
        number: int,
        client: TransportAddress | None,
        local: Callable[[], TransportAddress | None],
    ) -> None:
        """The attempt has ended with this error, if not 0. Raises Refused, and ``sock`` stays the caller's."""
        try:
            if number:
                raise OSError(number, os.strerror(number))
            self._check(only, sock)
        except (OSError, Refused) as error:
            raise self._failure(only, error) from None
        if self._failed:
            self._failed.pop(key(only), None)
        backend = only.backend
        if backend.connector_port or backend.proxy_out:
            say_who(sock, backend, client, local())

    def late(self, only: Candidate, timeout_s: float) -> Refused:
        """Why a stream is refused whose backend has not answered in time."""
        return self._failure(only, TimeoutError(), timeout_s)

    def _failure(self, candidate: Candidate, error: Exception, timeout_s: float = 0.0) -> Refused:
        self._remember_failure(candidate)
        return Refused(*(explained(error, candidate.backend, timeout_s) or ("connect", str(error))))

    def _remember_failure(self, candidate: Candidate) -> None:
        if len(self._failed) >= REMEMBERED_MAX:
            self._failed.clear()
        self._failed[key(candidate)] = self._clock()

    async def _candidates(self, way: Way) -> tuple[list[Candidate], Failure]:
        """All addresses of all backends in the order in which to try them; why there is none."""
        made: list[Candidate] = []
        failure = ("unresolved", "")
        for backend in way.backends:
            if backend.path:
                made.append(at_path(backend))
                continue
            try:
                ips = await self._names.addresses(backend, way.connect_timeout_s)
            except Refused as refused:
                failure = (refused.reason, str(refused))
                continue
            for ip in ips:
                why = objection(backend, ip, way)
                if why:
                    failure = ("policy", why)
                else:
                    made.append(at(backend, ip))
        if len(made) > 1 and self._failed:
            now = self._clock()
            made.sort(key=lambda one: now - self._failed.get(key(one), -FAILED_S) < FAILED_S)
        return made, failure

    async def _race(self, candidates: Sequence[Candidate], timeout_s: float) -> Connected | Failure:
        """Staggered attempts; the first to succeed wins, the others are given up."""
        failure = ("connect", "")
        waiting = list(reversed(candidates))
        running: set[asyncio.Task[Connected | Failure]] = set()
        won: Connected | None = None
        try:
            while waiting or running:
                if waiting:
                    running.add(asyncio.ensure_future(self._attempt(waiting.pop(), timeout_s)))
                done, running = await asyncio.wait(
                    running, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    result = task.result()
                    if not isinstance(result, Connected):
                        failure = result
                    elif won is None:
                        won = result
                    else:
                        result.sock.close()
                if won is not None:
                    return won
            return failure
        finally:
            await _give_up(running)

    async def _attempt(self, candidate: Candidate, timeout_s: float) -> Connected | Failure:
        """One connection, or why not."""
        backend = candidate.backend
        sock: socket.socket | None = None
        try:
            self._check(candidate)
            async with asyncio.timeout(timeout_s):
                sock = await self._socket(candidate)
                await _connected(sock, candidate.place)
            self._check(candidate, sock)
        except BaseException as error:
            if sock is not None:
                sock.close()
            failure = explained(error, backend, timeout_s)
            if failure is None:
                raise
            self._remember_failure(candidate)
            return failure
        self._failed.pop(key(candidate), None)
        return Connected(sock, backend)

    def _check(self, candidate: Candidate, sock: socket.socket | None = None) -> None:
        """Before and after connecting. Raises Refused for what no stream may lead to."""
        if candidate.ip is None:
            if own_places.is_closed(str(candidate.place), self._closed):
                raise Refused("connect", f"{named(candidate.backend)} is Warren's own and serves nobody else")
        elif candidate.backend.side == "host" and own_places.listens(socket.SOCK_STREAM, candidate.place[1]):
            here = None if sock is None else transport_address(sock.getsockname())
            local = None if here is None else here.ip
            if own_places.leads_back(socket.SOCK_STREAM, candidate.ip, candidate.place[1], local):
                raise Refused("connect", f"{named(candidate.backend)} is where Warren itself listens: a loop")

    async def _socket(self, candidate: Candidate) -> socket.socket:
        if candidate.family == socket.AF_UNIX:
            return await _HOST.open(socket.AF_UNIX, socket.SOCK_STREAM)
        sockets = self._overlay if candidate.backend.side == "overlay" else _HOST
        sock = await sockets.open(candidate.family, socket.SOCK_STREAM)
        sock.setblocking(False)
        prepare(sock)
        return sock


async def _connected(sock: socket.socket, place: Any) -> None:
    """Wait until it is, or raises OSError."""
    if begun(sock, place):
        return
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(sock.fileno(), _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock.fileno())
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, errno.errorcode.get(number, "?"))


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _give_up(running: set[asyncio.Task[Connected | Failure]]) -> None:
    """End attempts; one that succeeds at that very moment is closed."""
    for task in running:
        task.cancel()
    for task in running:
        with contextlib.suppress(asyncio.CancelledError):
            result = await task
            if isinstance(result, Connected):
                result.sock.close()
