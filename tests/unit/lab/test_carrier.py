"""The process of an impaired link, with socket pairs in place of TUN devices."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from warren.lab.carrier import MESSAGE_BYTES_MAX, carry, decode_answer, encode_request
from warren.lab.direction import Counters, Direction
from warren.lab.impairment import Impairment

PACKET = b"\x45" + bytes(19) + b"payload"


@dataclass
class Ends:
    left: socket.socket
    right: socket.socket
    control: socket.socket

    def ask(self, forth: Impairment | None = None, back: Impairment | None = None) -> tuple[Counters, Counters]:
        self.control.send(encode_request((forth, back)))
        return decode_answer(self.control.recv(MESSAGE_BYTES_MAX))


@contextmanager
def carrier() -> Iterator[Ends]:
    """A running carrier without faults; it must end when its control socket closes."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    (left, inner_left), (right, inner_right), (control, inner_control) = pairs
    inner_left.setblocking(False)
    inner_right.setblocking(False)
    directions = Direction(Impairment(), "forth"), Direction(Impairment(), "back")
    tuns = inner_left.fileno(), inner_right.fileno()
    thread = threading.Thread(target=carry, args=(tuns, directions, inner_control))
    thread.start()
    for end in (left, right, control):
        end.settimeout(10)
    try:
        yield Ends(left, right, control)
    finally:
        control.close()
        thread.join(10)
        ended = not thread.is_alive()
        for near, far in pairs:
            near.close()
            far.close()
    assert ended


def test_packets_pass_both_ways_and_are_counted() -> None:
    with carrier() as ends:
        ends.left.send(PACKET)
        assert ends.right.recv(100) == PACKET
        ends.right.send(PACKET[:24])
        assert ends.left.recv(100) == PACKET[:24]
        forth, back = ends.ask()
        assert (forth.received, forth.transmitted, back.received, back.transmitted) == (1, 1, 1, 1)


def test_a_request_changes_only_the_directions_it_names() -> None:
    with carrier() as ends:
        ends.ask(forth=Impairment(loss=1))
        ends.left.send(PACKET)
        ends.right.send(PACKET)
        assert ends.left.recv(100) == PACKET
        ends.ask(forth=Impairment(mtu_drop=len(PACKET)))
        ends.left.send(PACKET)
        assert ends.right.recv(100) == PACKET
        forth, back = ends.ask()
        assert (forth.lost, forth.transmitted, back.lost) == (1, 1, 0)


def test_a_delayed_packet_comes_out_without_another_to_push_it() -> None:
    with carrier() as ends:
        ends.ask(forth=Impairment(delay_s=0.001, duplicate=1))
        ends.left.send(PACKET)
        assert [ends.right.recv(100) for _ in range(2)] == [PACKET, PACKET]
