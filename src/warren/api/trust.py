"""Knowing a coordinator by its identity key, whatever its name, address and certificate are.

A client that pinned the key (by a ticket, an access string or a NetworkSpec) asks ``GET /v1/identity`` over a TLS
connection that it does not trust yet. The answer states, signed with the identity key, which certificate is the
coordinator's own. When that is the certificate of *this* connection, nobody stands in between, and from then on only
TLS contexts are used that accept exactly this certificate.

So DNS, certificate authorities and the local clock decide nothing: a wrong address or an intercepting proxy cannot
produce the statement, and the validity period of the certificate is not looked at (a host without a battery-backed
clock starts in 1970; the coordinator's clock is then known from the same answer).
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from warren import log
from warren.api.trust_race import first_of
from warren.errors import OperationFailed, Unreachable
from warren.identity.signing import VerifyKey
from warren.proto.control.messages import certificate_is_stated

if TYPE_CHECKING:
    import httpcore2
    import httpx2

IDENTITY_PATH: Final = "/v1/identity"
ANSWER_WITHIN_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 << 10
FAR_OFF_S: Final = 120.0
"""A difference of clocks worth a sentence: more than NTP ever leaves."""

NO_SOCKS: Final = (
    "a SOCKS proxy is set in the environment, and coordinators are reached by HTTP proxies only: set HTTPS_PROXY to "
    "one, or name the coordinator in NO_PROXY"
)

_NO_CHECK_TIME: Final = 0x200000  # X509_V_FLAG_NO_CHECK_TIME; the ssl module has no name for it
_SILENCE: Final = "is the coordinator running, and does every firewall on the way let its TCP port through?"
_HANDSHAKE_WORDS: Final = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE")


@dataclass(frozen=True, slots=True)
class Trusted:
    """A coordinator that has shown to be the one with the pinned key."""

    url: str
    key: VerifyKey
    context: ssl.SSLContext
    """For clients; accepts this certificate and no other."""
    certificate: bytes
    """DER."""
    statement: bytes
    offset_s: float
    """The coordinator's clock minus this host's; off by the time the answer took at most."""

    @property
    def certificate_sha256(self) -> bytes:
        return hashlib.sha256(self.certificate).digest()


class _Answer(msgspec.Struct, frozen=True):
    """What ``/v1/identity`` answers."""

    key: Annotated[str, Meta(pattern="^[a-z2-7]{52}$")]
    certificate_sha256: Annotated[str, Meta(pattern="^[0-9a-fA-F]{64}$")]
    statement: Annotated[str, Meta(pattern="^[0-9a-fA-F]{128}$")]
    time: Annotated[datetime, Meta(tz=True)]


async def establish_trust(
    urls: Iterable[str], key: VerifyKey, *, wall_clock: Callable[[], float] = time.time, proxy: str | None = None
) -> Trusted:
    """Find the coordinator with the identity ``key`` at any of ``urls``: the first that proves to be it counts.
    ``proxy``: the URL of an HTTP proxy; None: as HTTPS_PROXY and NO_PROXY say.

    Raises OperationFailed when somebody else answers (another coordinator, a proxy that opens TLS, no coordinator at
    all), Unreachable when nobody does; each with a sentence of its own.
    """
    return await first_of([partial(_ask, url, key, wall_clock, proxy) for url in urls])


def pinned_context(certificates: Iterable[bytes]) -> ssl.SSLContext:
    """A client's context that accepts the servers with one of these certificates (DER), by whatever name and address,
    whoever issued them and whatever the time is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags = ssl.VerifyFlags(ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for certificate in certificates:
        context.load_verify_locations(cadata=certificate)
    return context


def clock_sentence(offset_s: float) -> str:
    """What to tell about a clock that is ``offset_s`` behind the coordinator's; empty when it is about right."""
    if abs(offset_s) < FAR_OFF_S:
        return ""
    direction = "behind" if offset_s > 0 else "ahead of"
    return (
        f"this host's clock is {_duration(abs(offset_s))} {direction} the coordinator's: correct it (timedatectl "
        "set-ntp true); until then leases are judged by the coordinator's clock"
    )


def _duration(seconds: float) -> str:
    for size, name in ((365 * 86_400, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"


async def _ask(url: str, key: VerifyKey, wall_clock: Callable[[], float], proxy: str | None) -> Trusted:
    check_url(url)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            leaf, body, at_s = await _fetch(url, wall_clock, proxy)
    except TimeoutError:
        raise Unreachable(f"{url} does not answer within {ANSWER_WITHIN_S:.0f} s: {_SILENCE}") from None
    return _judge(url, key, leaf, body, at_s)


async def _fetch(url: str, wall_clock: Callable[[], float], proxy: str | None) -> tuple[bytes, bytes, float]:
    """The leaf certificate of a connection, and what was answered through it; nothing of it can be trusted yet."""
    import httpx2

    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # the answer is judged by its signature, see _judge
    streams: list[httpcore2.AsyncNetworkStream] = []

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        if event.endswith("connect_tcp.complete"):
            streams.append(info["return_value"])

    try:
        async with (
            httpx2.AsyncClient(verify=unverified, timeout=ANSWER_WITHIN_S, proxy=proxy) as client,
            client.stream("GET", url.rstrip("/") + IDENTITY_PATH, extensions={"trace": trace}) as response,
        ):
            at_s = wall_clock()
            leaf = _leaf_of(response)
            if response.status_code in {502, 503, 504}:
                raise Unreachable(f"{url} answers that the coordinator is not available now: try again later")
            if response.status_code != 200:
                raise OperationFailed(no_coordinator(url, f"it answers HTTP status {response.status_code}"))
            body = b""
            async for chunk in response.aiter_bytes(4096):
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise OperationFailed(no_coordinator(url, "its answer is too long"))
            return leaf, body, at_s
    except (httpx2.RequestError, httpx2.InvalidURL, OSError) as error:
        raise why_not(url, error) from error
    except ImportError as error:  # httpx2 knows SOCKS proxies only with another library
        raise OperationFailed(NO_SOCKS) from error
    finally:
        for stream in streams:  # httpcore2 leaves one open when it is cancelled during the TLS handshake
            await stream.aclose()


def _leaf_of(response: httpx2.Response) -> bytes:
    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
    leaf = tls.getpeercert(binary_form=True) if tls is not None else None
    if not leaf:
        raise OperationFailed("the connection to the coordinator shows no certificate")
    return bytes(leaf)


def _judge(url: str, key: VerifyKey, leaf: bytes, body: bytes, at_s: float) -> Trusted:
    """The one place where a coordinator becomes trusted. Raises OperationFailed."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
        stated, statement = binascii.unhexlify(answer.certificate_sha256), binascii.unhexlify(answer.statement)
        theirs = VerifyKey.from_text(answer.key)
        offset_s = answer.time.timestamp() - at_s
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise OperationFailed(no_coordinator(url, "its answer is not a coordinator's")) from error
    if certificate_is_stated(key, hashlib.sha256(leaf).digest(), statement):
        return Trusted(url, key, pinned_context([leaf]), leaf, statement, offset_s)
    if theirs != key:
        raise OperationFailed(
            f"{url} is another coordinator: its identity key is {theirs.short}…, the pinned one is {key.short}…; check "
            "the address, or ask for a new ticket or access string"
        )
    if certificate_is_stated(key, stated, statement):
        raise OperationFailed(
            f"something between this host and {url} opens the encrypted connection (an intercepting proxy): the "
            "certificate that arrives here is not the coordinator's; connect without it"
        )
    raise OperationFailed(
        f"{url} does not prove that it is the coordinator {key.short}…: its signature does not hold; check the address"
    )


def check_url(url: str) -> None:
    """Raises OperationFailed for what cannot be a coordinator's address, before any library stumbles over it."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        usable = parts.scheme == "https" and url.isprintable() and bool(host)
        if ":" in host:
            IPv6Address(host.partition("%")[0])
        else:
            host.encode("idna")
    except ValueError:
        usable = False
    if not usable:
        raise OperationFailed(f"{log.printable(url)} is no coordinator's address: it is written https://HOST:PORT")


def no_coordinator(url: str, because: str) -> str:
    """The sentence for somebody else at a coordinator's address."""
    return f"{url} is not a Warren coordinator: {because}; check the address and port"


def why_not(url: str, error: Exception) -> OperationFailed | Unreachable:
    """The sentence for a connection that did not come about: OperationFailed when somebody else answered."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None and any(word in str(tls).upper() for word in _HANDSHAKE_WORDS):
        return OperationFailed(no_coordinator(url, "it answers without TLS, in plain HTTP or another protocol"))
    if tls is not None:
        return OperationFailed(f"the TLS handshake with {url} failed: {tls.reason or tls}; check the address and port")
    reasons = [_reason(cause) for cause in causes if isinstance(cause, OSError)]
    reason = next((one for one in reversed(reasons) if one), str(error) or type(error).__name__)
    return Unreachable(f"{url} cannot be reached ({reason}): {_SILENCE}")


def _reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or ""


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    seen: set[int] = set()
    pending = [error]
    while pending:
        one = pending.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            pending += one.exceptions
