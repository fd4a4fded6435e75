"""One node's connection: moves bytes between its WebSocket, the session's rules and the service.

What the session may say and when is :class:`~warren.proto.control.server.ServerSession`'s business. Here: one task
reads; whoever has something for the node calls :meth:`NodeSession.wake` or puts it into the session, and one task at
a time sends. Changes of the map are not queued for a node that is slow: what is missing since its revision is asked
for when the last part has left.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

from uvicorn.protocols.utils import ClientDisconnected

from warren import __version__, log
from warren.coordinator.limits import Place
from warren.coordinator.problems import Problem, unavailable
from warren.coordinator.tls import Served
from warren.coordinator.web.auth import Gate
from warren.coordinator.web.door import CERTIFICATE, Receive, Scope, Send, place_of
from warren.coordinator.web.hub import Hub
from warren.coordinator.web.metrics import Metrics
from warren.identity.signing import VerifyKey
from warren.model.envelope import Envelope
from warren.proto.control.messages import NONCE_BYTES, SUBPROTOCOL, RelayAccess
from warren.proto.control.server import DECIDE_WITHIN_S, ServerSession, State
from warren.proto.control.server_events import (
    AuthenticateWanted,
    Ended,
    EnrolWanted,
    Event,
    LeaveWanted,
    PublishWanted,
    Reported,
    SignalWanted,
)

if TYPE_CHECKING:
    from warren.coordinator.service import Service, SessionToken

_log = log.get("coordinator.nodes")

_FAILED_PROOFS: Final = frozenset({"bad-proof", "ticket-unknown", "ticket-used", "ticket-expired", "unknown-network"})
SIGNALS_PENDING_BYTES: Final = 256 << 10
"""Signals for a node that does not read are dropped beyond that; they are hints, and sent again."""
_NORMAL: Final = 1000  # RFC 6455 §7.4.1


class Nodes:
    """The ASGI application behind /v1/node."""

    def __init__(self, service: Service, hub: Hub, gate: Gate, metrics: Metrics) -> None:
        self._service = service
        self._hub = hub
        self._gate = gate
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session = NodeSession(self._service, self._hub, self._gate, self._metrics, scope, send)
        await session.run(receive)


class NodeSession:
    """Lives as long as its WebSocket."""

    __slots__ = (
        "_gate",
        "_granted",
        "_hub",
        "_is_behind",
        "_metrics",
        "_observed",
        "_over",
        "_place",
        "_send",
        "_sender",
        "_service",
        "_session",
        "_token",
        "network",
        "node",
    )

    def __init__(self, service: Service, hub: Hub, gate: Gate, metrics: Metrics, scope: Scope, send: Send) -> None:
        self._service = service
        self._hub = hub
        self._gate = gate
        self._metrics = metrics
        self._send = send
        self._place: Place = place_of(scope)
        self._observed = str(scope["client"][0]) if scope["client"] else ""
        certificate: Served = scope["state"][CERTIFICATE]
        self._session = ServerSession(
            nonce=os.urandom(NONCE_BYTES),
            certificate_sha256=certificate.certificate_sha256,
            time_s=time.time(),
            now=time.monotonic(),
            version=__version__,
        )
        self._sender: asyncio.Task[None] | None = None
        self._is_behind = False
        self._over = False
        self._token: SessionToken | None = None
        self._granted = RelayAccess()
        self.network = b""
        self.node = b""

    async def run(self, receive: Receive) -> None:
        """Until the node is gone or refused."""
        await receive()  # websocket.connect
        await self._send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        try:
            try:
                self._gate.check(self._place.source)
            except Problem as problem:
                self.refuse(problem)
            self._flush()
            while not self._over:
                message = await self._next(receive)
                if message is not None:
                    self._metrics.node_messages.labels("in").inc()
                    self._metrics.node_bytes.labels("in").inc(len(message))
                    self._session.receive(message, time.monotonic())
                await self._serve()
                self._flush()
            if self._sender is not None:
                await self._sender
        finally:
            self._session.end("the connection is over")
            await self._depart()
            if self._sender is not None:
                self._sender.cancel()
                await asyncio.gather(self._sender, return_exceptions=True)

    @property
    def id(self) -> str:
        """The service's name for the session; empty before the node was let in."""
        return self._token.id if self._token is not None else ""

    # To the node

    def wake(self, revision: int | None) -> None:
        """The map has reached ``revision`` (None: who knows): send what is missing, soon."""
        if self._token is not None and (revision is None or revision > self._session.since):
            self._is_behind = True
            self._flush()

    def signal(self, sender: bytes, data: bytes) -> None:
        """Hand on a signal of another member."""
        if self._session.pending_bytes < SIGNALS_PENDING_BYTES:
            self._session.signal(sender, data)
            self._flush()

    def replaced(self) -> None:
        """The same node has connected anew."""
        self._session.end("the node has connected anew")
        self._flush()

    def refuse(self, problem: Problem) -> None:
        """End the session for that reason, at once."""
        if self._session.state is not State.ENDED:
            self._metrics.node_refusals.labels(problem.kind).inc()
        refused = problem.refused()
        self._session.refuse(refused.kind, refused.title, refused.detail, refused.remedy, refused.retry_after_s)
        self._flush()

    def _flush(self) -> None:
        """Have everything sent; returns at once."""
        if not self._over and (self._sender is None or self._sender.done()):
            self._sender = asyncio.get_running_loop().create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while True:
                await self._transmit()
                if self._session.state is State.ENDED:
                    if not self._session.pending_bytes:
                        await self._close()
                        return
                elif self._is_behind:
                    self._is_behind = False
                    await self._catch_up()
                elif not self._session.pending_bytes:
                    return
        except ClientDisconnected:
            self._session.end("the connection is lost")
            self._over = True

    async def _transmit(self) -> None:
        for data in self._session.take_transmits():
            self._metrics.node_messages.labels("out").inc()
            self._metrics.node_bytes.labels("out").inc(len(data))
            await self._send({"type": "websocket.send", "bytes": data})

    async def _catch_up(self) -> None:
        """Send what the node lacks, part by part, as fast as it reads."""
        await self._grant()
        try:
            parts = await self._service.packed_updates_since(self.network, self._session.since)
        except Problem as problem:
            self.refuse(problem)
            return
        for part in parts:
            self._session.update(part.head, part.message)
            await self._transmit()

    async def _grant(self) -> None:
        """Give the node what it needs to use the relays, if that is not what it has."""
        try:
            access = await self._service.relay_access(self.network, self.node)
        except Problem as problem:
            _log.debug("%s: no access to relays: %s", self._name(), problem)
            return
        if access != self._granted:
            self._granted = access
            self._session.relay_access(access)

    async def _close(self) -> None:
        self._over = True
        await self._send({"type": "websocket.close", "code": _NORMAL, "reason": ""})

    # From the node

    async def _next(self, receive: Receive) -> bytes | None:
        """The next message; None when there was none before the session's deadline, or there will be none."""
        deadline = self._session.next_deadline()
        wait = None if deadline is None else max(0.0, deadline.at - time.monotonic())
        try:
            async with asyncio.timeout(wait):
                message = await receive()
        except TimeoutError:
            self._session.handle_timeout(time.monotonic())
            return None
        if message["type"] == "websocket.disconnect":
            self._session.end("the node has gone")
            self._over = True
            return None
        data = message.get("bytes")
        return data if data is not None else b""  # a text frame does not parse, like any other nonsense

    async def _serve(self) -> None:
        for event in self._session.take_events():
            try:
                await self._heed(event)
            except Problem as problem:
                self._count(problem)
                self.refuse(problem)

    async def _heed(self, event: Event) -> None:
        """Raises Problem; the session ends with it."""
        match event:
            case AuthenticateWanted() | EnrolWanted():
                try:
                    async with asyncio.timeout(DECIDE_WITHIN_S):
                        await self._let_in(event)
                except TimeoutError:
                    raise unavailable("it could not be decided in time whether the node may come in") from None
            case PublishWanted(record):
                await self._publish(record)
            case Reported(report):
                await self._service.report(self.network, self.node, report)
                await self._grant()
            case SignalWanted(to, data):
                if not await self._service.send_signal(self.network, self.node, to, data):
                    self._session.undeliverable(to)
            case LeaveWanted():
                await self._service.leave(self.network, self.node)
                self._session.end("the node has left the network")
            case Ended(why):
                _log.debug("%s: %s", self._name(), why)

    async def _publish(self, record: Envelope) -> None:
        self._gate.record(self.network, self.node)
        try:
            version = await self._service.publish(self.network, self.node, record)
        except Problem as problem:
            if problem.kind != "version-conflict":
                raise
            # State of an old backup. The map, on its way to the node, has the newer record; it goes on above that one.
            _log.debug("%s: %s", self._name(), problem)
        else:
            self._session.published(version)

    async def _let_in(self, event: AuthenticateWanted | EnrolWanted) -> None:
        if isinstance(event, EnrolWanted):
            await self._service.enrol(event.network, event.node, event.secret, event.name)
        else:
            await self._service.admit(event.network, event.node)
        self._gate.session(event.network, event.node)
        self.network, self.node = event.network, event.node
        self._token = await self._service.connected(event.network, event.node, self._observed)
        self._place.proven()
        self._hub.join(self)
        self._session.accept(observed=self._observed, time_s=time.time())
        _log.debug("%s is connected from %s", self._name(), self._observed)
        self.wake(None)

    def _count(self, problem: Problem) -> None:
        if problem.kind in _FAILED_PROOFS and self._token is None:
            self._gate.failed(self._place.source, "node")

    async def _depart(self) -> None:
        if self._token is None:
            return
        token, self._token = self._token, None
        self._hub.leave(self)
        try:
            await self._service.disconnected(token)
        except Problem as problem:
            _log.debug("%s: its end is not noted: %s", self._name(), problem)

    def _name(self) -> str:
        return f"node {VerifyKey(self.node).short}" if self.node else f"a node from {self._observed}"
