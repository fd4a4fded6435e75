from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from warren.doctor.mtu import SIZES, PathMtu
from warren.model.tunnel import TransportAddress
from warren.proto.stun.message import decode_untrusted
from warren.proto.stun.server import BindingServer

SERVER4 = TransportAddress(IPv4Address("203.0.113.1"), 3478)
SERVER6 = TransportAddress(IPv6Address("2001:db8::1"), 3478)


def measured(server: TransportAddress, mtu: int) -> int | None:
    """What is found on a path that carries packets of ``mtu`` bytes and drops longer ones."""
    numbers = iter(range(1, 1000))
    machine = PathMtu(server, lambda count: next(numbers).to_bytes(count), 0.0)
    answering = BindingServer()
    now = 0.0
    for _ in range(100):
        for transmit in machine.take_transmits():
            if len(transmit.data) + (28 if server.ip.version == 4 else 48) <= mtu:
                reply = answering.answer(decode_untrusted(transmit.data), server, server, now)
                assert reply is not None
                machine.receive(reply.data, reply.source, 0, now)
        deadline = machine.next_deadline()
        if deadline is None:
            break
        now = deadline.at
        machine.handle_timeout(now)
    assert machine.done
    return machine.largest


@pytest.mark.parametrize("server", [SERVER4, SERVER6])
@pytest.mark.parametrize(
    ("mtu", "found"), [(9000, 1500), (1500, 1500), (1499, 1492), (1400, 1400), (1279, None), (1280, 1280)]
)
def test_the_longest_packet_that_is_answered_is_found(server: TransportAddress, mtu: int, found: int | None) -> None:
    assert measured(server, mtu) == found


@pytest.mark.parametrize(("server", "headers"), [(SERVER4, 28), (SERVER6, 48)])
def test_the_requests_have_exactly_the_sizes_and_are_valid(server: TransportAddress, headers: int) -> None:
    numbers = iter(range(1, 1000))
    machine = PathMtu(server, lambda count: next(numbers).to_bytes(count), 0.0)
    requests = [transmit.data for transmit in machine.take_transmits()]
    assert sorted(len(data) + headers for data in requests) == list(SIZES)
    for data in requests:
        assert all(len(value) <= 763 for _, value in decode_untrusted(data).attributes)


def test_strangers_answers_do_not_count() -> None:
    machine = PathMtu(SERVER4, bytes, 0.0)
    assert not machine.receive(b"nothing of STUN", SERVER4, 0, 0.0)
    assert machine.largest is None
