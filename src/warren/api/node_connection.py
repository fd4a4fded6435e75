"""One WebSocket connection from a node to a coordinator that has proved to be the right one.

Trust is established once per coordinator and kept: a connection then goes straight to the pinned certificate. When
another certificate answers (renewed, or another replica's behind the same address) the coordinator proves anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, ProxyError, WebSocketException

from warren.api.trust import NO_SOCKS, check_url, establish_trust, no_coordinator, pinned_context, why_not
from warren.errors import OperationFailed, Unreachable
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator
from warren.proto.control import messages

OPEN_WITHIN_S: Final = 10.0
PING_EVERY_S: Final = 20.0
PING_ANSWER_WITHIN_S: Final = 20.0
CLOSE_WITHIN_S: Final = 2.0
MESSAGES_QUEUED_MAX: Final = 4
"""Of up to MESSAGE_BYTES_MAX; then the coordinator has to wait."""
CERTIFICATES_MAX: Final = 16
"""Known of one coordinator: one of each replica, and of each the one before."""
_CERTIFICATES_TRIED: Final = 4
"""Replicas behind one address that answer in turn with certificates not seen before."""

NORMAL_CLOSURE: Final = 1000  # RFC 6455 §7.4.1


class Connection:
    """An open connection; single owner, who ends it with :func:`close`."""

    def __init__(self, websocket: ClientConnection, url: str, certificate_sha256: bytes) -> None:
        self.url = url
        self.certificate_sha256 = certificate_sha256
        self.why_lost = ""
        """Empty while it lives."""
        self.ended_well = False
        """The coordinator has closed it because everything was said."""
        self._websocket = websocket
        self._receiving: asyncio.Task[bytes | str] | None = None

    async def receive(self, wake: asyncio.Event, timeout_s: float | None) -> bytes | None:
        """The next message. None when ``wake`` was set or the time was over before, or the connection is lost."""
        receiving = self._receiving = self._receiving or asyncio.ensure_future(self._websocket.recv())
        waking = asyncio.ensure_future(wake.wait())
        try:
            await asyncio.wait({receiving, waking}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waking.cancel()
        if not receiving.done():
            return None
        self._receiving = None
        try:
            message = receiving.result()
        except ConnectionClosed as error:
            self._lose(error)
            return None
        if isinstance(message, bytes):
            return message
        self.why_lost = "the coordinator sent text where only bytes are to be"
        return None

    async def send(self, message: bytes) -> None:
        """Returns also when the connection is lost."""
        try:
            await self._websocket.send(message)
        except ConnectionClosed as error:
            self._lose(error)

    async def close(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            await asyncio.gather(self._receiving, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._websocket.close()

    def _lose(self, error: ConnectionClosed) -> None:
        received = error.rcvd
        if received is None:
            self.why_lost = "the connection to the coordinator was lost"
            return
        self.ended_well = received.code == NORMAL_CLOSURE
        said = f": {received.reason}" if received.reason else ""
        self.why_lost = f"the coordinator closed the connection ({received.code}{said})"


async def close(connection: Connection) -> None:
    await connection.close()


class Doors:
    """Opens connections, and remembers which certificates the coordinators have shown to be theirs."""

    def __init__(self, wall_clock: Callable[[], float], proxy: str | None = None) -> None:
        """``proxy``: the URL of an HTTP proxy (CONNECT, RFC 9110 §9.3.6); None: as the environment says."""
        self.wait_asked_s = 0.0
        """The longest wait that a coordinator asked for since this was last set to 0 (Retry-After)."""
        self._wall_clock = wall_clock
        self._proxy = proxy
        self._certificates: dict[bytes, dict[bytes, bytes]] = {}  # identity key → SHA-256 → DER

    def opener(self, coordinator: Coordinator) -> Callable[[], Awaitable[Connection]]:
        return partial(self.open, coordinator)

    async def open(self, coordinator: Coordinator) -> Connection:
        """Raises Unreachable and OperationFailed as :func:`~warren.api.trust.establish_trust` does."""
        check_url(coordinator.url)
        known = self._certificates.setdefault(coordinator.key, {})
        for _ in range(_CERTIFICATES_TRIED):
            if known:
                connection = await self._connect(coordinator.url, known)
                if connection is not None:
                    return connection
            trusted = await establish_trust(
                [coordinator.url], VerifyKey(coordinator.key), wall_clock=self._wall_clock, proxy=self._proxy
            )
            known[trusted.certificate_sha256] = trusted.certificate
            while len(known) > CERTIFICATES_MAX:
                del known[next(iter(known))]
        raise Unreachable(f"{coordinator.url} shows another certificate at every connection; connect to one replica")

    async def _connect(self, url: str, known: dict[bytes, bytes]) -> Connection | None:
        """None when the certificate is not a known one."""
        try:
            websocket = await connect(
                "wss" + url.removeprefix("https").rstrip("/") + messages.PATH,
                ssl=pinned_context(known.values()),
                proxy=self._proxy or True,
                subprotocols=[messages.SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
                compression=None,
                user_agent_header=None,
                open_timeout=OPEN_WITHIN_S,
                ping_interval=PING_EVERY_S,
                ping_timeout=PING_ANSWER_WITHIN_S,
                close_timeout=CLOSE_WITHIN_S,
                max_size=messages.MESSAGE_BYTES_MAX,
                max_queue=MESSAGES_QUEUED_MAX,
                happy_eyeballs_delay=_stagger_s(url),
            )
        except ssl.SSLCertVerificationError:
            return None
        except InvalidStatus as error:
            raise self._not_upgraded(url, error) from error
        except (ProxyError, InvalidProxy) as error:
            raise Unreachable(
                f"the HTTP proxy on the way to {url} does not let the connection through: {error}"
            ) from error
        except ImportError as error:  # websockets knows SOCKS proxies only with another library
            raise OperationFailed(NO_SOCKS) from error
        except WebSocketException as error:
            raise OperationFailed(no_coordinator(url, f"it does not take node connections ({error})")) from error
        except (OSError, EOFError) as error:
            raise why_not(url, error) from error
        tls = websocket.transport.get_extra_info("ssl_object")
        leaf = hashlib.sha256(tls.getpeercert(binary_form=True)).digest()
        if leaf not in known:  # issued by a certificate that is pinned: a proof would not hold for it
            await websocket.close()
            return None
        if websocket.subprotocol != messages.SUBPROTOCOL:
            await websocket.close()
            raise OperationFailed(no_coordinator(url, f"it does not speak {messages.SUBPROTOCOL}"))
        return Connection(websocket, url, leaf)

    def _not_upgraded(self, url: str, error: InvalidStatus) -> OperationFailed | Unreachable:
        response = error.response
        said = _sentence_of(response.body or b"") or f"HTTP status {response.status_code}"
        if response.status_code == 429 or response.status_code >= 500:
            asked = response.headers.get("Retry-After", "")
            if asked.isascii() and asked.isdigit():
                self.wait_asked_s = max(self.wait_asked_s, float(asked[:6]))
            return Unreachable(f"{url} does not take the connection now: {said}")
        return OperationFailed(no_coordinator(url, f"it does not take node connections ({said})"))


def _stagger_s(url: str) -> float | None:
    """Between attempts at the addresses of a name (RFC 8305 §5). With one address there is nothing to choose from, and
    asyncio would leave its socket open when it is cancelled just then.
    """
    try:
        ip_address((urlsplit(url).hostname or "").partition("%")[0])
    except ValueError:
        return 0.25
    return None


class _Problem(msgspec.Struct, frozen=True):
    title: str = ""
    detail: str = ""


def _sentence_of(body: bytes | bytearray) -> str:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.DecodeError, ValueError):
        return ""
    return ": ".join(part for part in (problem.title, problem.detail) if part)[:512]
