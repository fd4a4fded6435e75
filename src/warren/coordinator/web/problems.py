"""Refusals as HTTP says them: RFC 9457 ``application/problem+json``, whoever refused (service, framework, protocol)."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

import msgspec
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from warren.coordinator.problems import Problem
from warren.proto.control import desired_state

MEDIA_TYPE: Final = b"application/problem+json"

HTTP_KINDS: Final = MappingProxyType(
    {
        "malformed": (400, "The request is malformed"),
        "method-not-allowed": (405, "This cannot be done here"),
        "timeout": (408, "The request took too long to arrive"),
        "too-large": (413, "The request is too large"),
        "unsupported-media-type": (415, "The body has the wrong form"),
        "misdirected": (421, "The request is for another host"),
        "invalid": (422, "The request asks for something that cannot be"),
        "upgrade-required": (426, "This speaks WebSocket only"),
        "headers-too-large": (431, "The request's headers are too large"),
        "internal": (500, "A bug in the coordinator"),
    }
)
"""What only HTTP can get wrong, and what it has a finer status for: kind → status and title."""

PATHS: Final = "GET /v1/openapi.json lists them."


class HttpProblem(Problem):
    """A request that is refused before it means anything."""

    def __init__(self, kind: str, detail: str = "", remedy: str = "", *, allow: str = "") -> None:
        """Raises KeyError for a kind that is not in :data:`HTTP_KINDS`. ``allow``: the methods that are (RFC 9110
        §10.2.1).
        """
        super().__init__("invalid", detail, remedy)
        self.kind = kind
        self.status, self.title = HTTP_KINDS[kind]
        self.allow = allow


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was refused, and what to do (RFC 9457)."""

    type: str
    """``urn:warren:problem:KIND``; for programs."""
    title: str
    status: int
    detail: str
    remedy: str
    """What to do about it; empty when nothing helps."""
    problems: tuple[desired_state.Problem, ...] = ()
    """All that is wrong with the body, place by place."""


def status_of(problem: Problem) -> int:
    status, _ = HTTP_KINDS.get(problem.kind, (problem.status, ""))
    return status


def body_of(problem: Problem) -> bytes:
    return msgspec.json.encode(
        ProblemDetails(
            type=problem.type,
            title=problem.title,
            status=status_of(problem),
            detail=problem.detail,
            remedy=problem.remedy,
            problems=problem.problems,
        )
    )


def headers_of(problem: Problem, body: bytes) -> list[tuple[bytes, bytes]]:
    """Names in lower case, as ASGI wants them."""
    headers = [(b"content-type", MEDIA_TYPE), (b"content-length", b"%d" % len(body))]
    status = status_of(problem)
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(problem.retry_after_s))))
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="warren"'))  # RFC 6750 §3
    if isinstance(problem, HttpProblem) and problem.allow:
        headers.append((b"allow", problem.allow.encode("ascii")))
    return headers


def from_framework(error: HTTPException, path: str) -> Problem:
    """What the framework refused, in our words."""
    if isinstance(error, MethodNotAllowedException):
        given = {name.lower(): value for name, value in (error.headers or {}).items()}.get("allow", "")
        allow = ", ".join(sorted(set(given.split(", ")) - {"OPTIONS"}))
        return HttpProblem("method-not-allowed", f"{path} does not take this method", f"Use {allow}.", allow=allow)
    if isinstance(error, NotFoundException):
        return Problem("not-found", f"{path} is not a path of this API", PATHS)
    if isinstance(error, ValidationException):
        if error.extra == _NO_BODY:
            return HttpProblem("malformed", "the body is empty", "Send one JSON object.")
        wrong = error.extra if isinstance(error.extra, list) else []
        return invalid(
            tuple(
                desired_state.Problem(where=str(one.get("key", "")), what=str(one.get("message", "")))
                for one in wrong
                if isinstance(one, dict)
            )
        )
    if error.status_code == 413:
        return HttpProblem("too-large", "the body is larger than any request needs", "Send less.")
    return HttpProblem("malformed", error.detail, "GET /v1/openapi.json tells what is expected.")


_NO_BODY: Final = [{"message": "'data'", "key": "data", "source": "body"}]


def invalid(problems: tuple[desired_state.Problem, ...]) -> Problem:
    """A request whose parts are not what they should be."""
    detail = "; ".join(": ".join(filter(None, (one.where, one.what))) for one in problems[:3])
    problem = HttpProblem("invalid", detail, "Correct it; GET /v1/openapi.json tells what is expected.")
    problem.problems = problems
    return problem
