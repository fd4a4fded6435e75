"""``/metrics`` in Prometheus' text form and ``/healthz``, on a small HTTP port inside the relay's loop."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable, Mapping
from typing import Final

from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress

_CONNECTIONS_MAX: Final = 16
_REQUEST_BYTES_MAX: Final = 4096
_PATIENCE_S: Final = 5.0
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

HELP: Final = {
    "allocations": ("gauge", "Allocations there are."),
    "users": ("gauge", "Users that have one."),
    "streams": ("gauge", "Connections by TCP and TLS."),
    "relayed_bytes": ("counter", "Bytes of data moved, without headers of TURN, by direction."),
    "relayed_datagrams": ("counter", "Datagrams moved, by direction."),
    "events": ("counter", "What else happened, by kind."),
    "draining": ("gauge", "1 while the relay lets nobody in because it is about to stop."),
}


def render(gauges: Mapping[str, float], counters: Mapping[str, int]) -> str:
    """The page. Counters that end in ``_bytes`` and ``_datagrams`` are directions; all others are events."""
    rows: dict[str, list[str]] = {name: [] for name in HELP}
    for name, value in gauges.items():
        rows[name].append(f"warren_relay_{name} {value:g}")
    for name, count in sorted(counters.items()):
        direction, _, unit = name.rpartition("_")
        if unit in {"bytes", "datagrams"} and direction != "send_refused":
            rows[f"relayed_{unit}"].append(f'warren_relay_relayed_{unit}_total{{direction="{direction}"}} {count}')
        else:
            rows["events"].append(f'warren_relay_events_total{{kind="{name}"}} {count}')
    lines = []
    for name, (kind, text) in HELP.items():
        full = f"warren_relay_{name}" + ("_total" if kind == "counter" else "")
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", *rows[name]]
    return "\n".join(lines) + "\n"


class MetricsDoor:
    """The port. ``page`` makes the metrics; ``healthy`` tells what /healthz says."""

    def __init__(
        self, place: TransportAddress, poller: select.epoll, page: Callable[[], str], healthy: Callable[[], bool]
    ) -> None:
        """Raises OperationFailed when the port cannot be had."""
        self._poller = poller
        self._page = page
        self._healthy = healthy
        self._open: dict[int, tuple[socket.socket, bytearray, float]] = {}
        family = socket.AF_INET6 if place.ip.version == 6 else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((str(place.ip), place.port))
            self._listener.listen(_CONNECTIONS_MAX)
        except OSError as error:
            self._listener.close()
            raise OperationFailed(
                f"the metrics port {place} cannot be had: {error.strerror}; see who has it with `ss -tlpn`"
            ) from None
        poller.register(self._listener.fileno(), select.EPOLLIN)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def owns(self, fd: int) -> bool:
        return fd == self._listener.fileno() or fd in self._open

    def handle(self, fd: int, now: float) -> None:
        if fd == self._listener.fileno():
            self._accept(now)
            return
        sock, request, _ = self._open[fd]
        try:
            data = sock.recv(_REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        request += data
        complete = b"\r\n\r\n" in request
        if complete:
            with contextlib.suppress(OSError):  # a page fits the socket's buffer; who went away wants no answer
                sock.send(self._answer(bytes(request)))
        if complete or not data or len(request) > _REQUEST_BYTES_MAX:
            self._close(fd)

    def _accept(self, now: float) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            for fd in [fd for fd, (_, _, since) in self._open.items() if now - since > _PATIENCE_S]:
                self._close(fd)
            if len(self._open) >= _CONNECTIONS_MAX:
                sock.close()
                return
            self._open[sock.fileno()] = (sock, bytearray(), now)
            self._poller.register(sock.fileno(), select.EPOLLIN)

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", "only GET\n")
        if path == b"/metrics":
            return _response("200 OK", self._page())
        if path == b"/healthz":
            return (
                _response("200 OK", "ok\n") if self._healthy() else _response("503 Service Unavailable", "draining\n")
            )
        return _response("404 Not Found", "there are /metrics and /healthz\n")

    def _close(self, fd: int) -> None:
        sock, _, _ = self._open.pop(fd)
        self._poller.unregister(fd)
        sock.close()

    def close(self) -> None:
        for fd in list(self._open):
            self._close(fd)
        self._poller.unregister(self._listener.fileno())
        self._listener.close()


def _response(status: str, body: str) -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return head.encode() + data
