"""Surroundings of the conformance suite for engines of real processes: TUN, sockets, one host."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from tests.support.engine_conformance import SCENARIOS, Forward
from tests.support.engine_listening import LISTENING_SCENARIOS
from warren.engine.base import Engine
from warren.engine.rootless.nest import Nest
from warren.engine.rootless.places import DATA_PLANES
from warren.engine.userspace.client import UserspaceEngine
from warren.linux.netlink import open_netlink
from warren.linux.sysctl import ProcSysctls
from warren.model.tunnel import TransportAddress

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
PATIENCE_S = 30.0
POLL_S = 0.02


class UserspaceBench:
    """Several engines on one host: loopback is the underlay; packet sockets on the tunnels play the hosts behind
    them.

    With a ``nest`` they are rootless: their interfaces are in there.
    """

    def __init__(self, nest: Nest | None = None) -> None:
        self._nest = nest
        self._engines: list[UserspaceEngine] = []
        self._taps: dict[str, socket.socket] = {}
        self._relays: list[asyncio.DatagramTransport] = []

    async def engine(self, name: str) -> Engine:
        engine = await self._start(f"wg-{name}")
        self._engines.append(engine)
        quiet = f"net/ipv6/conf/{engine.interface}/disable_ipv6"
        if self._nest is None:
            ProcSysctls().set(quiet, "1")
            async with open_netlink() as netlink:
                await netlink.set_link(engine.interface, up=True)
            tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        else:
            self._nest.sysctls.set(quiet, "1")
            await self._nest.netlink.set_link(engine.interface, up=True)
            tap = await self._nest.sockets.open(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        tap.bind((engine.interface, ETH_P_ALL))
        tap.setblocking(False)
        self._taps[engine.interface] = tap
        async with asyncio.timeout(PATIENCE_S):
            while not (await engine.status()).listen_port:
                await asyncio.sleep(POLL_S)
        return engine

    async def _start(self, interface: str) -> UserspaceEngine:
        if self._nest is None:
            return await UserspaceEngine.start(interface)
        path = self._nest.path
        return await UserspaceEngine.start(interface, sockets=path.parent / DATA_PLANES, nest=path)

    async def address(self, engine: Engine) -> TransportAddress:
        return TransportAddress(ip_address("127.0.0.1"), (await engine.status()).listen_port)

    async def inject(self, engine: Engine, packet: bytes) -> None:
        protocol = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
        self._taps[engine.interface].sendto(packet, (engine.interface, protocol))

    async def expect(self, engine: Engine, packet: bytes) -> None:
        loop = asyncio.get_running_loop()
        tap = self._taps[engine.interface]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                readable = asyncio.Event()
                loop.add_reader(tap, readable.set)
                try:
                    await readable.wait()
                finally:
                    loop.remove_reader(tap)
                received, (_, _, direction, *_) = tap.recvfrom(65536)
                if direction != socket.PACKET_OUTGOING:
                    assert received == packet
                    return

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                await asyncio.sleep(POLL_S)

    async def relay(self, forward: Forward) -> TransportAddress:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Relay(forward), local_addr=("127.0.0.1", 0))
        self._relays.append(transport)
        return _address(transport.get_extra_info("sockname"))

    async def close(self) -> None:
        for relay in self._relays:
            relay.close()
        for engine in self._engines:
            await engine.close()
        for tap in self._taps.values():
            tap.close()


class _Relay(asyncio.DatagramProtocol):
    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        for answer, destination in self._forward(data, _address(source)):
            self._transport.sendto(answer, (str(destination.ip), destination.port))


def _address(pair: tuple[str, int]) -> TransportAddress:
    return TransportAddress(ip_address(pair[0]), pair[1])


def run_scenario(name: str, run: Path | None = None) -> None:
    """Run one scenario in the present namespaces; with ``run`` a rootless one, in the nest of that directory."""
    (scenario,) = (candidate for candidate in SCENARIOS + LISTENING_SCENARIOS if candidate.__name__ == name)

    async def play() -> None:
        async with contextlib.AsyncExitStack() as stack:
            nest = None
            if run is not None:
                nest = await Nest.attach(run)
                stack.push_async_callback(nest.let_go)
            bench = UserspaceBench(nest)
            stack.push_async_callback(bench.close)
            await scenario(bench)

    asyncio.run(play())
