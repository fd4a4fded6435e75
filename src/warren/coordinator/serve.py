"""The sockets: listens, admits, shakes hands in TLS, and hands connections to the web application.

uvicorn's server gives the protocols and the orderly end; accepting is done here, so that a connection has its place
(:mod:`warren.coordinator.limits`) before anything is allocated for it, and keeps the certificate it began with.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from asyncio import sslproto
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import uvicorn

from warren import log
from warren.coordinator.limits import HEADER_BYTES, Admission, Limits, Place
from warren.coordinator.tls import Served
from warren.coordinator.web.door import CERTIFICATE, PLACE
from warren.coordinator.web.http_connection import HttpConnection
from warren.coordinator.web.metrics import Metrics
from warren.coordinator.web.node_connection import NodeConnection
from warren.errors import OperationFailed, UsageError
from warren.model.ip import join_host_port
from warren.proto.control.messages import NODE_MESSAGE_BYTES_MAX

_log = log.get("coordinator.web")
BACKLOG: Final = 1024
OUT_OF_FILES_WAIT_S: Final = 0.2
TLS_READ_BYTES: Final = 16 << 10
"""asyncio keeps a buffer of that size for each TLS connection; its 256 KiB would be most of what a node costs."""
TICK_S: Final = 1.0
GRACE_S: Final = 5
"""How long answers may take that are under way when the coordinator is asked to stop."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


def parse_address(text: str) -> Address:
    """``ADDRESS:PORT``, ``[ADDRESS]:PORT``. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65_535:
        raise UsageError(f"{text} is no address to listen on; write it like 0.0.0.0:8443 or [::]:8443")
    return Address(host, int(port))


class NoSuchFamily(OperationFailed):
    """No IPv6, or no IPv4, on this machine at all."""


def listen(address: Address) -> list[socket.socket]:
    """Sockets that listen there, one for each address that a name stands for. Raises OperationFailed."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, where in dict.fromkeys(found):
            one = socket.socket(family, kind, protocol)
            sockets.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(where)
            one.listen(BACKLOG)
    except OSError as error:
        for one in sockets:
            one.close()
        refusal = NoSuchFamily if _is_of_family(address, error) else OperationFailed
        raise refusal(f"cannot listen on {address}: {_why(error)}") from None
    return sockets


def _is_of_family(address: Address, error: OSError) -> bool:
    """Whether it is not this address that is missing, but its whole family."""
    unspecified = address.host in {"::", "0.0.0.0"}  # noqa: S104 - compared, not bound
    return error.errno == errno.EAFNOSUPPORT or (error.errno == errno.EADDRNOTAVAIL and unspecified)


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program does already; stop it or choose another port with --listen"
        case errno.EACCES:
            return "ports below 1024 need privileges; choose another with --listen"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have that address; choose another with --listen"
        case _:
            return f"{error.strerror}; choose another address with --listen"


class Server(uvicorn.Server):
    """Serves until :meth:`stop`. The application's own tasks are its owner's."""

    def __init__(
        self,
        application: Any,
        sockets: list[socket.socket],
        *,
        certificate: Callable[[], Served],
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        """Takes the sockets over. ``certificate`` is asked for each connection."""
        super().__init__(
            uvicorn.Config(
                application,
                http=HttpConnection,
                ws=NodeConnection,
                ws_max_size=NODE_MESSAGE_BYTES_MAX,
                ws_ping_interval=limits.ping_s,
                ws_ping_timeout=limits.ping_s,
                ws_per_message_deflate=False,
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # nobody may say that a request comes from elsewhere
                server_header=False,
                timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # seconds, also parts of one
                timeout_graceful_shutdown=GRACE_S,
                h11_max_incomplete_event_size=HEADER_BYTES,
            )
        )
        self._sockets = sockets
        self._certificate = certificate
        self._limits = limits
        self._metrics = metrics
        self.admission = Admission(limits)
        self.accepting = asyncio.Event()
        """Set once connections are taken."""
        self._stopping = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        metrics.connections.set_function(lambda: self.admission.connections)
        _quiet_uvicorn()

    @property
    def addresses(self) -> list[Address]:
        """Where it listens; the port that was chosen when 0 was asked for."""
        return [Address(*one.getsockname()[:2]) for one in self._sockets]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002 - uvicorn's signature
        sslproto.SSLProtocol.max_size = TLS_READ_BYTES
        loop = asyncio.get_running_loop()
        self.servers = [
            _Listener(loop.create_task(self._accept(one)), one)  # type: ignore[misc] # of a Server uvicorn uses only these
            for one in self._sockets
        ]
        self.started = True
        self.accepting.set()

    def stop(self) -> None:
        """End in order; asked a second time, at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._stopping.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # which also refreshes the Date header
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._stopping.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals are the owner's business

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    # What waits in the backlog stays there; those who are connected go on.
                    self._metrics.connections_refused.inc()
                    await asyncio.sleep(OUT_OF_FILES_WAIT_S)
                continue
            place = self.admission.enter(address[0])
            if place is None:
                self._metrics.connections_refused.inc()
                connection.close()
                continue
            task = loop.create_task(self._open(connection, place))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket, place: Place) -> None:
        served = self._certificate()
        protocol = partial(
            HttpConnection,
            self.config,
            self.server_state,
            {PLACE: place, CERTIFICATE: served},
            place=place,
            limits=self._limits,
        )
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                protocol,
                connection,
                ssl=served.context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.linger_s,
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self._metrics.tls_failures.inc()
            _log.debug("no TLS with %s: %s", place.source, error)
            place.leave()
        except BaseException:
            place.leave()
            raise

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        await super().shutdown(sockets)


class _Listener:
    """What uvicorn wants to close."""

    def __init__(self, task: asyncio.Task[None], listening: socket.socket) -> None:
        self._task = task
        self._socket = listening

    def close(self) -> None:
        self._task.cancel()
        self._socket.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)


class _ToWarrensLog(logging.Handler):
    """uvicorn's own words: what it calls an error is a bug; everything else is counted, or said by the door."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("Cancel "):
            return  # answers that were still under way when the grace of a stop ended
        error = record.exc_info[1] if record.exc_info else None
        _log.error("%s%s", record.getMessage().strip(), f": {type(error).__name__}: {error}" if error else "")


def _quiet_uvicorn() -> None:
    logger = logging.getLogger("uvicorn")
    logger.handlers[:] = [_ToWarrensLog(logging.ERROR)]
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.NOTSET)
