"""One client's datagrams to one entry, and the answers: a socket of its own towards the backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from warren import log
from warren.l4.config import Backend, Way
from warren.l4.destinations import UNREACHABLE, Attempt, Destination, Destinations, connect
from warren.l4.flows import FlowTable
from warren.l4.held import Held, Room
from warren.l4.kinds import Refused, Tools
from warren.l4.probe import unreachable
from warren.l4.shares import groups_of
from warren.l4.train_socket import TrainSocket
from warren.l4.trains import Control, Train
from warren.model.tunnel import TransportAddress

_log = log.get("streams")


class Origin(NamedTuple):
    """Where a flow's datagrams come from, and its answers leave for."""

    key: Hashable
    """Tells it from all others of the entry."""
    door: TrainSocket
    address: Any
    """The client's, as sockets have it."""
    client: TransportAddress
    control: Control = ()
    """What sends an answer from the address that the client knows."""


class Site(Protocol):
    """The entry, as its flows see it."""

    tools: Tools
    way: Way
    destinations: Destinations
    table: FlowTable[Flow]
    room: Room

    def now(self) -> float: ...

    def own_ports(self, side: str) -> frozenset[int]:
        """Where the entry itself listens."""

    def end(self, flow: Flow, why: Refused | None = None) -> None:
        """It is over; ``why``: it was refused in the end."""

    def unreachable(self, why: Refused) -> None:
        """No backend of a flow can be reached."""


class Flow:
    """Made when its first datagram has come; :meth:`close` ends it."""

    moves_on = True
    """To another backend, when the one that has answered is not there any more."""
    direct = True
    """Nobody looks closer at what goes through."""

    __slots__ = (
        "__weakref__",
        "_address",
        "_answered",
        "_attempts",
        "_control",
        "_current",
        "_door",
        "_ended",
        "_held",
        "_moved",
        "_opening",
        "_settled",
        "_since",
        "_site",
        "_upstream",
        "client",
        "groups",
        "key",
        "proven",
        "used",
    )

    def __init__(self, site: Site, origin: Origin, ended: Callable[[], None]) -> None:
        """``ended`` is called once, by :meth:`close`."""
        self.key, self._door, self._address, self.client, self._control = origin
        self.used = 0.0
        self.proven = False
        self.groups = groups_of(origin.client.ip)
        self._site = site
        self._ended = ended
        self._upstream: TrainSocket | None = None
        self._current: Attempt | None = None
        self._attempts: list[Attempt] | None = None  # still to try; None: the whole way
        self._answered = False
        self._moved = False  # from one attempt to another
        self._settled = False  # silence does not make it move any more
        self._since = 0.0  # when the current attempt began
        self._opening: asyncio.Task[None] | None = None
        self._held = Held(site.room)

    @property
    def backend(self) -> Backend | None:
        """Where its datagrams go now."""
        return None if self._current is None else self._current.backend

    @property
    def destination(self) -> Destination | None:
        """The same, as a socket address."""
        return None if self._current is None else self._current.destination

    def forward(self, train: Train) -> None:
        """The client has sent this."""
        site, upstream = self._site, self._upstream
        # What is awaited goes first, and the books are kept while it is on its way.
        problem = self.send(upstream, train) if self._settled and upstream is not None else None
        if self._answered and not self.proven:
            site.table.prove(self)
        site.table.touch(self, site.now())
        site.tools.count_bytes(train.length, 0)
        if problem is not None:
            if problem in UNREACHABLE:
                self._failed()
            return
        if upstream is None:
            self._held.keep(train)
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open())
            return
        self._held.keep(train)
        if site.now() - self._since >= site.way.connect_timeout_s:
            self._try_next()
        elif self.send(upstream, train) in UNREACHABLE:
            self._failed()

    def forward_one(self, datagram: memoryview) -> bool:
        """The same of one datagram, in no time; False: it is not as simple as that, and nothing has been done."""
        upstream = self._upstream
        if upstream is None or not (self._settled and self.proven and self.direct):
            return False
        problem = upstream.send_one(datagram, (), None)
        site = self._site
        site.table.touch(self, site.now())
        site.tools.count_bytes(len(datagram), 0)
        if problem in UNREACHABLE:
            self._failed()
        return True

    def send(self, upstream: TrainSocket, train: Train) -> int:
        """To the backend; 0 or an errno."""
        return upstream.send(train)

    def answer(self, train: Train) -> None:
        """To the client."""
        self._door.send(train, self._control, self._address)

    def answers(self, upstream: TrainSocket, train: Train) -> Sequence[Train]:  # noqa: ARG002 - for who looks closer
        """Of what ``upstream`` has received, that which is an answer to this flow."""
        return (train,)

    def attempts(self) -> list[Attempt]:
        """Whom to try, best first. Raises Refused."""
        return self._site.destinations.attempts(self._site.way)

    async def attach(self, upstream: TrainSocket, where: Destination) -> None:
        """``upstream`` is new: see to it that only ``where`` answers by it. Raises Refused."""
        connect(upstream.sock, where, self._site.own_ports(where.side), self._site.way)
        upstream.of_one = True

    async def prepare(self) -> None:
        """What else there is to open before the first backend. Raises Refused."""

    def refused(self, why: Refused) -> None:
        """It ends since there is nobody to send to."""

    def came_by(self, door: TrainSocket) -> bool:
        return self._door is door

    def close(self) -> None:
        """Its sockets are closed, what it holds is forgotten."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self._detach()
        self._held.release()
        ended, self._ended = self._ended, _nothing
        ended()

    def start_anew(self) -> None:
        """As a flow that has just begun, towards the same backends."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        self._detach()
        self._held.release()
        self._attempts, self._answered, self._moved, self._settled = None, False, False, False

    async def _open(self) -> None:
        """Find a backend that can be sent to, and send what was held."""
        site = self._site
        try:
            await self.prepare()
            if self._attempts is None:
                self._attempts = self.attempts()
            upstream = await self._next_upstream()
        except Refused as why:
            self._opening = None
            if why.reason == "connect":
                site.unreachable(why)
            site.end(self, why)
            return
        except Exception:  # noqa: BLE001 - a bug ends one flow
            _log.exception("a flow of %s ends in a way that was not expected", self.client)
            self._opening = None
            site.end(self)
            return
        self._opening = None
        self._upstream, self._since = upstream, site.now()
        site.tools.watch(upstream.sock, partial(self._readable, upstream))
        held = iter(self._held)
        if self._settled or not (self._attempts or self._moved):
            self._settled = True
            self._held.release()
        for train in held:
            if self.send(upstream, train) in UNREACHABLE:
                self._failed()
                return

    async def _next_upstream(self) -> TrainSocket:
        """Raises Refused with the last reason when no attempt is left."""
        site = self._site
        why = Refused("connect", "no address of it can be reached")
        while self._attempts:
            attempt = self._attempts.pop(0)
            try:
                if attempt.destination is None:
                    found = await site.destinations.resolve(attempt, site.way.connect_timeout_s)
                    self._attempts[:0] = found
                    continue
                self._current = attempt
                return await self._upstream_to(attempt.destination)
            except Refused as refused:
                why = refused
                if attempt.destination is not None and refused.reason == "connect":
                    site.destinations.failed(attempt.destination)
        raise why

    async def _upstream_to(self, where: Destination) -> TrainSocket:
        sock = await self._site.destinations.open(where.side, where.family)
        try:
            upstream = TrainSocket(sock)
            await self.attach(upstream, where)
        except BaseException:
            sock.close()
            raise
        return upstream

    def _readable(self, upstream: TrainSocket) -> None:
        if upstream.alone and self._answered and self.direct:
            one = upstream.receive_one()
            received: Iterable[Train] = ()
            if one is not None:
                self._answer_one(one[0])
                received = upstream.rest()
                if not received:
                    return
        else:
            received = upstream.trains()
        self._answer(upstream, received)

    def _answer_one(self, datagram: memoryview) -> None:
        site = self._site
        self._door.send_one(datagram, self._control, self._address)
        site.table.touch(self, site.now())
        site.tools.count_bytes(0, len(datagram))

    def _answer(self, upstream: TrainSocket, trains: Iterable[Train]) -> None:
        site = self._site
        total = 0
        for received in trains:
            for train in self.answers(upstream, received):
                total += train.length
                if not self._answered:
                    self._first_answer()
                self.answer(train)
        if total:
            site.tools.count_bytes(0, total)
        if self._answered:
            site.table.touch(self, site.now())
        if upstream.problem is not None and upstream.problem.errno in UNREACHABLE:
            self._failed()

    def _first_answer(self) -> None:
        self._answered = self._settled = True
        self._attempts = None
        self._held.release()
        if self._current is not None and self._current.destination is not None:
            self._site.destinations.answered(self._current.destination)

    def _failed(self) -> None:
        """The backend cannot be reached: on to the next, or that was all."""
        current, site = self._current, self._site
        if self._answered and not self.moves_on:
            site.end(self)
            return
        if current is not None and current.destination is not None:
            site.destinations.failed(current.destination)
        if self._answered:  # all others may be tried again
            try:
                others = [one for one in self.attempts() if one != current]
            except Refused:
                others = []
            self._attempts, self._answered, self._settled = others, False, False
        if self._attempts:
            self._try_next()
            return
        why = unreachable(None if current is None else current.backend)
        site.unreachable(why)
        site.end(self, why)

    def _try_next(self) -> None:
        if not self._attempts:  # nobody has said a word: perhaps nobody ever will, as with syslog; the best one has it
            self._attempts, self._settled = None, True
        self._moved = True
        self._detach()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def _detach(self) -> None:
        upstream, self._upstream, self._current = self._upstream, None, None
        if upstream is not None:
            self._site.tools.unwatch(upstream.sock)
            upstream.close()


def _nothing() -> None: ...
