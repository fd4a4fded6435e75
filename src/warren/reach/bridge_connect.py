"""The way to a relay's TCP or TLS port: happy eyeballs, a proxy in between, the certificate's proof.

What is refused on the way is told in one sentence; in particular who it is that opens TLS connections on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.model.ip import join_host_port
from warren.reach.proxy import Proxy, ask_to_connect

CONNECT_S: Final = 10.0
"""For everything: names, TCP, proxy, TLS."""
STAGGER_S: Final = 0.25  # RFC 8305 §5
ADDRESSES_MAX: Final = 8
NAME_CHARACTERS_MAX: Final = 150

_SILENCE: Final = "is it running, and does every firewall on the way let its TCP port through?"
_IPPROTO_TCP: Final = int(socket.IPPROTO_TCP)
_TCP_USER_TIMEOUT, _TCP_NOTSENT_LOWAT = 18, 25  # include/uapi/linux/tcp.h
_DEAD_AFTER_MS: Final = 10_000  # data that nobody acknowledges for so long: the connection is dead
_KEEPALIVE_IDLE_S, _KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 15, 3, 3
_NOT_SENT_BYTES_MAX: Final = 128 << 10  # more would only be delay: 100 ms at 10 Mbit/s


@dataclass(frozen=True, slots=True)
class TlsPin:
    """How the relay proves who it is: by the SHA-256 of its certificate (DER), or by one that public certificate
    authorities issued for ``hostname``. Exactly one of the two. ``extra_roots`` (PEM) are authorities to trust besides.
    """

    certificate_sha256: bytes | None = None
    hostname: str | None = None
    extra_roots: str | None = None

    def __post_init__(self) -> None:
        if (self.certificate_sha256 is None) == (self.hostname is None):
            raise ValueError("a relay is known by its certificate or by its name")


async def connect(host: str, port: int, *, tls: TlsPin | None, proxy: Proxy | None) -> socket.socket | ssl.SSLSocket:
    """A connection to ``host``, non-blocking; through ``proxy`` if it applies to ``host``.

    Raises OperationFailed when somebody else answers than should, Unreachable when nobody does.
    """
    where = join_host_port(host, port)
    through = proxy if proxy is not None and proxy.applies_to(host) else None
    try:
        async with asyncio.timeout(CONNECT_S):
            sock = await _connect_tcp(host, port, where, through)
            try:
                return sock if tls is None else await _secure(sock, tls, where, (host, port, through))
            except BaseException:
                sock.close()
                raise
    except TimeoutError:
        middle = f" through the proxy {through}" if through is not None else ""
        raise Unreachable(f"relay {where} does not answer{middle} within {CONNECT_S:.0f} s: {_SILENCE}") from None


async def _connect_tcp(host: str, port: int, where: str, proxy: Proxy | None) -> socket.socket:
    if proxy is None:
        return await _race(host, port, f"relay {where}")
    sock = await _race(proxy.host, proxy.port, f"the proxy {proxy}")
    try:
        await ask_to_connect(sock, proxy, host, port)
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(host: str, port: int, what: str) -> socket.socket:
    """Connect to whichever address of ``host`` answers first (RFC 8305). Raises Unreachable."""
    waiting = (await _addresses(host, port, what))[:ADDRESSES_MAX]
    running: set[asyncio.Task[socket.socket]] = set()
    reasons: list[str] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connect_one(*waiting.pop(0))))
            done, running = await asyncio.wait(
                running, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            failed = [task.exception() for task in done]
            for failure in failed:
                if isinstance(failure, OSError):
                    reasons.append(_reason(failure))
                elif failure is not None:
                    raise failure
            winners = [task.result() for task in done if task.exception() is None]
            for late in winners[1:]:
                late.close()
            if winners:
                return winners[0]
    finally:
        for task in running:
            task.cancel()
        for outcome in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    raise Unreachable(f"{what} cannot be reached ({reasons[-1] if reasons else 'no address'}): {_SILENCE}")


async def _addresses(host: str, port: int, what: str) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    with contextlib.suppress(ValueError):  # a name
        family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        if "%" not in host:
            return [(family, (host, port))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a name"
        raise Unreachable(f"{what} has no address ({reason}): does DNS work here?") from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


async def _connect_one(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
        tune(sock)
    except BaseException:
        sock.close()
        raise
    return sock


def tune(sock: socket.socket) -> None:
    """For datagrams in a stream: nothing waits to be joined, little is queued, death is noticed in 10 to 25 s."""
    sock.setsockopt(_IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(_IPPROTO_TCP, _TCP_USER_TIMEOUT, _DEAD_AFTER_MS)
    sock.setsockopt(_IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _NOT_SENT_BYTES_MAX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(_IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_S)
    sock.setsockopt(_IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_S)
    sock.setsockopt(_IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)


# TLS.


async def _secure(sock: socket.socket, tls: TlsPin, where: str, again: tuple[str, int, Proxy | None]) -> ssl.SSLSocket:
    context = _context(tls)
    try:
        secured = await _shake_hands(sock, context, tls.hostname)
    except ssl.SSLCertVerificationError as error:
        told = error.verify_message or "it does not verify"
        certificate = await _certificate_shown(*again, hostname=tls.hostname)
        raise OperationFailed(_not_the_relay(where, certificate, told)) from None
    except (ssl.SSLError, ValueError) as error:
        raise OperationFailed(_no_tls(where, error)) from None
    except OSError as error:
        raise Unreachable(
            f"relay {where} ends the connection during the TLS handshake ({_reason(error)}): something on the way may "
            "let no TLS to it through"
        ) from None
    certificate = secured.getpeercert(binary_form=True) or b""
    if tls.certificate_sha256 is not None and not hmac.compare_digest(
        hashlib.sha256(certificate).digest(), tls.certificate_sha256
    ):
        secured.close()
        raise OperationFailed(_not_the_relay(where, certificate, "it is not the one the network names for it"))
    return secured


def _context(tls: TlsPin) -> ssl.SSLContext:
    if tls.hostname is None:
        # The certificate itself is compared: names, issuers and times of it mean nothing.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context = ssl.create_default_context(cadata=tls.extra_roots)
        if tls.extra_roots is not None:
            context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a bridge writes without having to read first
    return context


async def _shake_hands(sock: socket.socket, context: ssl.SSLContext, hostname: str | None) -> ssl.SSLSocket:
    """Takes ``sock`` over. Raises OSError, of which SSLError is one."""
    secured = context.wrap_socket(sock, do_handshake_on_connect=False, server_hostname=hostname)
    try:
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                await _ready(secured, writing=False)
            except ssl.SSLWantWriteError:
                await _ready(secured, writing=True)
    except BaseException:
        secured.close()
        raise


async def _ready(sock: socket.socket, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    add(sock.fileno(), _set, ready)
    try:
        await ready
    finally:
        remove(sock.fileno())


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _certificate_shown(host: str, port: int, proxy: Proxy | None, *, hostname: str | None) -> bytes:
    """The certificate (DER) that is shown for the relay, unverified: only to name its owner. Empty: there is none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError, WarrenError):
        secured = await _shake_hands(await _connect_tcp(host, port, host, proxy), context, hostname)
        with secured:
            return secured.getpeercert(binary_form=True) or b""
    return b""


def _not_the_relay(where: str, certificate: bytes, because: str) -> str:
    return (
        f"somebody else answers for relay {where}: the certificate that arrives here{_names_untrusted(certificate)} is "
        f"refused ({_short(because)}); if a proxy or firewall here opens TLS connections, it must leave this one alone"
    )


def _names_untrusted(certificate: bytes) -> str:
    from cryptography import x509

    try:
        parsed = x509.load_der_x509_certificate(certificate)
        subject, issuer = parsed.subject.rfc4514_string(), parsed.issuer.rfc4514_string()
    except ValueError:
        return ""
    of = f", of “{_short(subject)}”" if subject else ", of nobody"
    by = "by itself" if subject == issuer else f"by “{_short(issuer)}”"
    return f"{of}, issued {by},"


def _no_tls(where: str, error: ssl.SSLError | ValueError) -> str:
    reason = getattr(error, "reason", None) or ""
    if any(word in reason for word in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")):
        return (
            f"what answers for relay {where} speaks no TLS: it is another service, or this network wants a login first "
            "(a captive portal: open a browser)"
        )
    return f"the TLS handshake with relay {where} failed ({_short(reason or str(error))}): check its address and port"


def _reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or "without a word"


def _short(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:NAME_CHARACTERS_MAX])
