"""Our TURN client and bridges against coturn and squid, hosts of the lab."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificate, make_certificate
from tests.support.turn_drive import Drive, driving
from warren.errors import OperationFailed, Unreachable
from warren.lab import Lab, Process
from warren.lab.proxy import start_proxy
from warren.linux import netns
from warren.model.tunnel import TransportAddress
from warren.proto.turn.client_events import BindFailed, Bound, Failed, Lost, Ready
from warren.proto.turn.credentials import rest_password, rest_username
from warren.reach.bridge import StreamBridge
from warren.reach.bridge_connect import TlsPin
from warren.reach.proxy import Proxy

pytestmark = pytest.mark.skipif(shutil.which("turnserver") is None, reason="not installed: coturn")

SECRET = "sesame"
CLIENT, RELAY, PEER = "10.0.1.2", "10.0.1.1", "10.0.2.2"
CLIENT6, RELAY6, PEER6 = "fd00:1::2", "fd00:1::1", "fd00:2::2"
OUTSIDE, OUTSIDE6 = "10.0.2.1", "fd00:2::1"
PORT, TLS_PORT = 3478, 5349


class World:
    """A client's host, the relay's, and a peer's that only the relay reaches."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.valid_until = int(time.time()) + 3600  # part of the user name, which is to stay the same
        self.client, self.relay, self.peer = lab.host("client"), lab.host("relay"), lab.host("peer")
        lab.link(self.client, self.relay, [f"{CLIENT}/24", f"{CLIENT6}/64"], [f"{RELAY}/24", f"{RELAY6}/64"])
        lab.link(
            self.peer,
            self.relay,
            [f"{PEER}/24", f"{PEER6}/64"],
            [f"{OUTSIDE}/24", f"{OUTSIDE6}/64"],
            interfaces=("eth0", "eth1"),
        )
        self.certificate: Certificate = make_certificate("relay")
        self.coturn: Process

    def start(self, *options: str) -> None:
        certificate, key = self.certificate.write(self.directory, "relay")
        self.coturn = self.relay.start(
            [
                *("turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=warren"),
                *(f"--listening-ip={address}" for address in (RELAY, RELAY6)),
                *(f"--relay-ip={address}" for address in (OUTSIDE, OUTSIDE6)),
                *(f"--listening-port={PORT}", f"--tls-listening-port={TLS_PORT}"),
                *(f"--cert={certificate}", f"--pkey={key}"),
                *("--no-dtls", "--no-cli", "--log-file=stdout", "--simple-log", "--verbose"),
                *(f"--pidfile={self.directory / 'pid'}", f"--userdb={self.directory / 'db'}"),
                *options,
            ],
            name="coturn",
        )
        self.relay.wait_for(
            [
                "sh",
                "-c",
                f"ss -Hlun sport = :{PORT} | grep -q {RELAY} && ss -Hltn sport = :{TLS_PORT} | grep -q {RELAY}",
            ]
        )

    def run(self, body: Callable[[], Coroutine[Any, Any, None]], seconds: float = 100.0) -> None:
        """With the network of the client's host."""

        async def limited() -> None:
            async with asyncio.timeout(seconds):
                await body()

        with netns.network_of(self.client.pidfd):
            asyncio.run(limited())

    @contextlib.asynccontextmanager
    async def connected(
        self,
        transport: str = "udp",
        *,
        host: str = RELAY,
        secret: str = SECRET,
        node: str = "node",
        proxy: Proxy | None = None,
        port: int = 0,
    ) -> AsyncIterator[Drive]:
        username = rest_username(node, self.valid_until)
        password = rest_password(secret.encode(), username)
        family = socket.AF_INET6 if ":" in host and transport == "udp" else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            if transport == "udp":
                sock.bind(("", port))
                async with driving(Drive(sock, address(host, PORT), username, password)) as drive:
                    yield drive
                return
            sock.bind(("127.0.0.1", 0))
            bridge = await StreamBridge.open(
                host,
                PORT if transport == "tcp" else TLS_PORT,
                tls=TlsPin(certificate_sha256=self.certificate.sha256) if transport == "tls" else None,
                proxy=proxy,
                plane_port=lambda: int(sock.getsockname()[1]),
            )
            try:
                async with driving(Drive(sock, bridge.address, username, password, reliable=True)) as drive:
                    yield drive
            finally:
                bridge.close()

    def peer_socket(self, host: str) -> socket.socket:
        sock = self.peer.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.setblocking(False)
        return sock


def address(host: str, port: int) -> TransportAddress:
    return TransportAddress(ip_address(host), port)


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> Iterator[World]:
    return World(lab, tmp_path)


async def both_ways(world: World, drive: Drive) -> None:
    """Both relayed addresses carry data in both directions, by channels and by indications."""
    await drive.until(lambda: drive.client.state == "ready")
    assert [one.ip.version for one in drive.client.relayed] == [4, 6]
    for host, relayed in zip((PEER, PEER6), drive.client.relayed, strict=True):
        with world.peer_socket(host) as sock:
            loop = asyncio.get_running_loop()
            peer = address(host, sock.getsockname()[1])
            drive.client.send(peer, b"by indication", time.monotonic())
            drive.flush()
            arrived = asyncio.ensure_future(loop.sock_recv(sock, 2048))
            await drive.until(arrived.done)
            assert arrived.result() == b"by indication"
            sock.sendto(b"indicated", (str(relayed.ip), relayed.port))
            await drive.until(lambda: drive.received)
            assert drive.received.pop() == (peer, b"indicated")
            drive.client.bind(peer, time.monotonic())
            await drive.until(lambda: drive.client.channel_of(peer))  # noqa: B023  awaited within the loop
            for data in (b"x", b"abcde", bytes(1400)):
                drive.send_by_channel(peer, data)
                arrived = asyncio.ensure_future(loop.sock_recv(sock, 2048))
                await drive.until(arrived.done)
                assert arrived.result() == data
                sock.sendto(data[::-1], (str(relayed.ip), relayed.port))
                await drive.until(lambda: drive.received)
                assert drive.received.pop() == (peer, data[::-1])


@pytest.mark.parametrize("host", [RELAY, RELAY6], ids=["over IPv4", "over IPv6"])
@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_coturn_relays_for_us_over_every_transport(world: World, transport: str, host: str) -> None:
    world.start()

    async def body() -> None:
        async with world.connected(transport, host=host) as drive:
            await both_ways(world, drive)
            assert any(isinstance(event, Bound) for event in drive.events)
            assert drive.client.rtt_s is not None

    world.run(body)


def test_permissions_are_kept_for_the_addresses_named(world: World) -> None:
    world.start()

    async def body() -> None:
        async with world.connected() as drive:
            await drive.until(lambda: drive.client.state == "ready")
            (relayed, _) = drive.client.relayed
            with world.peer_socket(PEER) as sock:
                peer = address(PEER, sock.getsockname()[1])
                sock.sendto(b"too early", (str(relayed.ip), relayed.port))
                drive.client.permit([peer.ip, ip_address("127.0.0.1"), ip_address(PEER6)], time.monotonic())
                await drive.until(lambda: drive.client.refusal(ip_address("127.0.0.1")))
                await drive.until(lambda: drive.client.next_deadline().why.startswith("the NAT"))  # type: ignore[union-attr]
                sock.sendto(b"welcome", (str(relayed.ip), relayed.port))
                await drive.until(lambda: drive.received)
                assert drive.received == [(peer, b"welcome")]
        assert "does not send to 127.0.0.1: it is not allowed to" in drive.client.refusal(ip_address("127.0.0.1"))

    world.run(body)


def test_a_forbidden_peer_gets_no_channel(world: World) -> None:
    world.start("--denied-peer-ip=10.0.2.0-10.0.2.255")

    async def body() -> None:
        async with world.connected() as drive:
            await drive.until(lambda: drive.client.state == "ready")
            drive.client.bind(address(PEER, 9), time.monotonic())
            await drive.until(lambda: any(isinstance(event, BindFailed) for event in drive.events))

    world.run(body)


@pytest.mark.parametrize("transport", ["udp", "tls"])
def test_a_wrong_secret_is_told(world: World, transport: str) -> None:
    world.start()

    async def body() -> None:
        async with world.connected(transport, secret="wrong") as drive:
            await drive.until(lambda: drive.client.state == "failed")
            (event,) = drive.events
            assert isinstance(event, Failed)
            assert event.final
            assert event.why.startswith("relay coturn does not accept the user name and password")

    world.run(body)


def test_a_nonce_that_has_run_out_is_exchanged(world: World) -> None:
    world.start("--stale-nonce=1")

    async def body() -> None:
        async with world.connected() as drive:
            await drive.until(lambda: drive.client.state == "ready")
            begun = time.monotonic()
            await drive.until(lambda: time.monotonic() > begun + 2.5)
            drive.client.bind(address(PEER, 9), time.monotonic())
            await drive.until(lambda: drive.client.channel_of(address(PEER, 9)))
            assert [type(event) for event in drive.events] == [Ready, Bound]

    world.run(body)
    world.relay.wait_for(lambda: "error 438" in world.coturn.output())


def test_a_quota_that_is_used_up_is_told(world: World) -> None:
    world.start("--user-quota=1")

    async def body() -> None:
        async with world.connected() as first, world.connected() as second:
            await first.until(lambda: first.client.state == "ready")
            await second.until(lambda: second.client.state == "failed")
            assert "as many relayed addresses as its quota allows" in second.client.why

    world.run(body)


def test_what_an_earlier_run_left_on_the_same_port_is_replaced(world: World) -> None:
    world.start()

    async def body() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        async with world.connected(port=port) as first:
            await first.until(lambda: first.client.state == "ready")
            left = first.client.relayed
            first.client.close = lambda now: None  # type: ignore[method-assign]
            first.flush = lambda: None  # type: ignore[method-assign]
        async with world.connected(port=port) as second:
            await second.until(lambda: second.client.state == "ready")
            assert second.client.relayed != left
            assert [type(event) for event in second.events][-1] is Ready

    world.run(body)


def test_a_relay_that_was_restarted_is_found_again(world: World) -> None:
    world.start()
    peer = address(PEER, 9)

    async def body() -> None:
        async with world.connected() as drive:
            await drive.until(lambda: drive.client.state == "ready")
            drive.client.bind(peer, time.monotonic())
            await drive.until(lambda: drive.client.channel_of(peer))
            world.coturn.kill()
            world.start()
            drive.client.check(time.monotonic())
            await drive.until(lambda: len(drive.events) >= 5)
            assert [type(event) for event in drive.events] == [Ready, Bound, Lost, Ready, Bound]

    world.run(body)


needs_squid = pytest.mark.skipif(shutil.which("squid") is None, reason="not installed: squid")


def behind_squid(world: World, lab: Lab, *allowed_ports: int) -> Proxy:
    """Squid on a host between the client and the relay, where the client's own connections get nowhere."""
    middle = lab.host("proxy")
    lab.link(world.client, middle, "10.0.9.2/24", "10.0.9.1/24", interfaces=("eth9", "eth0"))
    lab.link(world.relay, middle, "10.0.8.1/24", "10.0.8.2/24", interfaces=("eth9", "eth1"))
    middle.route("10.0.1.0/24", via="10.0.8.1")
    world.relay.nft(
        f"table inet only {{\nchain in {{\ntype filter hook input priority 0\nip saddr {CLIENT} drop\n}}\n}}\n"
    )
    start_proxy(middle, "10.0.9.1", port=3128, allowed_ports=allowed_ports)
    return Proxy("10.0.9.1", 3128)


@needs_squid
def test_tls_goes_through_squid(world: World, lab: Lab) -> None:
    proxy = behind_squid(world, lab, TLS_PORT)
    world.start()

    async def body() -> None:
        async with world.connected("tls", proxy=proxy) as drive:
            await both_ways(world, drive)

    world.run(body)


@needs_squid
def test_what_squid_refuses_is_told(world: World, lab: Lab) -> None:
    proxy = behind_squid(world, lab, 443)

    async def body() -> None:
        async with world.connected("tls", proxy=proxy):
            pass

    with pytest.raises(
        OperationFailed, match=r"the proxy 10\.0\.9\.1:3128 refuses to connect to 10\.0\.1\.1:5349 \(403"
    ):
        world.run(body)


@needs_squid
def test_a_relay_that_squid_cannot_reach_is_told(world: World, lab: Lab) -> None:
    proxy = behind_squid(world, lab, TLS_PORT)

    async def body() -> None:
        async with world.connected("tls", proxy=proxy):
            pass

    with pytest.raises(Unreachable, match=r"the proxy 10\.0\.9\.1:3128 cannot reach 10\.0\.1\.1:5349 \(503"):
        world.run(body)
