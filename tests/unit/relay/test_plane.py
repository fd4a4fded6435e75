"""The relay with real sockets on loopback: every way data takes, and that it ends where it should."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest

from tests.support.relays import (
    CONFIG,
    PEER,
    RELAY,
    StreamClient,
    UdpClient,
    channel_data,
    running,
    udp_socket,
)
from tests.support.turn_clients import data_of, error_of, place, send_indication
from warren.errors import OperationFailed, UsageError
from warren.model.tunnel import TransportAddress
from warren.relay.plane import Plane

AnyClient = UdpClient | StreamClient
_SOL_UDP, _UDP_SEGMENT = 17, 103


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    with running(tcp_port=0, tls_port=0, state=tmp_path) as made:
        yield made


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with udp_socket(PEER) as sock:
        yield sock


@contextlib.contextmanager
def client_of(plane: Plane, transport: str, username: str = "u") -> Iterator[AnyClient]:
    made: AnyClient
    if transport == "udp":
        made = UdpClient(plane.udp_port or 0, username)
    else:
        port = plane.tls_port if transport == "tls" else plane.tcp_port
        made = StreamClient(port or 0, username, tls=transport == "tls")
    try:
        yield made
    finally:
        made.close()


def receive(client: AnyClient) -> bytes:
    return client.receive() if isinstance(client, StreamClient) else client.sock.recv(65536)


def where(sock: socket.socket) -> TransportAddress:
    host, port = sock.getsockname()
    return place(host, port)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_data_goes_out_and_in_by_channel_and_by_indication(plane: Plane, peer: socket.socket, transport: str) -> None:
    with client_of(plane, transport) as client:
        relayed = client.relayed()
        assert error_of(client.permit(where(peer))) == 0
        client.sock.send(send_indication(where(peer), b"by indication"))
        data, source = peer.recvfrom(2048)
        assert (data, source) == (b"by indication", (RELAY, relayed.port))
        peer.sendto(b"and back", source)
        assert data_of(receive(client)) == (where(peer), b"and back")
        assert error_of(client.bind(0x4001, where(peer))) == 0
        client.sock.send(channel_data(0x4001, b"by channel", padded=True))
        assert peer.recv(2048) == b"by channel"
        peer.sendto(b"back!", source)
        assert receive(client) == channel_data(0x4001, b"back!")
        peer.sendto(b"", source)
        assert receive(client) == channel_data(0x4001, b"")


@pytest.mark.parametrize("second", ["udp", "tcp"])
@pytest.mark.parametrize("first", ["udp", "tls"])
def test_two_clients_of_one_relay_reach_each_other(plane: Plane, first: str, second: str) -> None:
    with client_of(plane, first) as a, client_of(plane, second, "v") as b:
        of_a, of_b = a.relayed(), b.relayed()
        assert error_of(a.bind(0x4001, of_b)) == 0
        a.sock.send(channel_data(0x4001, b"not permitted", padded=True))
        assert error_of(a.refresh(600)) == 0, "the relay has seen it"
        assert error_of(b.permit(of_a)) == 0
        a.sock.send(channel_data(0x4001, b"permitted", padded=True))
        assert data_of(receive(b)) == (of_a, b"permitted")
        assert error_of(b.bind(0x4FFF, of_a)) == 0
        a.sock.send(channel_data(0x4001, b"by channel..", padded=True))
        assert receive(b) == channel_data(0x4FFF, b"by channel..")
        b.sock.send(channel_data(0x4FFF, b"and answered", padded=True))
        assert receive(a) == channel_data(0x4001, b"and answered")


@pytest.mark.parametrize("bound", [False, True], ids=["by indication", "by channel"])
@pytest.mark.parametrize("size", [65_505, 65_535])
def test_what_is_longer_than_any_datagram_is_lost_and_nothing_else_happens(
    plane: Plane, peer: socket.socket, size: int, bound: bool
) -> None:
    """Only a stream can carry such frames; they come one behind the other, as a train."""
    frames = channel_data(0x4001, bytes(size), padded=True) * 3
    with client_of(plane, "tcp") as a, client_of(plane, "udp", "v") as b:
        of_a, of_b = a.relayed(), b.relayed()
        assert error_of(a.bind(0x4001, of_b)) == 0
        assert error_of(b.bind(0x4002, of_a) if bound else b.permit(of_a)) == 0
        a.sock.sendall(frames)
        assert error_of(a.bind(0x4002, where(peer))) == 0
        a.sock.sendall(channel_data(0x4002, bytes(size), padded=True) * 3)
        a.sock.sendall(channel_data(0x4002, b"after it", padded=True))
        while (got := peer.recv(65_536)) != b"after it":
            assert len(got) == size
        assert error_of(b.refresh(600)) == 0, "the relay lives"


def test_trains_arrive_whole_and_in_order(plane: Plane, peer: socket.socket) -> None:
    rng = random.Random(1)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    with client_of(plane, "udp") as client, client_of(plane, "udp", "v") as other:
        relayed = client.relayed()
        client.bind(0x4001, where(peer))
        client.bind(0x4002, other.relayed())
        other.bind(0x4003, relayed)
        for size, last in ((1000, 1000), (100, 3), (1200, 1), (7, 7)):
            payloads = [rng.randbytes(size) for _ in range(20)] + [rng.randbytes(last)]
            for number in (0x4001, 0x4002):
                train = b"".join(channel_data(number, one) for one in payloads)
                client.sock.sendmsg([train], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size + 4))])
            assert [peer.recv(2048) for _ in payloads] == payloads
            assert [other.sock.recv(2048) for _ in payloads] == [channel_data(0x4003, one) for one in payloads]
            peer.sendmsg(
                [b"".join(payloads)], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))], 0, _sockaddr(relayed)
            )
            assert [client.sock.recv(2048) for _ in payloads] == [channel_data(0x4001, one) for one in payloads]


def test_a_burst_of_single_datagrams_keeps_its_order_and_its_sizes(plane: Plane, peer: socket.socket) -> None:
    rng = random.Random(2)
    with client_of(plane, "udp") as client:
        client.relayed()
        client.bind(0x4001, where(peer))
        payloads = [rng.randbytes(rng.choice([0, 1, 40, 40, 40, 40, 500, 500, 1200])) for _ in range(200)]
        for one in payloads:
            client.sock.send(channel_data(0x4001, one))
        assert [peer.recv(2048) for _ in payloads] == payloads


def test_one_train_may_hold_channels_and_messages(plane: Plane, peer: socket.socket) -> None:
    with client_of(plane, "udp") as client, udp_socket(PEER) as second:
        client.relayed()
        client.bind(0x4001, where(peer))
        client.bind(0x7001, where(second))
        refresh = client.packed(0x004)  # type: ignore[arg-type]
        size = len(refresh) - 4
        pieces = [channel_data(0x4001, bytes(size)), refresh, channel_data(0x7001, bytes(size))]
        client.sock.sendmsg([b"".join(pieces)], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size + 4))])
        assert peer.recv(2048) == second.recv(2048) == bytes(size)
        assert client.sock.recv(2048)[:2] == b"\x01\x04"
        second.sendto(b"old channels are served too", peer_of(client, second))
        assert client.sock.recv(2048) == channel_data(0x7001, b"old channels are served too")


def peer_of(client: AnyClient, peer: socket.socket) -> tuple[str, int]:
    """Where ``peer`` sees the client."""
    client.sock.send(channel_data(0x7001, b"?", padded=True))
    source: tuple[str, int] = peer.recvfrom(2048)[1]
    return source


def test_the_relays_own_ports_are_nobodys_peers(plane: Plane) -> None:
    with client_of(plane, "udp") as client, udp_socket(RELAY) as service:
        relayed = client.relayed()
        service.settimeout(0.2)
        assert error_of(client.bind(0x4001, where(service))) == 0, "another allocation could have this port later"
        client.sock.send(channel_data(0x4001, b"x"))
        client.sock.send(send_indication(where(service), b"x"))
        with pytest.raises(TimeoutError):
            service.recv(2048)
        client.bind(0x4002, relayed)
        client.sock.send(channel_data(0x4002, b"oneself"))
        assert client.sock.recv(2048) == channel_data(0x4002, b"oneself")
        assert plane.counters["nobody_there"] >= 1, "what came before"


def test_own_ports_that_the_operator_names_are_peers() -> None:
    with (
        udp_socket(RELAY) as service,
        running(own_ports=(service.getsockname()[1],)) as plane,
        client_of(plane, "udp") as client,
    ):
        relayed = client.relayed()
        client.bind(0x4001, where(service))
        client.sock.send(channel_data(0x4001, b"hello"))
        assert service.recvfrom(2048) == (b"hello", (RELAY, relayed.port))


def test_data_of_another_port_of_the_client_moves_nothing(plane: Plane, peer: socket.socket) -> None:
    with client_of(plane, "udp") as client, udp_socket() as thief:
        client.relayed()
        client.bind(0x4001, where(peer))
        thief.sendto(channel_data(0x4001, b"stolen"), (RELAY, plane.udp_port or 0))
        thief.sendto(send_indication(where(peer), b"stolen"), (RELAY, plane.udp_port or 0))
        client.sock.send(channel_data(0x4001, b"mine"))
        assert peer.recvfrom(2048)[0] == b"mine"


def test_who_is_struck_from_the_table_is_cut_off_at_once(plane: Plane, peer: socket.socket) -> None:
    with client_of(plane, "udp") as client, client_of(plane, "udp", "v") as other:
        for one in (client, other):
            one.relayed()
            one.bind(0x4001, where(peer))
        plane.set_users({"v": "q"})
        client.sock.send(channel_data(0x4001, b"cut off"))
        other.sock.send(channel_data(0x4001, b"still there"))
        assert peer.recv(2048) == b"still there"
        assert error_of(client.refresh(600)) == 401
        peer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            peer.recv(2048)
        assert len(plane.server.allocations) == 1


def test_a_client_that_gives_up_can_come_again(plane: Plane) -> None:
    with client_of(plane, "udp") as client:
        ports = set()
        for _ in range(20):
            ports.add(client.relayed().port)
            assert error_of(client.refresh(0)) == 0
        assert len(ports) > 1
        assert not plane.server.allocations


def test_the_end_of_a_connection_frees_what_it_had(plane: Plane, peer: socket.socket) -> None:
    with client_of(plane, "tls") as client:
        relayed = client.relayed()
        client.permit(where(peer))
    for _ in range(3000):
        if not plane.server.allocations:
            break
        time.sleep(0.01)  # the relay runs in another thread: there is nothing to wait on
    assert not plane.server.allocations
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind((RELAY, relayed.port))


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\0\3\xff\xfc" + bytes(16), b"\x16\3"])
def test_a_connection_that_speaks_something_else_is_ended(plane: Plane, garbage: bytes) -> None:
    with socket.create_connection((RELAY, plane.tcp_port or 0), timeout=20) as sock:
        sock.sendall(garbage)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""


def test_metrics_and_health() -> None:
    with running(metrics=TransportAddress(ip_address("127.0.0.1"), 0)) as plane, client_of(plane, "udp") as client:
        client.relayed()
        base = f"http://127.0.0.1:{plane.metrics_port}"
        page = httpx2.get(f"{base}/metrics").text
        assert "warren_relay_allocations 1\n" in page
        assert 'warren_relay_events_total{kind="allocations_made"} 1\n' in page
        assert httpx2.get(f"{base}/healthz").text == "ok\n"
        assert httpx2.get(f"{base}/else").status_code == 404
        assert httpx2.post(f"{base}/metrics").status_code == 405


def test_a_relay_that_drains_keeps_whom_it_has_and_lets_nobody_in(peer: socket.socket) -> None:
    with running(drain_s=60.0) as plane, client_of(plane, "udp") as client:
        client.relayed()
        client.bind(0x4001, where(peer))
        plane.stop("drain")
        client.sock.send(channel_data(0x4001, b"still served"))
        assert peer.recv(2048) == b"still served"
        with client_of(plane, "udp", "v") as late:
            assert error_of(late.allocate()) == 508
        assert not plane.is_healthy()


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with udp_socket() as taken, pytest.raises(OperationFailed, match=r"UDP port .* cannot be had"):
        Plane(replace(CONFIG, udp_port=taken.getsockname()[1]))
    with pytest.raises(UsageError, match="needs a certificate"):
        Plane(replace(CONFIG, tls_port=0))
    bad = tmp_path / "c.pem"
    bad.write_text("nothing")
    with pytest.raises(UsageError, match="cannot be used"):
        Plane(replace(CONFIG, tls_port=0, certificate=bad, key=bad))


def _sockaddr(address: TransportAddress) -> tuple[str, int]:
    return str(address.ip), address.port
