"""Name resolution: preference among addresses, link-local zones, and failures with their reason."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

import pytest

from warren.errors import OperationFailed
from warren.linux.names import resolve, sort_by_preference
from warren.model.tunnel import TransportAddress

V6, OTHER_V6, V4, OTHER_V4 = (
    TransportAddress(ip_address(text), 1) for text in ("2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2")
)


@pytest.mark.parametrize(
    ("given", "reachable", "sorted_"),
    [
        ([V4, V6], [True, True], [V6, V4]),
        ([V6, V4], [False, True], [V4, V6]),
        ([V4, OTHER_V4, V6, OTHER_V6], [True, True, True, False], [V6, V4, OTHER_V4, OTHER_V6]),
        ([OTHER_V6, V6], [True, True], [OTHER_V6, V6]),
        ([], [], []),
    ],
)
def test_reachable_ones_first_and_of_those_ipv6(
    given: list[TransportAddress], reachable: list[bool], sorted_: list[TransportAddress]
) -> None:
    assert sort_by_preference(given, reachable) == sorted_


def test_an_address_resolves_to_itself() -> None:
    assert asyncio.run(resolve("192.0.2.7", 51820)) == (TransportAddress(ip_address("192.0.2.7"), 51820),)


def test_a_zone_becomes_the_index_of_its_interface() -> None:
    index = socket.if_nametoindex("lo")
    for zone in ("lo", str(index)):
        assert asyncio.run(resolve("fe80::1", 5, zone)) == (TransportAddress(ip_address("fe80::1"), 5, index),)


def test_a_zone_without_interface_is_said() -> None:
    with pytest.raises(OperationFailed, match="there is no interface absent0 for a link-local endpoint"):
        asyncio.run(resolve("fe80::1", 5, "absent0"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [(socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "Temporary failure"), (UnicodeError("x"), "not a host")],
)
def test_a_name_that_does_not_resolve_is_said(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OperationFailed, match=rf"vpn\.example\.net cannot be resolved \({reason}"):
        asyncio.run(resolve("vpn.example.net", 5))
