"""One HTTP/1.1 connection: uvicorn's protocol on h11, with deadlines, a ceiling and problems instead of plain text.

::

    connected, or the first byte of the next request ── header_s ──▶ 408, the end
    answered ── idle_s without a byte ──▶ the end                    (uvicorn's own timer)
    the client leaves its answer unread ── write_s ──▶ the end

The body's deadline belongs to the door (:mod:`warren.coordinator.web.door`), which reads it.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from warren.coordinator.limits import WRITE_BUFFER_BYTES, Limits, Place
from warren.coordinator.problems import Problem
from warren.coordinator.web import problems
from warren.coordinator.web.node_connection import NodeConnection


class HttpConnection(H11Protocol):
    """Owns its :class:`Place` until the connection is lost, or until a WebSocket takes both over."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        place: Place,
        limits: Limits,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._place = place
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self.ws_protocol_class = partial(NodeConnection, place=place, limits=limits)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        self._place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            self.transport.abort()
            return
        super().data_received(data)

    def handle_events(self) -> None:
        super().handle_events()
        if self.transport.get_protocol() is not self:
            return
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()
        elif self.conn.trailing_data[0]:
            self._expect_headers()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_timers()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - what h11 said is in the error
        error = sys.exc_info()[1]
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            self._refuse(problems.HttpProblem("headers-too-large", "the headers are too large", "Send fewer headers."))
        else:
            self._refuse(problems.HttpProblem("malformed", f"this is not HTTP/1.1: {error}", "Speak HTTP/1.1."))

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # Ours

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            self._header_timer = self.loop.call_later(self._limits.header_s, self._headers_are_late)

    def _headers_are_late(self) -> None:
        self._header_timer = None
        late = f"the headers were not complete within {self._limits.header_s:g} s"
        self._refuse(problems.HttpProblem("timeout", late, "Send the whole request at once."))

    def _refuse(self, problem: Problem) -> None:
        """Answer, unless an answer has begun already, and close."""
        self._stop_header_timer()
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True  # the application's answer has nowhere to go any more
            cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = problems.body_of(problem)
            headers = [*self.server_state.default_headers, *problems.headers_of(problem, body)]
            status = problems.status_of(problem)
            answer = h11.Response(status_code=status, headers=[*headers, (b"connection", b"close")])
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_timers(self) -> None:
        self._stop_header_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
