"""IP addresses as they are compared, and as they are written with a port."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.model.ip import join_host_port, unmapped


def test_an_ipv4_address_is_the_same_however_a_socket_writes_it() -> None:
    assert unmapped(ip_address("::ffff:192.0.2.7")) == ip_address("192.0.2.7")
    for same in ("192.0.2.7", "2001:db8::7", "::7"):
        assert unmapped(ip_address(same)) == ip_address(same)


@pytest.mark.parametrize(
    ("host", "text"), [("192.0.2.7", "192.0.2.7:80"), ("host.example", "host.example:80"), ("fd00::7", "[fd00::7]:80")]
)
def test_only_ipv6_addresses_are_written_in_brackets(host: str, text: str) -> None:
    assert join_host_port(host, 80) == text
