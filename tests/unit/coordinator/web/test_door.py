from __future__ import annotations

import asyncio
from typing import Any

import pytest

from warren.coordinator.limits import UNAUTHENTICATED_BODY_BYTES, Admission, Limits
from warren.coordinator.problems import Problem
from warren.coordinator.web.door import PLACE, Door
from warren.coordinator.web.metrics import Metrics


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    raise Problem("not-found")


async def never(scope: Any, receive: Any, send: Any) -> None:
    pytest.fail("this is no WebSocket")


async def exchange(parts: list[bytes], **limits: Any) -> list[str]:
    """What happens in which order when a request with a body of ``parts`` is refused unread; it never ends."""
    chosen = Limits(**limits)
    place = Admission(chosen).enter("192.0.2.1")
    door = Door(refuse, never, hosts=frozenset, limits=chosen, metrics=Metrics())
    happened = []

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()
        happened.append("receive")
        return {"type": "http.request", "body": parts.pop(0), "more_body": True}

    async def send(message: Any) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        happened.append("end" if last else message["type"])
        if message["type"] == "http.response.start":
            assert (b"connection", b"close") in message["headers"]

    headers = [(b"host", b"127.0.0.1"), (b"transfer-encoding", b"chunked")]
    scope = {"type": "http", "method": "POST", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": headers}
    await door({**scope, "state": {PLACE: place}}, receive, send)
    return happened


def test_what_a_refused_client_still_sends_is_taken_off_the_wire_before_the_end() -> None:
    answer = ["http.response.start", "http.response.body"]
    assert asyncio.run(exchange([b"x"] * 3, linger_s=0.05)) == [*answer, "receive", "receive", "receive", "end"]


def test_but_not_without_end() -> None:
    part = bytes(UNAUTHENTICATED_BODY_BYTES // 2)
    assert asyncio.run(exchange([part] * 50, linger_s=60)).count("receive") == 2
