from __future__ import annotations

import asyncio
from ipaddress import IPv6Network, ip_address

import pytest

from warren.errors import OperationFailed
from warren.linux.nat64 import discover_nat64
from warren.model.tunnel import TransportAddress


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["64:ff9b::192.0.0.170", "192.0.0.170"], IPv6Network("64:ff9b::/96")),
        (["192.0.0.171", "2001:db8:1:2:c0:0:aa00:0"], IPv6Network("2001:db8:1:2::/64")),
        (["192.0.0.170", "192.0.0.171"], None),
        (["::ffff:192.0.0.170"], None),
        (["2001:db8::bad"], None),
    ],
)
def test_the_prefix_is_read_out_of_the_answer(answers: list[str], expected: IPv6Network | None) -> None:
    async def resolver(name: str, port: int) -> tuple[TransportAddress, ...]:
        assert name == "ipv4only.arpa"
        return tuple(TransportAddress(ip_address(text), port) for text in answers)

    assert asyncio.run(discover_nat64(resolver)) == expected


def test_a_name_server_that_does_not_know_the_name_means_no_nat64() -> None:
    async def resolver(name: str, port: int) -> tuple[TransportAddress, ...]:
        raise OperationFailed("ipv4only.arpa cannot be resolved")

    assert asyncio.run(discover_nat64(resolver)) is None
