"""The userspace engine passes the conformance suite with its real process, TUN and sockets, inside one lab host."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from ipaddress import ip_address

import pytest

from tests.support.engine_conformance import SCENARIOS
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

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()
        for tap in self._taps.values():
            tap.close()


def run_scenario(name: str) -> None:
    """Run one scenario in the present namespaces."""
    (scenario,) = (candidate for candidate in SCENARIOS if candidate.__name__ == name)

    async def run() -> None:
        bench = UserspaceBench()
        try:
            await scenario(bench)
        finally:
            await bench.close()

    asyncio.run(run())


@pytest.mark.parametrize("name", [scenario.__name__ for scenario in SCENARIOS])
def test_the_userspace_engine_conforms(lab: Lab, name: str) -> None:
    host = lab.host("host")
    host.call(run_scenario, name)
    assert host.run(["sh", "-c", "ls /run/wireguard; ls /sys/class/net"]).stdout.split() == ["lo"]
