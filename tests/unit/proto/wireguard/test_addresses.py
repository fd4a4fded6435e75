"""Every form of a socket address stands for one place, and leads back to it."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.model.tunnel import PLAIN, TransportAddress, Way
from warren.proto.wireguard.addresses import (
    direct,
    pack_local,
    server_of,
    socket_address,
    through_channel,
    through_socket,
    transport_address,
    unpack_local,
    way_of,
    written,
)

V4, V6 = TransportAddress(ip_address("192.0.2.1"), 3478), TransportAddress(ip_address("fe80::1"), 3478, 3)
addresses = st.builds(TransportAddress, st.ip_addresses(v=4), st.integers(0, 65535)) | st.builds(
    TransportAddress,
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None and ip.scope_id is None),
    st.integers(0, 65535),
    st.integers(0, 99),
)
ways = st.builds(Way, channel=st.just(0) | st.integers(0x4000, 0x4FFF), socket=st.integers(0, 8))


@given(addresses, ways)
def test_an_endpoint_and_its_way_survive(endpoint: TransportAddress, way: Way) -> None:
    address = socket_address(endpoint, way)
    assert transport_address(address) == endpoint
    assert way_of(address) == way
    assert direct(address) == socket_address(endpoint)


@given(addresses, st.integers(0x4000, 0x4FFF), st.integers(1, 8))
def test_what_arrives_compares_equal_to_what_was_configured(
    endpoint: TransportAddress, channel: int, number: int
) -> None:
    plain = socket_address(endpoint)
    assert through_channel(plain, channel) == socket_address(endpoint, Way(channel=channel))
    assert through_socket(plain, number) == socket_address(endpoint, Way(socket=number))
    behind = through_channel(through_socket(plain, number), channel)
    assert behind == socket_address(endpoint, Way(channel=channel, socket=number))
    assert server_of(behind) == through_socket(plain, number)
    assert server_of(through_channel(plain, channel)) == plain
    assert server_of(plain) is server_of(through_socket(plain, number)) is None


def test_an_ipv4_address_written_in_ipv6_is_ipv4() -> None:
    mapped = TransportAddress(ip_address("::ffff:192.0.2.1"), 3478)
    assert socket_address(mapped) == ("192.0.2.1", 3478)
    assert direct(socket_address(mapped, Way(socket=1))) == ("192.0.2.1", 3478)


def test_the_ancillary_data_is_that_of_linux() -> None:
    # ip(7): struct in_pktinfo { unsigned int ipi_ifindex; struct in_addr ipi_spec_dst; struct in_addr ipi_addr; }
    assert pack_local(Way(ip_address("192.0.2.7"), 5), "192.0.2.1") == (
        struct.pack("=i", 5) + socket.inet_aton("192.0.2.7") + bytes(4)
    )
    # ipv6(7): struct in6_pktinfo { struct in6_addr ipi6_addr; unsigned int ipi6_ifindex; }
    assert pack_local(Way(ip_address("2001:db8::7"), 5), "2001:db8::1") == (
        socket.inet_pton(socket.AF_INET6, "2001:db8::7") + struct.pack("=i", 5)
    )


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_a_source_or_an_interface_alone_survive(host: str) -> None:
    own = ip_address(host) + 5
    for way in (Way(own), Way(interface=7), Way(own, 7)):
        assert unpack_local(pack_local(way, host)) == (way.source, way.interface)
    assert pack_local(PLAIN, host) == pack_local(Way(channel=0x4000, socket=2), host) == b""
    assert unpack_local(b"") == (None, 0)


def test_a_source_of_the_other_family_is_refused() -> None:
    for way, host in ((Way(ip_address("::1")), "192.0.2.1"), (Way(ip_address("192.0.2.7")), "2001:db8::1")):
        with pytest.raises(ValueError, match="is not reached from"):
            pack_local(way, host)


def test_addresses_are_written_as_people_do() -> None:
    assert written(socket_address(V4)) == "192.0.2.1:3478"
    assert written(socket_address(V6)) == "[fe80::1%3]:3478"
    assert written(socket_address(V4, Way(channel=0x4001))) == "192.0.2.1:3478 channel 0x4001"
    assert written(socket_address(V4, Way(socket=2))) == "192.0.2.1:3478 by socket 2"
