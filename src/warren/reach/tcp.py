"""A TCP connection between two members that both sit behind NATs, where UDP does not pass (RFC 5128 §3.4, RFC 6544).

Both connect from a fixed port to the other's mapped address at about the same time. The first SYN of each opens its
own NAT; where the two cross, TCP makes one connection of them (RFC 9293 §3.5, simultaneous open). Where one of the two
can be reached after all, it accepts. Whoever then answers has to prove that it is the peer (tcp_check). The connection
carries WireGuard's datagrams, each behind its length (RFC 4571), by a bridge.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable, Coroutine, Sequence
from ipaddress import ip_address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.attributes import unpack_xor_address_untrusted
from warren.proto.stun.message import (
    HEADER_BYTES,
    TRANSACTION_BYTES,
    Attribute,
    Class,
    Method,
    decode_untrusted,
    encode,
)
from warren.reach.bridge import StreamBridge
from warren.reach.bridge_connect import tune
from warren.reach.bridge_framing import LengthFraming
from warren.reach.tcp_check import State, TcpCheck

REMOTES_MAX: Final = 8
STRANGERS_MAX: Final = 8
"""Connections that were accepted and have proved nothing yet."""
ATTEMPT_S: Final = (0.4, 0.8)
"""How long an attempt lasts before the next, drawn anew each time: two ends that miss each other do not do so for ever.
"""
PAUSE_S: Final = (0.05, 0.2)
"""After a refusal, by a NAT that the other end has not opened yet."""
PROOF_S: Final = 3.0
MAPPED_WITHIN_S: Final = 5.0


async def mapped_tcp_address(relay_host: str, port: int, local_port: int) -> TransportAddress | None:
    """Where a TCP connection from ``local_port`` appears to come from, as the relay's STUN (over TCP, RFC 8489 §6.2.2)
    sees it; None when that cannot be found out. Nobody vouches for the answer. IPv4 if the relay has it: IPv6 has no
    mapped addresses.
    """
    try:
        async with asyncio.timeout(MAPPED_WITHIN_S):
            relay = TransportAddress(await _address_of(relay_host), port)
            with await _connect(local_port, relay) as sock:
                return await _ask_mapped(sock)
    except (OSError, ValueError, TimeoutError, MalformedPacket):
        return None


async def _address_of(host: str) -> IPAddress:
    with contextlib.suppress(ValueError):
        return ip_address(host)
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return ip_address(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])


async def _ask_mapped(sock: socket.socket) -> TransportAddress | None:
    loop = asyncio.get_running_loop()
    transaction = os.urandom(TRANSACTION_BYTES)
    await loop.sock_sendall(sock, encode(Method.BINDING, Class.REQUEST, transaction))
    head = await _read_exactly(sock, HEADER_BYTES)
    message = decode_untrusted(head + await _read_exactly(sock, int.from_bytes(head[2:4])))
    value = message.get(Attribute.XOR_MAPPED_ADDRESS)
    if message.cls is not Class.SUCCESS or message.transaction != transaction or value is None:
        return None
    return unpack_xor_address_untrusted(value, transaction)


async def _read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        if not more:
            raise MalformedPacket("the connection ended within a message")
        data += more
    return data


async def punch_tcp(
    *,
    local_port: int,
    remote: Sequence[TransportAddress],
    key: bytes,
    controlling: bool,
    plane_port: Callable[[], int],
    timeout_s: float,
) -> StreamBridge | None:
    """Connect to the peer, which does the same at about the same time, from TCP port ``local_port`` to its TCP
    addresses ``remote`` (at most 8 are tried).

    ``key`` is what the two nodes make their checks with; ``controlling``: this node selects among connections, the
    other does not. ``plane_port`` as in :class:`StreamBridge`, whose owner the caller becomes. None: no connection came
    about within ``timeout_s``, or the port is taken.
    """
    punch = _Punch(local_port, key, controlling=controlling)
    try:
        async with asyncio.timeout(timeout_s):
            sock, peer, rest = await punch.run(remote[:REMOTES_MAX])
    except (TimeoutError, OSError):
        return None
    try:
        tune(sock)
        return StreamBridge(sock, LengthFraming(), plane_port, f"the peer at {peer} (TCP)", begun=rest)
    except OSError:
        sock.close()
        return None


MSS_BYTES: Final = {socket.AF_INET: 576 - 40, socket.AF_INET6: 1280 - 60}
"""Both ways, by the least that either family lets pass (RFC 9293 §3.7.1): the way may be one on which larger packets
vanish without a word, and Linux looks for such a hole only where ``net.ipv4.tcp_mtu_probing`` says so.
"""


class _Punch:
    def __init__(self, local_port: int, key: bytes, *, controlling: bool) -> None:
        self._local_port = local_port
        self._key = key
        self._controlling = controlling
        self._selected: asyncio.Future[tuple[socket.socket, TransportAddress, bytes]]
        self._selecting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._strangers = 0

    async def run(self, remotes: Sequence[TransportAddress]) -> tuple[socket.socket, TransportAddress, bytes]:
        """The selected connection, the other's address, and data that came already. Raises OSError when the port is
        taken; otherwise it lasts until a connection is selected, or for ever.
        """
        self._selected = asyncio.get_running_loop().create_future()
        with contextlib.ExitStack() as stack:
            for family in (socket.AF_INET, socket.AF_INET6):
                if any(_family(one) == family for one in remotes):
                    listener = stack.enter_context(_bound(family, self._local_port))
                    listener.listen(STRANGERS_MAX)
                    self._start(self._accept(listener))
            for one in remotes:
                self._start(self._call(one))
            try:
                return await asyncio.shield(self._selected)
            finally:
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
                if not self._selected.done():
                    self._selected.cancel()

    def _start(self, body: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(body)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(self, remote: TransportAddress) -> None:
        while True:
            try:
                async with asyncio.timeout(random.uniform(*ATTEMPT_S)):
                    sock = await _connect(self._local_port, remote)
            except TimeoutError:
                continue
            except OSError:
                await asyncio.sleep(random.uniform(*PAUSE_S))
                continue
            await self._examine(sock, remote)
            await asyncio.sleep(random.uniform(*PAUSE_S))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, address = await asyncio.get_running_loop().sock_accept(listener)
            if self._strangers >= STRANGERS_MAX:
                sock.close()
                continue
            self._strangers += 1
            self._start(self._examine_stranger(sock, TransportAddress(ip_address(address[0]), address[1])))

    async def _examine_stranger(self, sock: socket.socket, remote: TransportAddress) -> None:
        try:
            await self._examine(sock, remote)
        finally:
            self._strangers -= 1

    async def _examine(self, sock: socket.socket, remote: TransportAddress) -> None:
        """See whether the other end is the peer; owns ``sock``, and gives it away if it is selected."""
        check = TcpCheck(self._key, remote, os.urandom, controlling=self._controlling)
        given_away = False
        try:
            async with asyncio.timeout(PROOF_S):
                await self._prove(sock, check)
            if check.state is State.SELECTED and not self._selected.done():
                self._selected.set_result((sock, remote, check.rest))
                given_away = True
        except (OSError, TimeoutError):
            pass
        finally:
            if not given_away:
                sock.close()
                self._selecting = self._selecting and not check.selecting

    async def _prove(self, sock: socket.socket, check: TcpCheck) -> None:
        loop = asyncio.get_running_loop()
        while check.state in {State.CHECKING, State.PROVEN}:
            if check.state is State.PROVEN and self._controlling and not self._selecting:
                self._selecting = True
                check.select()
            await loop.sock_sendall(sock, check.take_transmits())
            data = await loop.sock_recv(sock, 4096)
            if not data:
                return
            check.receive(data)
        await loop.sock_sendall(sock, check.take_transmits())


def _family(address: TransportAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.ip.version == 4 else socket.AF_INET6


def _bound(family: socket.AddressFamily, port: int) -> socket.socket:
    """A TCP socket on a port that other sockets of ours have, too."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, MSS_BYTES[family])
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


async def _connect(local_port: int, remote: TransportAddress) -> socket.socket:
    sock = _bound(_family(remote), local_port)
    try:
        address = (str(remote.ip), remote.port)
        await asyncio.get_running_loop().sock_connect(
            sock, address if remote.ip.version == 4 else (*address, 0, remote.scope)
        )
    except BaseException:
        sock.close()
        raise
    return sock
