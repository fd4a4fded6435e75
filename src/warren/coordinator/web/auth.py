"""Who asks: from the bearer token of a request to an Actor, by one function."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, Protocol

from warren import log
from warren.coordinator.limits import Limits, Rates
from warren.coordinator.problems import Problem
from warren.coordinator.web.door import App, Receive, Scope, Send, place_of
from warren.coordinator.web.metrics import Metrics
from warren.proto.control.administration import Actor

ACTOR: Final = "warren.actor"
"""Key of an ASGI scope's ``state``."""
TOKEN_CHARACTERS_MAX: Final = 256
ALARM_FAILURES: Final = 100
ALARM_WINDOW_S: Final = 60.0


class Verifier(Protocol):
    """The part of the service that knows tokens."""

    async def actor(self, secret: str) -> Actor: ...


class Gate:
    """Counts failed proofs, of administrators and of nodes, by source and altogether, and what each member does."""

    def __init__(self, service: Verifier, limits: Limits, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._failures = Rates(limits.failures, time.monotonic)
        self._requests = Rates(limits.requests, time.monotonic)
        self._sessions = Rates(limits.sessions, time.monotonic)
        self._records = Rates(limits.records, time.monotonic)
        self._alarm = _Alarm()

    async def actor(self, scope: Scope) -> Actor:
        """The actor that the request's token stands for: the only way to become one. Raises Problem ``unauthorised``
        or ``limit``.
        """
        place = place_of(scope)
        self.check(place.source)
        try:
            actor = await self._service.actor(_bearer(scope["headers"]))
        except Problem as problem:
            if problem.kind == "unauthorised":
                self.failed(place.source, "administrator")
            raise
        place.proven()
        wait = self._requests.take(actor.token)
        if wait:
            raise Problem("limit", "too many requests with this token", "Slow down.", retry_after_s=wait)
        return actor

    def check(self, source: str) -> None:
        """Raises Problem ``limit`` when proofs from ``source`` failed too often lately."""
        wait = self._failures.wait(source)
        if wait:
            raise Problem(
                "limit",
                "too many wrong tokens or tickets came from this address",
                "Wait, and check the token or ticket.",
                retry_after_s=wait,
            )

    def session(self, network: bytes, node: bytes) -> None:
        """A member comes in. Raises Problem ``limit`` when it does so all the time."""
        wait = self._sessions.take((network + node).hex())
        if wait:
            raise Problem("limit", "the node connects too often", _COPIED, retry_after_s=wait)

    def record(self, network: bytes, node: bytes) -> None:
        """A member publishes a record. Raises Problem ``limit`` when it does so all the time."""
        wait = self._records.take((network + node).hex())
        if wait:
            raise Problem("limit", "the node publishes too many records", _COPIED, retry_after_s=wait)

    def failed(self, source: str, who: str) -> None:
        """Count one failure of ``who``, an ``administrator`` or a ``node``."""
        self._failures.take(source)
        self._metrics.authentication_failures.labels(who).inc()
        self._alarm.count(source)


class Authenticated:
    """The middleware of every path that is not public."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"][ACTOR] = await self._gate.actor(scope)
        await self._app(scope, receive, send)


def actor_of(state: Any) -> Actor:
    actor = state[ACTOR]
    assert isinstance(actor, Actor)  # noqa: S101 - a path without the middleware is a bug
    return actor


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The token of an ``Authorization: Bearer`` header (RFC 6750 §2.1), of which there must be one."""
    given = [value for name, value in headers if name == b"authorization"]
    if len(given) != 1:
        raise Problem("unauthorised", "the request has no bearer token", _REMEDY)
    scheme, _, token = given[0].decode("latin-1").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token.isascii() or not 0 < len(token) <= TOKEN_CHARACTERS_MAX:
        raise Problem("unauthorised", "the Authorization header holds no bearer token", _REMEDY)
    return token


_COPIED: Final = "Wait; if this goes on, its key may have been copied: let it join anew."
_REMEDY: Final = "Send `Authorization: Bearer TOKEN`; `warren coordinator token create` makes one."


class _Alarm:
    """One line a minute when proofs fail everywhere, however many sources take part."""

    def __init__(self) -> None:
        self._log = log.get("coordinator.web")
        self._since = time.monotonic()
        self._failures = 0

    def count(self, source: str) -> None:
        now = time.monotonic()
        if now - self._since >= ALARM_WINDOW_S:
            self._since, self._failures = now, 0
        self._failures += 1
        if self._failures == 1:
            self._log.info("a wrong token or ticket from %s; more within the minute are only counted", source)
        elif self._failures == ALARM_FAILURES:
            self._log.warning(
                "%d wrong tokens or tickets within a minute, the last from %s: somebody may be guessing",
                ALARM_FAILURES,
                source,
            )
