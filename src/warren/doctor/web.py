"""Looks at coordinators and relays by TCP: whether they answer, whether it is they, and what stands in between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import re
import ssl
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import msgspec

from warren.api.trust import establish_trust
from warren.doctor.observed import TcpSeen
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.identity.signing import VerifyKey
from warren.log import printable
from warren.model.ip import join_host_port
from warren.reach.bridge_connect import connect
from warren.reach.proxy import Proxy, proxy_from, proxy_from_environment

_HEAD_BYTES_MAX: Final = 8192
_CONNECT_WITHIN_S: Final = 5.0
_PORTAL_STATUS: Final = 511  # RFC 6585 §6


@dataclass(frozen=True, slots=True)
class CoordinatorTarget:
    """A coordinator, by the key that a ticket or NetworkSpec names."""

    name: str
    url: str
    key: VerifyKey


@dataclass(frozen=True, slots=True)
class TlsTarget:
    """A relay with TLS."""

    name: str
    host: str
    port: int
    certificate_sha256: bytes | None
    """None: one that certificate authorities vouch for."""


async def look_at_coordinator(target: CoordinatorTarget, proxy: str | None = None) -> TcpSeen:
    """Whether it answers and proves itself; through ``proxy`` (a URL), else that of the environment, if any."""
    try:
        trusted = await establish_trust([target.url], target.key, proxy=proxy)
    except Unreachable as error:
        return await _with_portal(_coordinator(target, "silent", str(error)))
    except OperationFailed as error:
        return await _with_portal(_coordinator(target, "wrong", str(error)))
    return _coordinator(target, "good", clock_offset_s=round(trusted.offset_s, 3))


def _coordinator(
    target: CoordinatorTarget,
    outcome: Literal["good", "silent", "wrong"],
    detail: str = "",
    clock_offset_s: float | None = None,
) -> TcpSeen:
    return TcpSeen(
        role="coordinator",
        name=target.name,
        place=target.url,
        outcome=outcome,
        detail=detail,
        clock_offset_s=clock_offset_s,
    )


async def look_at_tls(target: TlsTarget, proxy: str | None = None) -> TcpSeen:
    """Whether a relay answers with its own certificate; proxies as above."""
    place = join_host_port(target.host, target.port)
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            leaf = await _leaf_of(target, _proxy_for(target.host, proxy))
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "no TLS"
        return _relay(target, place, "wrong", f"who answers at {place} does not prove to be the relay ({reason})")
    except TimeoutError:
        return _relay(target, place, "silent", f"{place} does not answer")
    except WarrenError as error:
        return _relay(target, place, "silent", str(error))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or "its name is not known"
        return _relay(target, place, "silent", f"{place} cannot be reached ({why})")
    pin = target.certificate_sha256
    if pin is None or hmac.compare_digest(hashlib.sha256(leaf).digest(), pin):
        return _relay(target, place, "good")
    detail = f"the certificate that arrives from {place} is not the relay's but one of {_subject(leaf)}"
    return _relay(target, place, "wrong", detail)


def _proxy_for(host: str, proxy: str | None) -> Proxy | None:
    found = proxy_from_environment(os.environ) if proxy is None else proxy_from(proxy)
    return found if found is not None and found.applies_to(host) else None


async def _leaf_of(target: TlsTarget, proxy: Proxy | None) -> bytes:
    """The certificate (DER) that answers. Raises OSError, WarrenError; with a pin it is not trusted yet."""
    context = ssl.create_default_context()
    if target.certificate_sha256 is not None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # its hash is compared by the caller
    if proxy is None:
        opening = asyncio.open_connection(target.host, target.port, ssl=context, server_hostname=target.host)
    else:
        through = await connect(target.host, target.port, tls=None, proxy=proxy)
        opening = asyncio.open_connection(sock=through, ssl=context, server_hostname=target.host)
    _, writer = await opening
    try:
        return bytes(writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b"")
    finally:
        writer.transport.abort()


def _relay(target: TlsTarget, place: str, outcome: Literal["good", "silent", "wrong"], detail: str = "") -> TcpSeen:
    return TcpSeen(role="relay", name=target.name, place=place, outcome=outcome, detail=detail)


def _subject(certificate: bytes) -> str:
    """Whose certificate it is and who issued it, for people."""
    from cryptography import x509

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        subject, issuer = parsed.subject.rfc4514_string(), parsed.issuer.rfc4514_string()
    except ValueError:
        return "nobody that can be read"
    return printable(f"{subject or 'nobody'}, issued by {issuer or 'nobody'}")[:200]


async def _with_portal(seen: TcpSeen) -> TcpSeen:
    """``seen`` with the captive portal that may be the reason."""
    host = urlsplit(seen.place).hostname or ""
    try:
        async with asyncio.timeout(_CONNECT_WITHIN_S):
            portal = await portal_at(host)
    except (OSError, TimeoutError, ValueError):
        portal = ""
    return msgspec.structs.replace(seen, portal=portal)


async def portal_at(host: str, port: int = 80) -> str:
    """Where who answers plain HTTP for ``host`` sends browsers, when that is elsewhere (RFC 8952 §1); "sign in" when it
    says by its status that one has to. Empty: no portal. Raises OSError when nobody answers.
    """
    reader, writer = await asyncio.open_connection(host, port)
    try:
        shown = f"[{host}]" if ":" in host else host
        writer.write(f"GET / HTTP/1.1\r\nHost: {shown}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES_MAX:
            more = await reader.read(_HEAD_BYTES_MAX)
            if not more:
                break
            head += more
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    return portal_in_untrusted(head, host)


def portal_in_untrusted(head: bytes, host: str) -> str:
    """The same, of the head of an answer."""
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").splitlines()
    words = lines[0].split() if lines else []
    if len(words) < 2 or not words[0].startswith("HTTP/") or not re.fullmatch("[0-9]{3}", words[1]):
        return ""
    status = int(words[1])
    if status == _PORTAL_STATUS:
        return "sign in"
    location = next((line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("location:")), "")
    try:
        elsewhere = urlsplit(location).hostname
    except ValueError:
        return ""
    if status in range(300, 400) and elsewhere and elsewhere.removeprefix("www.") != host.removeprefix("www."):
        return printable(location)[:200]
    return ""
