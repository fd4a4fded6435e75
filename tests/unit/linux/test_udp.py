"""The UDP port carries trains over loopback: segmented and gathered by the kernel, or one by one where it refuses."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from warren.errors import OperationFailed
from warren.linux.udp import Received, UdpSocket
from warren.linux.udp_port import UdpPort
from warren.proto.wireguard.addresses import through_channel, through_socket, unpack_local

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
FAMILIES = pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])


@pytest.fixture
def ports() -> Iterator[tuple[UdpPort, UdpPort]]:
    a, b = UdpPort.open(0), UdpPort.open(0)
    yield a, b
    a.close()
    b.close()


def socket_of(port: UdpPort, family: socket.AddressFamily) -> UdpSocket:
    return next(sock for sock in port.sockets if sock.family == family)


def address_of(port: UdpPort, family: socket.AddressFamily) -> tuple[object, ...]:
    return (LOOPBACK[family], port.port) if family == socket.AF_INET else (LOOPBACK[family], port.port, 0, 0)


def receive_all(sock: UdpSocket, total: int) -> list[tuple[Received, bytes]]:
    """Receive until ``total`` bytes have come; every wait is for the kernel and bounded."""
    trains: list[tuple[Received, bytes]] = []
    buffer = bytearray(65536)
    while sum(received.length for received, _ in trains) < total:
        assert select.select([sock], [], [], 5)[0], f"only {trains} came"
        received = sock.receive_into(buffer)
        assert received is not None
        trains.append((received, bytes(buffer[: received.length])))
    return trains


def datagrams(trains: list[tuple[Received, bytes]]) -> list[bytes]:
    return [data[at : at + train.stride] for train, data in trains for at in range(0, train.length, train.stride)]


@FAMILIES
@pytest.mark.parametrize(
    ("count", "stride", "last"), [(1, 148, 148), (45, 1452, 1452), (45, 1452, 100), (200, 96, 96), (100, 1400, 7)]
)
def test_a_train_arrives_as_the_same_datagrams(
    ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily, count: int, stride: int, last: int
) -> None:
    sender, receiver = ports
    sent = [bytes([n]) * (stride if n < count - 1 else last) for n in range(count)]
    train = b"".join(sent)
    assert sender.send(memoryview(train), stride, address_of(receiver, family), b"", 0) == 0
    assert datagrams(receive_all(socket_of(receiver, family), len(train))) == sent


@FAMILIES
def test_a_train_crosses_in_one_call_each_where_the_kernel_can(
    ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily
) -> None:
    sender, receiver = ports
    if not (socket_of(sender, family).segments and socket_of(receiver, family).gathers):
        pytest.skip("this kernel has no UDP segmentation or gathering")
    sender.send(b"x" * 1452 * 40, 1452, address_of(receiver, family), b"", 0)
    ((received, _),) = receive_all(socket_of(receiver, family), 1452 * 40)
    assert (received.length, received.stride) == (1452 * 40, 1452)


@FAMILIES
def test_without_segmentation_the_datagrams_go_one_by_one(
    ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily
) -> None:
    sender, receiver = ports
    socket_of(sender, family).segments = False
    train = bytes(range(256)) * 5
    assert sender.send(train, 256, address_of(receiver, family), b"", 0) == 0
    assert datagrams(receive_all(socket_of(receiver, family), len(train))) == [bytes(range(256))] * 5


@FAMILIES
@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_the_ecn_bits_and_the_local_address_come_with_a_train(
    ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily, ecn: int
) -> None:
    sender, receiver = ports
    sender.send(b"question", 8, address_of(receiver, family), b"", ecn)
    ((received, data),) = receive_all(socket_of(receiver, family), 8)
    assert (data, received.ecn) == (b"question", ecn)
    # the answer leaves from the address the question was sent to
    assert receiver.send(b"answer", 6, received.source, received.local, 0) == 0
    ((answer, _),) = receive_all(socket_of(sender, family), 6)
    assert answer.source[:2] == (LOOPBACK[family], receiver.port)


def test_answers_leave_from_the_address_that_was_asked(ports: tuple[UdpPort, UdpPort]) -> None:
    sender, receiver = ports
    sender.send(b"question", 8, ("127.0.0.5", receiver.port), b"", 0)
    ((received, _),) = receive_all(socket_of(receiver, socket.AF_INET), 8)
    receiver.send(b"answer", 6, received.source, received.local, 0)
    ((answer, _),) = receive_all(socket_of(sender, socket.AF_INET), 6)
    assert answer.source == ("127.0.0.5", receiver.port)


def test_a_source_address_that_is_gone_is_an_errno(ports: tuple[UdpPort, UdpPort]) -> None:
    sender, receiver = ports
    gone = bytes(4) + socket.inet_aton("203.0.113.9") + bytes(4)
    for train in (b"x", b"xy"):
        error = sender.send(train, 1, address_of(receiver, socket.AF_INET), gone, 0)
        assert error in (errno.EINVAL, errno.ENETUNREACH)  # which of them depends on the route


def test_both_families_have_the_same_port(ports: tuple[UdpPort, UdpPort]) -> None:
    for port in ports:
        assert {sock.port for sock in port.sockets} == {port.port}


def test_a_taken_port_is_refused_with_what_to_do(ports: tuple[UdpPort, UdpPort]) -> None:
    with pytest.raises(OperationFailed, match=rf"UDP port {ports[0].port} is taken: .*ListenPort"):
        UdpPort.open(ports[0].port)


def test_nothing_to_receive_is_none(ports: tuple[UdpPort, UdpPort]) -> None:
    assert socket_of(ports[0], socket.AF_INET).receive_into(bytearray(65536)) is None


@FAMILIES
def test_the_arrival_says_which_interface_it_was(ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily) -> None:
    sender, receiver = ports
    sender.send(b"x", 1, address_of(receiver, family), b"", 0)
    ((received, _),) = receive_all(socket_of(receiver, family), 1)
    assert unpack_local(received.arrival) == (ip_address(LOOPBACK[family]), socket.if_nametoindex("lo"))
    assert unpack_local(received.local) == (ip_address(LOOPBACK[family]), 0)


@FAMILIES
def test_a_train_through_a_channel_is_wrapped(ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily) -> None:
    sender, receiver = ports
    train = b"a" * 100 + b"b" * 100 + b"c"
    behind = through_channel(address_of(receiver, family), 0x4002)
    assert sender.send(memoryview(train), 100, behind, b"", 0) == 0
    found = datagrams(receive_all(socket_of(receiver, family), len(train) + 12))
    assert found == [b"\x40\x02\0\x64" + b"a" * 100, b"\x40\x02\0\x64" + b"b" * 100, b"\x40\x02\0\1c"]


@FAMILIES
def test_a_detour_by_a_socket_leaves_from_it(ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily) -> None:
    sender, receiver = ports
    other = UdpSocket.bound(family, 0, 0)
    sender.others = {3: other}
    try:
        for channel, sent in ((0, b"bare"), (0x4000, b"\x40\0\0\4bare")):
            address = (*through_socket(address_of(receiver, family), 3)[:4], channel, 3)
            assert sender.send(b"bare", 4, address, b"", 0) == 0
            ((received, data),) = receive_all(socket_of(receiver, family), len(sent))
            assert (received.source[1], data) == (other.port, sent)
    finally:
        other.close()


def test_a_detour_that_is_none_is_an_errno(ports: tuple[UdpPort, UdpPort]) -> None:
    sender, _ = ports
    other = UdpSocket.bound(socket.AF_INET, 0, 0)
    sender.others = {1: other}
    try:
        for address in (("127.0.0.1", 9, 0, 0, 0, 2), ("::1", 9, 0, 0, 0, 1)):
            assert sender.send(b"x", 1, address, b"", 0) == errno.EBADF
            assert sender.send_whole(b"x", address, b"") == errno.EBADF
    finally:
        other.close()


@FAMILIES
def test_a_whole_datagram_arrives_as_it_is(ports: tuple[UdpPort, UdpPort], family: socket.AddressFamily) -> None:
    sender, receiver = ports
    assert sender.send_whole(b"p" * 2000, address_of(receiver, family), b"") == 0
    assert sender.send_whole(b"p" * 2000, through_channel(address_of(receiver, family), 0x4001), b"") == 0
    found = datagrams(receive_all(socket_of(receiver, family), 4004))
    assert found == [b"p" * 2000, b"\x40\x01\x07\xd0" + b"p" * 2000]


def test_what_does_not_fit_whole_is_an_errno_and_the_next_is_fragmented_again(ports: tuple[UdpPort, UdpPort]) -> None:
    sender, receiver = ports
    beyond_loopback, address = b"p" * 65500, address_of(receiver, socket.AF_INET6)
    assert sender.send_whole(beyond_loopback, address, b"") == errno.EMSGSIZE
    assert sender.send(beyond_loopback, 65500, address, b"", 0) == 0
    assert datagrams(receive_all(socket_of(receiver, socket.AF_INET6), 65500)) == [beyond_loopback]
