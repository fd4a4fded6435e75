"""One WebSocket connection: uvicorn's protocol on websockets' sans-IO core, with ceilings and problems.

Pings every ``ping_s`` and the answer's deadline are uvicorn's own; its queue of received messages holds one, because
it stops reading until the application has taken it.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.transports import BaseTransport
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame
from websockets.http11 import Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from warren.coordinator.limits import WRITE_BUFFER_BYTES, Limits, Place
from warren.coordinator.web import problems

_FRAGMENTS_MAX: Final = 64
"""Of one message: 64 KiB in frames of 1 KiB. Empty ones would otherwise cost memory without end."""

_PIECE_BYTES: Final = 16 << 10


class NodeConnection(WebSocketsSansIOProtocol):
    """Takes the transport and the :class:`Place` of an HttpConnection over."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, place: Place, limits: Limits
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.conn = _Handshake(max_size=config.ws_max_size, logger=logging.getLogger("uvicorn.error"))
        self._place = place
        self._limits = limits
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(cast("BaseTransport", _InPieces(cast("asyncio.Transport", transport))))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_write_timer()
        self._place.leave()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # Each ping of theirs is a pong of ours, read or not.
        if self.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            self.transport.abort()
            return
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            refusal = self.conn.reject(HTTPStatus.BAD_REQUEST, str(self.conn.handshake_exc))
            self.transport.write(refusal.serialize())
            self.transport.close()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _FRAGMENTS_MAX:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    async def send(self, message: ASGISendEvent) -> None:
        await self.writable.wait()
        if self.close_sent and self.handshake_complete and self.initial_response is None:
            raise ClientDisconnected  # closed meanwhile by the peer, or for what it sent, which uvicorn takes for a bug
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # refused in good order, which uvicorn would log as a bug

    def shutdown(self) -> None:
        if self.conn.state is State.CLOSING:
            self.transport.close()  # a Close went out already, and may be sent only once (RFC 6455 §5.5.1)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._limits.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


class _InPieces:
    """A transport that is written to in pieces of a TLS record: OpenSSL's buffer keeps for ever the size that it once
    had, which would be that of the whole map in each of thousands of connections.
    """

    __slots__ = ("_transport",)

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            self._transport.write(data[start : start + _PIECE_BYTES])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Handshake(ServerProtocol):
    """Refuses with a problem where websockets has plain text."""

    def reject(self, status: HTTPStatus | int, text: str) -> Response:
        if status == HTTPStatus.UPGRADE_REQUIRED:
            problem = problems.HttpProblem("upgrade-required", "this is no WebSocket handshake", _REMEDY)
        elif status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = problems.HttpProblem("internal", "", "Please report it with the coordinator's log.")
        else:
            problem = problems.HttpProblem("malformed", text.strip(), _REMEDY)
        body = problems.body_of(problem)
        headers = Headers()
        for name, value in problems.headers_of(problem, body):
            headers[name.decode("latin-1")] = value.decode("latin-1")
        headers["Connection"] = "close"
        code = HTTPStatus(problems.status_of(problem))
        return Response(code, code.phrase, headers, body)


_REMEDY: Final = "Open a WebSocket as RFC 6455 §4.1 has it."
