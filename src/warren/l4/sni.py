"""Kind ``sni``: TLS streams go where the name in their ClientHello says; nothing of them is decrypted here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from warren.errors import MalformedPacket
from warren.l4.config import Entry, Name
from warren.l4.kinds import Incoming, Refused, Tools
from warren.l4.limits import source_of
from warren.l4.peers import hand_to_caddy
from warren.model.tunnel import TransportAddress
from warren.proto.tls_hello import HELLO_BYTES_MAX, ServerName, server_name_untrusted

HELLO_WITHIN_S: Final = 5.0
WAITING_OF_ONE_SOURCE: Final = 64
"""Streams of one IPv4 address or IPv6 /64 whose ClientHello has not come, or which read why they are refused: a client
does both at once, and whoever opens many and is silent shall not take the places of others.
"""
LINGER_S: Final = 1.0
LINGER_BYTES_MAX: Final = 65_536
"""After an alert: a reset that comes while the client still sends would take the alert from it."""

_READ_BYTES: Final = 4096
_UNRECOGNIZED_NAME, _DECODE_ERROR = 112, 50
_NO_TLS: Final = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 49\r\n\r\n"
    b"This port takes TLS only: say https:// instead.\r\n"
)
_METHODS: Final = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"PRI ")

_waiting: Counter[tuple[int, int] | None] = Counter()


class _Told(Exception):
    """The stream is refused for ``why``, and its client shall read ``answer`` first."""

    def __init__(self, why: Refused, answer: bytes) -> None:
        super().__init__(str(why))
        self.why = why
        self.answer = answer


async def handle(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """Read the ClientHello, then pass the stream on, with it, to the backend of the name.

    A client that names nobody, or a name that is not the entry's, is told by a TLS alert (unrecognized_name, RFC 6066
    §3); what is no TLS is refused. Raises Refused.
    """
    with _place(incoming.client):
        try:
            domain, hello = await _hello(incoming.sock)
            name = _find(entry, domain)
        except _Told as told:
            tools.count(told.why, incoming.client)
            await _say_goodbye(incoming.sock, told.answer)
            return
    tools.enter(incoming, name.limits, name.connector)
    if name.ended:
        await hand_to_caddy(incoming, name.way, tools, head=hello)
    else:
        sock, _ = await tools.connect(name.way, incoming.client)
        tools.carry(incoming.sock, sock, idle_s=name.way.idle_s, head=hello)


@contextlib.contextmanager
def _place(client: TransportAddress | None) -> Iterator[None]:
    """One of the places that the client's source has until its stream goes on."""
    source = None if client is None else source_of(client.ip)
    if _waiting[source] >= WAITING_OF_ONE_SOURCE:
        raise Refused("streams", f"{WAITING_OF_ONE_SOURCE} streams of it are open without a TLS name of this gateway")
    _waiting[source] += 1
    try:
        yield
    finally:
        _waiting[source] -= 1
        if not _waiting[source]:
            del _waiting[source]


async def _hello(sock: socket.socket) -> tuple[str | None, bytes]:
    """The name, and what has been read."""
    data = bytearray()
    try:
        found = _taken(data, sock.recv(_READ_BYTES))  # of a busy gateway's clients it is mostly there already
    except BlockingIOError:
        found = None
    except OSError as error:
        raise _ended(error) from None
    if found is not None:
        return found.domain, bytes(data)
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            return await _read_hello(sock, data)
    except TimeoutError:
        raise Refused("timeout", f"no TLS ClientHello came within {HELLO_WITHIN_S:.0f} s") from None


async def _read_hello(sock: socket.socket, data: bytearray) -> tuple[str | None, bytes]:
    loop = asyncio.get_running_loop()
    while True:
        try:
            read = await loop.sock_recv(sock, min(_READ_BYTES, HELLO_BYTES_MAX - len(data)))
        except OSError as error:
            raise _ended(error) from None
        found = _taken(data, read)
        if found is not None:
            return found.domain, bytes(data)


def _taken(data: bytearray, read: bytes) -> ServerName | None:
    """``read`` comes after ``data``; None: more is to come."""
    if not read:
        raise Refused("protocol", "it ended before a TLS ClientHello")
    data += read
    try:
        return server_name_untrusted(data)
    except MalformedPacket as error:
        raise _Told(Refused("protocol", str(error)), _answer_to(data)) from None


def _ended(error: OSError) -> Refused:
    return Refused("protocol", f"it ended before a TLS ClientHello: {error.strerror}")


def _find(entry: Entry, domain: str | None) -> Name:
    if domain is None:
        raise _Told(Refused("protocol", "the TLS client names no server"), _alert(_UNRECOGNIZED_NAME))
    name = _by_domain(entry.names).get(domain)
    if name is None:
        raise _Told(Refused("no-backend", f"no connector here is for {domain}"), _alert(_UNRECOGNIZED_NAME))
    return name


@lru_cache(maxsize=16)
def _by_domain(names: tuple[Name, ...]) -> dict[str, Name]:
    return {name.domain: name for name in names}


def _answer_to(data: bytes | bytearray) -> bytes:
    if data[0] == 22:
        return _alert(_DECODE_ERROR)
    return _NO_TLS if data.startswith(_METHODS) else b""


def _alert(description: int) -> bytes:
    """A record with a fatal alert (RFC 8446 §6)."""
    return bytes((21, 3, 3, 0, 2, 2, description))


async def _say_goodbye(sock: socket.socket, answer: bytes) -> None:
    """Send ``answer``, let the client read it, and close."""
    loop = asyncio.get_running_loop()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await loop.sock_sendall(sock, answer)
                sock.shutdown(socket.SHUT_WR)
                left = LINGER_BYTES_MAX
                while left > 0 and (read := await loop.sock_recv(sock, _READ_BYTES)):
                    left -= len(read)
    finally:
        sock.close()
