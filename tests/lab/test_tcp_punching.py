"""TCP simultaneous open between two hosts behind NATs that let no UDP through."""

from __future__ import annotations

import asyncio
import shutil
import socket
import time

import pytest

from warren.lab import Bridge, Host, Lab, Router
from warren.lab.coturn import start_coturn
from warren.lab.firewall import Firewall
from warren.lab.nat import NatKind
from warren.model.tunnel import TransportAddress
from warren.reach.tcp import mapped_tcp_address, punch_tcp

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="not installed: coturn"),
]

SERVER, PORT = "203.0.113.1", 3478
LOCAL_PORT = 51_820
KEY = b"k" * 32


def mapped() -> TransportAddress | None:
    return asyncio.run(mapped_tcp_address(SERVER, PORT, LOCAL_PORT))


def punch(remote: TransportAddress, key: bytes, controlling: bool, timeout_s: float) -> tuple[str, float]:
    """What the other end's data plane said over the connection, and after how many seconds; empty: no connection."""

    async def body() -> tuple[str, float]:
        begun = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plane:
            plane.bind(("127.0.0.1", 0))
            plane.setblocking(False)
            bridge = await punch_tcp(
                local_port=LOCAL_PORT,
                remote=[remote],
                key=key,
                controlling=controlling,
                plane_port=lambda: int(plane.getsockname()[1]),
                timeout_s=timeout_s,
            )
            took = time.monotonic() - begun
            if bridge is None:
                return "", took
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                plane.sendto(b"hello from %d" % controlling, (str(bridge.address.ip), bridge.address.port))
                heard = (await loop.sock_recv(plane, 100)).decode()
                if controlling:
                    plane.sendto(b"bye", (str(bridge.address.ip), bridge.address.port))
                    await bridge.closed
                else:
                    assert await loop.sock_recv(plane, 100) == b"bye"
            bridge.close()
            return heard, took

    return asyncio.run(body())


class Sites:
    """Two hosts behind NATs of their own, and a relay that both reach by TCP only."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._switch: Bridge = lab.bridge("internet")
        relay = lab.host("relay")
        lab.attach(relay, self._switch, f"{SERVER}/24")
        start_coturn(relay, [SERVER])

    def site(self, number: int, kind: NatKind | str) -> tuple[Host, Router]:
        host, router = self._lab.host(f"host{number}"), self._lab.router(f"router{number}")
        self._lab.link(host, router, "192.168.1.10/24", "192.168.1.1/24", interfaces=("eth0", "lan"))
        self._lab.attach(router, self._switch, f"203.0.113.{9 + number}/24", interface="wan")
        host.route("default", via="192.168.1.1")
        router.nat("wan", kind)
        router.firewall("wan", Firewall(udp="dropped"))
        return host, router


@pytest.mark.parametrize(
    "kinds",
    [("port-restricted", "port-restricted"), ("linux", "linux"), ("full-cone", "port-restricted-random")],
    ids=" - ".join,
)
def test_two_nats_without_udp_are_passed_by_tcp(lab: Lab, kinds: tuple[str, str]) -> None:
    sites = Sites(lab)
    (one, _), (other, _) = (sites.site(number, kind) for number, kind in enumerate(kinds, 1))
    at_one, at_other = one.call(mapped), other.call(mapped)
    assert at_one is not None
    assert at_other is not None
    assert str(at_one.ip) == "203.0.113.10"
    left = one.begin(punch, at_other, KEY, True, 20.0)
    right = other.begin(punch, at_one, KEY, False, 20.0)
    assert right.result(40.0)[0] == "hello from 1"
    assert left.result(40.0)[0] == "hello from 0"


def test_nobody_else_gets_in(lab: Lab) -> None:
    sites = Sites(lab)
    (one, _), (other, _) = (sites.site(number, "port-restricted") for number in (1, 2))
    at_one, at_other = one.call(mapped), other.call(mapped)
    assert at_one is not None
    assert at_other is not None
    left = one.begin(punch, at_other, KEY, True, 4.0)
    right = other.begin(punch, at_one, b"x" * 32, False, 4.0)
    assert (left.result(20.0)[0], right.result(20.0)[0]) == ("", "")


def test_symmetric_nats_are_not_passed(lab: Lab) -> None:
    sites = Sites(lab)
    (one, _), (other, _) = (sites.site(number, "symmetric") for number in (1, 2))
    at_one, at_other = one.call(mapped), other.call(mapped)
    assert at_one is not None
    assert at_other is not None
    left = one.begin(punch, at_other, KEY, True, 3.0)
    right = other.begin(punch, at_one, KEY, False, 3.0)
    assert (left.result(20.0)[0], right.result(20.0)[0]) == ("", "")
