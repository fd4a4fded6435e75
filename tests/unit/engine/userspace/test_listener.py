"""The data plane's end of the control port, driven by a bare socket: nonsense costs nothing and leaves nothing."""

from __future__ import annotations

import os
import random
import select
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.engine.base import SOCKETS_MAX
from warren.engine.userspace import places
from warren.engine.userspace.listener import MESSAGES_PER_TURN, Listener
from warren.engine.userspace.sockets import Sockets
from warren.identity.keys import PrivateKey, PublicKey
from warren.linux import peers
from warren.linux.udp_port import UdpPort
from warren.model.datagrams import ControlDatagram, PathWanted
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange, Way
from warren.proto.control_port import MESSAGE_BYTES_MAX, HandOver, Hello, Message, TakeBack, pack, unpack_untrusted
from warren.proto.stun.message import Class, Method, encode
from warren.proto.wireguard.device import Device

STUN = encode(Method.BINDING, Class.REQUEST, bytes(12), [])
PEER = PublicKey(b"\7" * 32)


class Plane:
    """What a data plane gives to its listener, and its loop by hand."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self.device = Device(random=random.Random(1).randbytes, wall_clock_ns=lambda: 10**18)
        self.device.configure(TunnelChange(private_key=PrivateKey(b"\1" * 32)), 0.0)
        self.sockets = Sockets(self.poller)
        self.sockets.use(UdpPort.open(0))
        self.counters: Counter[str] = Counter()
        self.listener = Listener("wg0", self.poller, self.device, self.sockets, lambda: 0, self.counters)
        self._controllers: list[socket.socket] = []

    def turn(self) -> None:
        for fd, _ in self.poller.poll(0):
            if self.listener.owns(fd):
                self.listener.handle(fd)

    def connect(self) -> socket.socket:
        """A controller that was greeted."""
        controller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._controllers.append(controller)
        controller.settimeout(5)
        controller.connect(str(self.listener.path))
        self.turn()
        return controller

    def hear(self, controller: socket.socket) -> Message:
        return unpack_untrusted(controller.recv(MESSAGE_BYTES_MAX + 1))

    def close(self) -> None:
        self.listener.close()
        self.sockets.close()
        self.poller.close()
        for controller in self._controllers:
            controller.close()


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    monkeypatch.setattr(places, "SOCKET_DIRECTORY", tmp_path / "wireguard")
    made = Plane()
    yield made
    made.close()


def udp(family: socket.AddressFamily = socket.AF_INET, *, bind: bool = True, both: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
    if bind:
        sock.bind(("", 0))
    return sock


def test_its_socket_is_for_the_owner_only_and_goes_with_it(plane: Plane) -> None:
    path = plane.listener.path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert path.suffix != ".sock", "wg would take it for an interface"
    plane.listener.close()
    assert not path.exists()


def test_a_process_of_another_user_is_turned_away(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    first = plane.connect()
    assert plane.hear(first) == Hello(())
    monkeypatch.setattr(peers, "peer_of", lambda _: peers.Peer(1, os.geteuid() + 1))
    stranger = plane.connect()
    assert stranger.recv(1) == b""
    assert plane.device.control.listening, "and does not take the place of the controller"


def test_a_controller_is_greeted_and_its_going_is_noticed(plane: Plane) -> None:
    controller = plane.connect()
    assert plane.hear(controller) == Hello(())
    assert plane.device.control.listening
    controller.close()
    plane.turn()
    assert not plane.device.control.listening


def test_the_next_controller_takes_the_place_and_hears_which_sockets_there_are(plane: Plane) -> None:
    first = plane.connect()
    with udp() as sock:
        socket.send_fds(first, [pack(HandOver(3))], [sock.fileno()])
    plane.turn()
    second = plane.connect()
    assert plane.hear(second) == Hello((3,))
    assert plane.hear(first) == Hello(())
    assert first.recv(1) == b""
    plane.listener.tell(PathWanted(PEER))
    assert plane.hear(second) == PathWanted(PEER)


def test_what_it_is_told_is_sent_as_it_is(plane: Plane) -> None:
    controller = plane.connect()
    with udp() as there:
        there.settimeout(5)
        remote = TransportAddress(ip_address("127.0.0.1"), there.getsockname()[1])
        controller.send(pack(ControlDatagram(STUN, remote, dont_fragment=True)))
        controller.send(pack(ControlDatagram(STUN, remote, Way(channel=0x4001))))
        plane.turn()
        port = plane.sockets.port
        assert port is not None
        assert there.recvfrom(100) == (STUN, ("127.0.0.1", port.port))
        assert there.recv(100) == b"\x40\x01\0\x14" + STUN


def test_what_cannot_be_sent_is_counted(plane: Plane) -> None:
    controller = plane.connect()
    remote = TransportAddress(ip_address("127.0.0.1"), 9)
    for datagram in (
        ControlDatagram(b"", remote),
        ControlDatagram(STUN, remote, Way(channel=7)),
        ControlDatagram(STUN, remote, Way(ip_address("::1"))),
        ControlDatagram(STUN, remote, Way(socket=5)),
        ControlDatagram(STUN, remote, Way(socket=5), dont_fragment=True),
        ControlDatagram(STUN, remote, Way(ip_address("203.0.113.77"))),
    ):
        controller.send(pack(datagram))
    plane.turn()
    plane.sockets.use(None)
    controller.send(pack(ControlDatagram(STUN, remote)))
    plane.turn()
    assert plane.counters["control_unsent"] == 7


def test_nonsense_is_passed_over_and_descriptors_with_it_are_closed(plane: Plane) -> None:
    controller = plane.connect()
    plane.hear(controller)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with udp() as sock:
        for message in (b"x", bytes(300), pack(Hello((1,))), pack(PathWanted(PEER)), pack(TakeBack(1))):
            socket.send_fds(controller, [message], [sock.fileno()])
        socket.send_fds(controller, [pack(HandOver(1))], [sock.fileno()] * 2)
        controller.send(pack(HandOver(1)))
        plane.turn()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert plane.sockets.others == {}
    assert plane.device.control.listening, "it is still there"


def test_only_bound_udp_sockets_of_one_family_are_taken_over(plane: Plane) -> None:
    controller = plane.connect()
    good = [udp(), udp(socket.AF_INET6)]
    bad = [udp(bind=False), udp(socket.AF_INET6, both=True), socket.socket(), socket.socket(socket.AF_UNIX)]
    for number, sock in enumerate([*good, *bad], 1):
        with sock:
            socket.send_fds(controller, [pack(HandOver(number))], [sock.fileno()])
    for number in (0, 1, SOCKETS_MAX + 1):  # one that cannot be, one that is taken
        with udp() as sock:
            socket.send_fds(controller, [pack(HandOver(number))], [sock.fileno()])
    plane.turn()
    assert sorted(plane.sockets.others) == [1, 2]
    controller.send(pack(TakeBack(1)))
    controller.send(pack(TakeBack(7)))
    plane.turn()
    assert sorted(plane.sockets.others) == [2]


def test_sockets_that_no_peer_needs_go_with_the_controller(plane: Plane) -> None:
    controller = plane.connect()
    for number in (1, 2):
        with udp() as sock:
            socket.send_fds(controller, [pack(HandOver(number))], [sock.fileno()])
    plane.turn()
    where = TransportAddress(ip_address("127.0.0.1"), 9)
    plane.device.configure(TunnelChange(peers=(PeerChange(PEER, endpoint=where, way=Way(socket=2)),)), 0.0)
    controller.close()
    plane.turn()
    assert sorted(plane.sockets.others) == [2]
    assert set(plane.sockets.by_fd) == {sock.fileno() for sock, _ in plane.sockets.by_fd.values()}


def test_a_controller_that_does_not_read_costs_messages_and_not_time(plane: Plane) -> None:
    controller = plane.connect()
    longest = ControlDatagram(bytes(2048), TransportAddress(ip_address("127.0.0.1"), 9))
    for _ in range(10_000):
        plane.listener.tell(longest)
    assert plane.counters["control_told_too_fast"] > 0
    assert plane.hear(controller) == Hello(())
    assert plane.hear(controller) == longest


def test_a_controller_that_sends_without_end_is_served_a_bounded_number_at_a_time(plane: Plane) -> None:
    controller = plane.connect()
    controller.setblocking(False)  # with a timeout, Python waits until a quarter of the buffer is free
    uncarriable = pack(ControlDatagram(b"", TransportAddress(ip_address("127.0.0.1"), 9)))
    for _ in range(MESSAGES_PER_TURN + 10):
        controller.send(uncarriable)
    plane.turn()
    assert plane.counters["control_unsent"] == MESSAGES_PER_TURN
    plane.turn()
    assert plane.counters["control_unsent"] == MESSAGES_PER_TURN + 10


def test_telling_nobody_is_nothing(plane: Plane) -> None:
    plane.listener.tell(PathWanted(PEER))
    controller = plane.connect()
    controller.close()
    plane.listener.tell(PathWanted(PEER))
    plane.listener.tell(PathWanted(PEER))
    assert not plane.device.control.listening
