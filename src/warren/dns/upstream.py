"""Asking the name servers that this host asked before: queries and responses pass through as they are."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from warren.dns.answers import HEADER_BYTES, TCP_BYTES
from warren.log import get

PORT: Final = 53
TIMEOUT_S: Final = 2.0
"""For one server. With three servers an asker waits 6 s at the most, and resolv.conf(5) gives up after 5 s and asks
again.
"""
QUERIES_MAX: Final = 256
"""Under way at a time, each with a socket of its own; beyond that the asker is told SERVFAIL at once."""
SERVERS_MAX: Final = 3  # resolv.conf(5), MAXNS
_TRY_NEXT: Final = frozenset({2, 4, 5})  # SERVFAIL, NOTIMP, REFUSED
_log = get("dns")


class Server(NamedTuple):
    address: IPv4Address | IPv6Address
    """An IPv6 address may have a scope."""
    port: int = PORT

    @classmethod
    def parse(cls, text: str) -> Server | None:
        """A server as resolv.conf(5) has it; None for what is no address."""
        try:
            return cls(ip_address(text))
        except ValueError:
            return None


class Upstream:
    """The servers in their order. Owned by one event loop; :meth:`ask` may run many times at once."""

    def __init__(self, servers: Sequence[Server] = (), *, timeout_s: float = TIMEOUT_S) -> None:
        self.servers = tuple(servers)[:SERVERS_MAX]
        self._timeout_s = timeout_s
        self._under_way = 0

    async def ask(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The first useful response to ``query``, with its number in it; None when no server gives one.

        A refusal or failure counts only when no other server does better.
        """
        if self._under_way >= QUERIES_MAX:
            return None
        self._under_way += 1
        try:
            refusal = None
            for server in self.servers:
                # A number and a source port of our own: an off-path attacker must guess both (RFC 5452 §9.2).
                number = secrets.token_bytes(2)
                response = await self._ask_one(server, number + query[2:], tcp=tcp)
                if response is not None:
                    response = query[:2] + response[2:]
                    if response[3] & 0x0F not in _TRY_NEXT:
                        return response
                    refusal = refusal or response
            return refusal
        finally:
            self._under_way -= 1

    async def _ask_one(self, server: Server, query: bytes, *, tcp: bool) -> bytes | None:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await (_ask_tcp if tcp else _ask_udp)(server, query)
        except (TimeoutError, OSError, EOFError) as error:
            _log.debug("name server %s does not answer: %s", server.address, str(error) or "no answer in time")
            return None


async def _ask_udp(server: Server, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if server.address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (str(server.address), server.port))
        await loop.sock_sendall(sock, query)
        while True:
            response = await loop.sock_recv(sock, TCP_BYTES)
            if _answers(response, query):
                return response


async def _ask_tcp(server: Server, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(str(server.address), server.port)
    try:
        writer.write(len(query).to_bytes(2, "big") + query)
        await writer.drain()
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    if not _answers(response, query):
        raise EOFError("it answers another question")
    return response


def _answers(response: bytes, query: bytes) -> bool:
    """Whether it is a response, with the query's number and question in it as they were (RFC 5452 §3)."""
    if len(response) < HEADER_BYTES or response[:2] != query[:2] or not response[2] & 0x80:
        return False
    question = query[HEADER_BYTES : _end_of_question(query)]
    has_none = response[4:6] == b"\0\0" and response[3] & 0x0F != 0  # a server that could not parse it
    return has_none or response[HEADER_BYTES : HEADER_BYTES + len(question)].lower() == question.lower()


def _end_of_question(query: bytes) -> int:
    """Where the one question of a query that has been parsed ends."""
    at = HEADER_BYTES
    while at < len(query) and 0 < query[at] < 64:
        at += 1 + query[at]
    return at + 5
