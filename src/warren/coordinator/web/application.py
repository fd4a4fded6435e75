"""The web application, put together: the door, the REST API behind it, and the nodes' WebSocket."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException

from warren import log
from warren.coordinator.limits import BODY_BYTES, UNAUTHENTICATED_BODY_BYTES, Limits
from warren.coordinator.problems import Problem
from warren.coordinator.web import openapi, problems, public_routes, routes
from warren.coordinator.web.auth import Authenticated, Gate
from warren.coordinator.web.body import StrictRequest
from warren.coordinator.web.door import INTERNAL, LATE, App, Door
from warren.coordinator.web.metrics import Metrics

_log = log.get("coordinator.web")


def build(
    service: Any,
    nodes: App,
    gate: Gate,
    *,
    hosts: Callable[[], frozenset[str]],
    limits: Limits,
    metrics: Metrics,
) -> Door:
    """The ASGI application. ``nodes`` takes the WebSockets, ``hosts`` tells this coordinator's DNS names."""
    return Door(_rest(service, gate, metrics), nodes, hosts=hosts, limits=limits, metrics=metrics)


def _rest(service: Any, gate: Gate, metrics: Metrics) -> App:
    document: Final = _description()

    @get(openapi.PATH, sync_to_thread=False)
    def read_description() -> Response[bytes]:
        return Response(document, media_type="application/json")

    def authenticated(app: Any) -> Any:  # a function, because the framework copies everything else
        return Authenticated(app, gate)

    public = Router(
        "/",
        route_handlers=[*public_routes.PUBLIC, read_description],
        request_max_body_size=UNAUTHENTICATED_BODY_BYTES,
    )
    guarded = Router(
        "/",
        route_handlers=list(routes.GUARDED),
        middleware=[authenticated],
        dependencies={"actor": Provide(routes.provide_actor, sync_to_thread=False)},
        request_max_body_size=BODY_BYTES,
    )
    return Litestar(  # type: ignore[return-value] # the same protocol, spelt with the framework's own types
        [public, guarded],
        dependencies={
            "service": Provide(lambda: service, use_cache=True, sync_to_thread=False),
            "metrics": Provide(lambda: metrics, use_cache=True, sync_to_thread=False),
        },
        exception_handlers={Exception: _refuse},
        request_class=StrictRequest,
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


@cache
def _description() -> bytes:
    return msgspec.json.encode(openapi.describe(public_routes.PUBLIC, routes.GUARDED))


def _refuse(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    problem = _problem_of(request, error)
    body = problems.body_of(problem)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in problems.headers_of(problem, body)}
    media_type = headers.pop("content-type")
    return Response(body, status_code=problems.status_of(problem), headers=headers, media_type=media_type)


def _problem_of(request: Request[Any, Any, Any], error: Exception) -> Problem:
    method, path = request.scope["method"], request.scope["path"]
    if isinstance(error, Problem):
        return error
    if isinstance(error, TimeoutError):
        return LATE
    if isinstance(error, HTTPException) and error.status_code < 500:
        return problems.from_framework(error, path)
    _log.error("%s %s failed: %s: %s", method, path, type(error).__name__, error)
    return INTERNAL
