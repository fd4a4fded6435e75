"""A SOCKS5 server (RFC 1928) for programs of this host: to the overlay, and nowhere else.

Names are the overlay's, asked of the agent; so the host's resolver never hears of them. The agent is asked for
addresses too: what the policy forbids is refused at once, where the member's firewall would be silent. BIND is refused:
nobody in the overlay is told of ports that come and go.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, TypeVar

from warren.errors import MalformedPacket
from warren.l4.config import Backend, Entry, Way
from warren.l4.kinds import Goal, Incoming, Refused, Tools
from warren.l4.listening import transport_address
from warren.l4.socks_guard import check_stream, overlay_addresses
from warren.l4.socks_udp import associate
from warren.proto import socks

HANDSHAKE_S: Final = 10.0
"""For greeting and request together. Programs say both at once; nobody types them."""
_READ_BYTES: Final = 4096
_REPLIES: Final = {
    "policy": socks.NOT_ALLOWED,
    "source": socks.NOT_ALLOWED,
    "unresolved": socks.HOST_UNREACHABLE,
    "no-backend": socks.HOST_UNREACHABLE,
    "connect": socks.CONNECTION_REFUSED,
    "timeout": socks.TTL_EXPIRED,
}

_T = TypeVar("_T")


async def handle(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """One client. It is told what it is refused for, as far as the protocol has words for that."""
    check_stream(incoming, entry)
    client = _Client(incoming.sock)
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            request = await _request(client)
    except TimeoutError:
        raise Refused("protocol", f"a SOCKS client has not said what it wants in {HANDSHAKE_S:g} s") from None
    except OSError as error:
        raise Refused("protocol", f"a SOCKS client has gone: {error.strerror}") from None
    try:
        await _serve(client, request, incoming, entry, tools)
    except Refused as why:  # the reset that a refusal ends in might overtake the reply
        tools.count(why, incoming.client)
        await client.say(socks.reply(_REPLIES.get(why.reason, socks.FAILED)))
        incoming.sock.close()


async def _serve(client: _Client, request: socks.Request, incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """Raises Refused."""
    if request.command == socks.UDP_ASSOCIATE:
        await associate(incoming, request, entry, tools, client.say)
        return
    host, port = request.host, request.port
    addresses = await overlay_addresses(host, Goal("tcp", port), entry, tools)
    backends = tuple(Backend(name=str(host), side="overlay", host=str(ip), port=port) for ip in addresses)
    way = Way(backends=backends, connect_timeout_s=entry.way.connect_timeout_s)
    connected = await tools.connect(way, incoming.client)
    bound = transport_address(connected.sock.getsockname())
    answer = socks.reply(socks.GRANTED, bound)
    tools.carry(incoming.sock, connected.sock, idle_s=entry.way.idle_s, head=client.rest(), answer=answer)


async def _request(client: _Client) -> socks.Request:
    """What the client wants. Raises Refused, and OSError when it has gone."""
    try:
        methods = await client.read(socks.greeting_untrusted)
    except MalformedPacket as error:
        raise Refused("protocol", f"what came in is not SOCKS: {error}") from None
    if socks.NO_AUTHENTICATION not in methods:
        await client.say(socks.choice(socks.NO_METHOD))
        raise Refused("protocol", "a SOCKS client insists on a password; there is none")
    await client.say(socks.choice(socks.NO_AUTHENTICATION))
    try:
        request = await client.read(socks.request_untrusted)
    except MalformedPacket as error:
        code = socks.ADDRESS_NOT_SUPPORTED if str(error).startswith("address") else socks.FAILED
        await client.say(socks.reply(code))
        raise Refused("protocol", f"a SOCKS request is broken: {error}") from None
    if request.command not in (socks.CONNECT, socks.UDP_ASSOCIATE):
        await client.say(socks.reply(socks.COMMAND_NOT_SUPPORTED))
        raise Refused("protocol", "a SOCKS client asks for something else than CONNECT and UDP ASSOCIATE")
    if request.command == socks.CONNECT and not request.port:
        await client.say(socks.reply(socks.FAILED))
        raise Refused("protocol", "a SOCKS client asks for port 0")
    return request


class _Client:
    """What is read of a client ahead of its turn is kept for later."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._data = b""

    async def read(self, parse: Callable[[bytes], tuple[_T, int] | None]) -> _T:
        """The next thing that ``parse`` knows. Raises MalformedPacket, Refused when the client ends, OSError."""
        loop = asyncio.get_running_loop()
        while True:
            parsed = parse(self._data)
            if parsed is not None:
                found, length = parsed
                self._data = self._data[length:]
                return found
            more = await loop.sock_recv(self._sock, _READ_BYTES)
            if not more:
                raise Refused("protocol", "a SOCKS client ends before it has said what it wants")
            self._data += more

    def rest(self) -> bytes:
        """What follows the request, and is not for us."""
        data, self._data = self._data, b""
        return data

    async def say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the next thing we read of it tells us
            await asyncio.get_running_loop().sock_sendall(self._sock, data)
