"""Runs the STUN machines of ``proto/stun`` over real UDP sockets, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any, Final, Protocol

from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.stun.behaviour import Behaviour
from warren.proto.stun.behaviour_discovery import BehaviourDiscovery, Transmit
from warren.proto.stun.lifetime import Lifetime, LifetimeDiscovery
from warren.proto.stun.message import MESSAGE_BYTES_MAX
from warren.proto.wireguard.timers import Deadline

_READS_MAX: Final = 64
"""Datagrams taken from one socket at a time; the rest wakes the loop again."""


class Machine(Protocol):
    """The verbs that :func:`drive` uses."""

    @property
    def done(self) -> bool: ...

    def receive(self, data: bytes, remote: TransportAddress, socket: int, now: float) -> bool: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_deadline(self) -> Deadline | None: ...

    def take_transmits(self) -> list[Transmit]: ...


def source_for(remote: TransportAddress) -> IPAddress | None:
    """The address that the routes give packets to ``remote``; None when there is no way. Nothing is sent."""
    family = socket.AF_INET if remote.ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.connect(_sockaddr(remote))
            return _address(probe.getsockname()).ip
    except OSError:
        return None


@asynccontextmanager
async def udp_sockets(source: IPAddress, count: int, scope: int = 0) -> AsyncIterator[list[socket.socket]]:
    """``count`` sockets at ``source``, each with a port of its own. Raises OSError."""
    family = socket.AF_INET if source.version == 4 else socket.AF_INET6
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            one = stack.enter_context(
                socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            )
            one.bind(_sockaddr(TransportAddress(source, 0, scope)))
            made.append(one)
        yield made


async def drive(machine: Machine, sockets: Sequence[socket.socket], within_s: float) -> int | None:
    """Run ``machine`` until it is done, at most ``within_s``. The errno of a datagram that this host itself refused to
    send; None: there was none.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + within_s
    woken = asyncio.Event()
    refused: int | None = None

    def readable(number: int) -> None:
        for _ in range(_READS_MAX):
            try:
                data, source = sockets[number].recvfrom(MESSAGE_BYTES_MAX + 1)
            except OSError:  # nothing more, or an ICMP error of before
                break
            machine.receive(data, _address(source), number, loop.time())
        woken.set()

    for number, one in enumerate(sockets):
        loop.add_reader(one, readable, number)
    try:
        while True:
            for transmit in machine.take_transmits():
                try:
                    sockets[transmit.socket].sendto(transmit.data, _sockaddr(transmit.remote))
                except BlockingIOError:
                    pass  # a full queue: the machine sends again
                except OSError as error:
                    refused = error.errno
            if machine.done or loop.time() >= ends_at:
                return refused
            deadline = machine.next_deadline()
            until = ends_at if deadline is None else min(ends_at, deadline.at)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await woken.wait()
            woken.clear()
            machine.handle_timeout(loop.time())
    finally:
        for one in sockets:
            loop.remove_reader(one)


async def discover_behaviour(
    servers: Sequence[TransportAddress], within_s: float
) -> tuple[Behaviour | None, int | None]:
    """What NATs and filters do to UDP between here and ``servers``, which are of one family, and the errno of what this
    host refused to send. No behaviour: there is no way to any of them.
    """
    source = next((found for server in servers if (found := source_for(server)) is not None), None)
    if source is None:
        return None, None
    async with udp_sockets(source, BehaviourDiscovery.SOCKETS) as sockets:
        first, second = (_address(one.getsockname()) for one in sockets)
        machine = BehaviourDiscovery(
            servers=servers, local=(first, second), random=os.urandom, now=asyncio.get_running_loop().time()
        )
        refused = await drive(machine, sockets, within_s)
        return machine.behaviour, refused


async def discover_lifetime(server: TransportAddress, waits_s: Sequence[float]) -> Lifetime | None:
    """How long mappings live, as far as the longest of ``waits_s`` tells. None: the server cannot help."""
    source = source_for(server)
    if source is None:
        return None
    machine = LifetimeDiscovery(
        server=server, waits_s=waits_s, random=os.urandom, now=asyncio.get_running_loop().time()
    )
    async with udp_sockets(source, machine.sockets) as sockets:
        await drive(machine, sockets, max(waits_s) + 10.0)
    return machine.lifetime


def _sockaddr(address: TransportAddress) -> tuple[Any, ...]:
    if address.ip.version == 4:
        return str(address.ip), address.port
    return str(address.ip), address.port, 0, address.scope


def _address(sockaddr: Any) -> TransportAddress:
    host = sockaddr[0].partition("%")[0]
    return TransportAddress(ip_address(host), sockaddr[1], sockaddr[3] if len(sockaddr) > 2 else 0)
