from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.model.tunnel import TransportAddress
from warren.proto.stun.behaviour import SEQUENTIAL_STEP_MAX, allocation_of, mapping_of


def at(ip: str, port: int) -> TransportAddress:
    return TransportAddress(ip_address(ip), port)


LOCAL = at("192.168.1.2", 5000)
ONE, SAME_IP, OTHER = at("198.51.100.1", 3478), at("198.51.100.1", 3479), at("198.51.100.2", 3478)


def outer(port: int) -> TransportAddress:
    return at("203.0.113.1", port)


@pytest.mark.parametrize(
    ("seen", "mapping"),
    [
        ({}, None),
        ({ONE: LOCAL}, "eim"),  # no NAT
        ({ONE: outer(1)}, None),
        ({ONE: outer(1), SAME_IP: outer(1)}, None),
        ({ONE: outer(1), OTHER: outer(1)}, "eim"),
        ({ONE: outer(1), SAME_IP: outer(1), OTHER: outer(2)}, "adm"),
        ({ONE: outer(1), SAME_IP: outer(2), OTHER: outer(3)}, "apdm"),
        ({ONE: outer(1), OTHER: outer(2)}, "apdm"),  # or the other: nobody asked
    ],
)
def test_the_mapping_follows_from_where_each_destination_sees_a_socket(
    seen: dict[TransportAddress, TransportAddress], mapping: str | None
) -> None:
    assert mapping_of(seen, LOCAL) == mapping


@pytest.mark.parametrize(
    ("ports", "second", "allocation"),
    [
        ((), None, None),
        ((5000, 5000), None, "preserving"),
        ((7000,), None, None),
        ((7000,), 7001, "sequential"),
        ((7000, 7000 + SEQUENTIAL_STEP_MAX), None, "sequential"),
        ((7000, 7001 + SEQUENTIAL_STEP_MAX), None, "random"),
        ((7002, 7000, 7001), None, "sequential"),
    ],
)
def test_the_allocation_follows_from_the_outer_ports(
    ports: tuple[int, ...], second: int | None, allocation: str | None
) -> None:
    other = None if second is None else outer(second)
    assert allocation_of([outer(port) for port in ports], other, LOCAL) == allocation
