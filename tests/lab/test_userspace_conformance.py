"""The userspace engine passes the conformance suite with its real process, TUN and sockets, inside one lab host."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Callable
from ipaddress import ip_address
from typing import cast

import pytest

from tests.support.engine_conformance import SCENARIOS, Forward
from tests.support.engine_listening import LISTENING_SCENARIOS
from warren.engine.base import Engine
from warren.engine.userspace.client import UserspaceEngine
from warren.lab import Lab
from warren.model.tunnel import TransportAddress

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
PATIENCE_S = 10.0
POLL_S = 0.02


class UserspaceBench:
    """Several engines on one host: loopback is the underlay; packet sockets on the tunnels play the hosts behind
    them.
    """

    def __init__(self) -> None:
        self._engines: list[UserspaceEngine] = []
        self._taps: dict[str, socket.socket] = {}
        self._relays: list[asyncio.DatagramTransport] = []

    async def engine(self, name: str) -> Engine:
        engine = await UserspaceEngine.start(f"wg-{name}")
        self._engines.append(engine)
        subprocess.run(["sysctl", "-qw", f"net.ipv6.conf.{engine.interface}.disable_ipv6=1"], check=True)
        subprocess.run(["ip", "link", "set", engine.interface, "up"], check=True)
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        tap.bind((engine.interface, ETH_P_ALL))
        tap.setblocking(False)
        self._taps[engine.interface] = tap
        async with asyncio.timeout(PATIENCE_S):
            while not (await engine.status()).listen_port:
                await asyncio.sleep(POLL_S)
        return engine

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


def run_scenario(name: str) -> None:
    """Run one scenario in the present namespaces."""
    (scenario,) = (candidate for candidate in SCENARIOS + LISTENING_SCENARIOS if candidate.__name__ == name)

    async def run() -> None:
        bench = UserspaceBench()
        try:
            await scenario(bench)
        finally:
            await bench.close()

    asyncio.run(run())


@pytest.mark.parametrize("name", [scenario.__name__ for scenario in SCENARIOS + LISTENING_SCENARIOS])
def test_the_userspace_engine_conforms(lab: Lab, name: str) -> None:
    host = lab.host("host")
    host.call(run_scenario, name)
    assert host.run(["sh", "-c", "ls /run/wireguard; ls /sys/class/net"]).stdout.split() == ["lo"]
