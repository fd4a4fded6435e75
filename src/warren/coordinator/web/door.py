"""The outermost application: everything passes here before anything looks at it.

Host and Origin, the rate of a source, the deadline of a body, what is left of a refused one, counters, one log line
per refusal. It answers every failure below with a problem.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from warren import log
from warren.coordinator.limits import HEADER_BYTES, UNAUTHENTICATED_BODY_BYTES, Limits, Place, Rates
from warren.coordinator.problems import Problem
from warren.coordinator.web import problems
from warren.coordinator.web.metrics import Metrics
from warren.proto.control import messages

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PLACE: Final = "warren.place"
CERTIFICATE: Final = "warren.certificate"
"""Keys of an ASGI scope's ``state``: the connection's :class:`Place`, and the ``Served`` certificate it began with."""

_HEADERS: Final = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]


class Door:
    """The ASGI application that uvicorn calls."""

    def __init__(
        self, rest: App, nodes: App, *, hosts: Callable[[], frozenset[str]], limits: Limits, metrics: Metrics
    ) -> None:
        """``hosts``: the DNS names that this coordinator goes by, lower case; asked per request."""
        self._rest = rest
        self._nodes = nodes
        self._hosts = hosts
        self._limits = limits
        self._metrics = metrics
        self._requests = Rates(limits.requests, time.monotonic)
        self._log = log.get("coordinator.web")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._open_socket(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send, self._limits)
        started = time.perf_counter()
        try:
            self._check(scope)
            if scope["method"] == "HEAD":  # the server leaves the body out
                scope = {**scope, "method": "GET"}
            elif scope["method"] == "OPTIONS":  # only pages of other sites need it, and they get nothing here
                scope = {**scope, "method": "NONE"}
            if scope["path"] == messages.PATH:
                raise problems.HttpProblem(
                    "upgrade-required", f"{messages.PATH} is for nodes", "Open a WebSocket there, or use the REST API."
                )
            if "//" in scope["path"] or scope["path"].endswith("/"):  # the framework would take it for another path
                raise Problem("not-found", f"{scope['path']} is not a path of this API", problems.PATHS)
            await self._rest(scope, exchange.receive, exchange.send)
        except Problem as problem:
            await exchange.refuse(problem)
        except TimeoutError:
            await exchange.refuse(LATE)
        except Exception as error:  # noqa: BLE001 - the last door: a bug is answered with a problem too
            self._log.error("%s %s failed: %s: %s", scope["method"], scope["path"], type(error).__name__, error)
            await exchange.refuse(INTERNAL)
        self._metrics.answered(scope["method"], exchange.status, time.perf_counter() - started)
        if exchange.status >= 400:
            self._log.debug("%s %s: %d", scope["method"], scope["path"], exchange.status)

    async def _open_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
            if scope["path"] != messages.PATH:
                raise Problem("not-found", f"{scope['path']} is no WebSocket", f"Nodes connect to {messages.PATH}.")
            if messages.SUBPROTOCOL not in scope["subprotocols"]:
                raise problems.HttpProblem(
                    "malformed", "no subprotocol of this coordinator is offered", f"Offer {messages.SUBPROTOCOL}."
                )
        except Problem as problem:
            body = problems.body_of(problem)
            status = problems.status_of(problem)
            headers = problems.headers_of(problem, body)
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": body})
            self._metrics.answered("GET", status, 0.0)
            return
        await self._nodes(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        """Raises Problem."""
        wait = self._requests.take(place_of(scope).source)
        if wait:
            raise Problem(
                "limit", "too many requests come from this address", "Slow down and try again.", retry_after_s=wait
            )
        host = origin = None
        size = len(scope["raw_path"]) + len(scope["query_string"])
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"host":
                host = value.decode("latin-1").lower()
            elif name == b"origin":
                origin = value.decode("latin-1").lower()
        if size > HEADER_BYTES:
            raise problems.HttpProblem("headers-too-large", "the headers are too large", "Send fewer headers.")
        if host is None or not self._is_ours(host):
            # Otherwise a page of another site could point its own name at this address and read what is here.
            raise problems.HttpProblem(
                "misdirected",
                f"{host or 'no host'} is not a name of this coordinator",
                "Use one of its URLs, or start it with --url https://NAME:PORT for that name too.",
            )
        if origin is not None and origin != f"https://{host}":
            raise Problem("forbidden", f"a page of {origin} may not call this coordinator", "Call it from a program.")

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        if not name:
            return False
        if name == "localhost" or name in self._hosts():
            return True
        try:
            ip_address(name)
        except ValueError:
            return f"*.{name.partition('.')[2]}" in self._hosts()
        return True  # nobody can point an address elsewhere


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._deadline: float | None = None
        self._is_read = not any(name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"])
        self._gone = False
        self.status = 0

    async def receive(self) -> Message:
        """The next part of the body. Raises TimeoutError when it takes too long in all, Problem when the client has
        gone.
        """
        if self._deadline is None:
            self._deadline = self._loop.time() + self._limits.body_s
        async with asyncio.timeout_at(self._deadline):
            message = await self._receive()
        if message["type"] == "http.disconnect":
            self._is_read = self._gone = True
            raise _GONE
        if not message.get("more_body", False):
            self._is_read = True
        return message

    async def send(self, message: Message) -> None:
        if self._gone:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), *_HEADERS]
            message = {**message, "headers": headers if self._is_read else [*headers, (b"connection", b"close")]}
        elif not self._is_read and not message.get("more_body", False):
            # A client that is still sending sees the answer only if what it sends is taken off the wire.
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, problem: Problem) -> None:
        """Answer with ``problem``; nothing, when an answer has begun."""
        if self.status:
            return
        body = problems.body_of(problem)
        status = problems.status_of(problem)
        await self.send(
            {"type": "http.response.start", "status": status, "headers": problems.headers_of(problem, body)}
        )
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        left = UNAUTHENTICATED_BODY_BYTES
        try:
            async with asyncio.timeout(self._limits.linger_s):
                while left > 0 and not self._is_read:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self._is_read = message["type"] == "http.disconnect" or not message.get("more_body", False)
        except TimeoutError:
            pass


def place_of(scope: Scope) -> Place:
    place = scope["state"][PLACE]
    assert isinstance(place, Place)  # noqa: S101 - put there by the server, never by a client
    return place


LATE: Final = problems.HttpProblem(
    "timeout", "the body did not arrive in time", "Send it faster, or in several requests."
)
_GONE: Final = problems.HttpProblem("malformed", "the client has gone")
INTERNAL: Final = problems.HttpProblem("internal", "", "Please report it with the coordinator's log.")
