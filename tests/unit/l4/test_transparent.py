"""What a rootless router sets up in its nest, and where it lets streams go; that packets arrive shows the lab."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from msgspec import structs

from tests.support.l4_tools import FakeTools
from warren.l4.config import Backend, Closed, Entry, Listen, Way
from warren.l4.kinds import Incoming, Refused
from warren.l4.transparent import MARK, handle, original_destination, transparent_rules
from warren.linux.netlink_values import Route, Rule
from warren.model.tunnel import TransportAddress

PREFIXES = (ip_network("192.168.50.0/24"), ip_network("fd50::/64"), ip_network("10.1.2.3/32"))
ALLOWED = tuple(str(prefix) for prefix in PREFIXES)


def test_rules_are_for_the_interface_and_the_prefixes_alone() -> None:
    wanted = transparent_rules("warren-home", PREFIXES, 5172)
    rules = [command["add"]["rule"]["expr"] for command in wanted.document if "rule" in command.get("add", {})]
    assert len(rules) == len(PREFIXES)
    for rule in rules:
        assert rule[0]["match"] == {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "warren-home"}
        assert rule[2]["match"]["right"] == {"set": ["tcp", "udp"]}
        assert rule[3]["tproxy"]["port"] == 5172
        assert rule[4]["mangle"]["value"] == MARK
    destinations = [rule[1]["match"]["right"] for rule in rules]
    assert "10.1.2.3" in destinations
    assert {"prefix": {"addr": "fd50::", "len": 64}} in destinations
    assert {route.network for route in wanted.routes} == set(PREFIXES)
    assert all(route == Route(route.network, "lo", table=MARK, local=True) for route in wanted.routes)
    assert wanted.rules == tuple(Rule(version, 5172, MARK, fwmark=MARK) for version in (4, 6))
    json.dumps(wanted.document)


def test_the_document_replaces_what_was_there_and_the_removal_takes_all_of_it() -> None:
    wanted = transparent_rules("w0", PREFIXES, 1)
    assert wanted.document[:2] == wanted.removal
    assert [next(iter(command)) for command in wanted.removal] == ["add", "delete"]
    tables = {json.dumps(command["add"]["table"]) for command in wanted.document if "table" in command.get("add", {})}
    assert len(tables) == 1
    assert transparent_rules("w1", PREFIXES, 1).removal != wanted.removal


def test_the_order_of_prefixes_does_not_matter_and_doubles_are_one() -> None:
    assert transparent_rules("w0", PREFIXES, 1) == transparent_rules("w0", [*reversed(PREFIXES), PREFIXES[0]], 1)


def test_it_listens_on_loopback_of_the_overlay_for_the_versions_it_has() -> None:
    listen = transparent_rules("w0", PREFIXES, 7).listen
    assert [(one.protocol, one.address) for one in listen] == [
        ("tcp", "127.0.0.1"),
        ("tcp", "::1"),
        ("udp", "127.0.0.1"),
        ("udp", "::1"),
    ]
    assert {(one.side, one.port) for one in listen} == {("overlay", 7)}
    only4 = transparent_rules("w0", PREFIXES[:1], 7)
    assert {one.address for one in only4.listen} == {"127.0.0.1"}
    assert only4.rules == (Rule(4, 5172, MARK, fwmark=MARK),)
    nothing = transparent_rules("w0", [], 7)
    assert (nothing.routes, nothing.rules, nothing.listen) == ((), (), ())


REFUSED = [
    "192.168.51.1",
    "10.1.2.4",
    "fd51::1",
    "127.0.0.1",
    "::1",
    "0.0.0.0",  # noqa: S104 - not bound to
    "224.0.0.1",
    "169.254.169.254",
    "fe80::1",
    "ff02::1",
]


@pytest.mark.parametrize("allowed", [ALLOWED, ()])
@pytest.mark.parametrize("meant", REFUSED)
def test_what_is_not_behind_the_node_is_refused(meant: str, allowed: tuple[str, ...]) -> None:
    tools = FakeTools()
    with pytest.raises(Refused, match="is not behind this node"):
        asyncio.run(handle(incoming(meant), entry(allowed), tools))
    with pytest.raises(Refused, match="is not behind this node"):
        original_destination(sockaddr(meant, 80), allowed)
    assert tools.ways == []


@pytest.mark.parametrize("meant", ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1"])
def test_this_host_is_never_behind_the_node_whatever_the_prefixes_say(meant: str) -> None:
    with pytest.raises(Refused, match="is not behind this node"):
        asyncio.run(handle(incoming(meant), entry(("0.0.0.0/0", "::/0")), FakeTools()))


@pytest.mark.parametrize("meant", ["192.168.50.9", "fd50::9", "10.1.2.3"])
def test_a_stream_goes_on_to_where_it_was_meant_for_from_the_hosts_side(meant: str) -> None:
    class Tools(FakeTools):
        async def connect(self, way: Way, client: TransportAddress | None) -> Any:
            self.ways.append(way)
            raise Refused("connect", str(client))

    tools = Tools()
    closed = (Closed(prefix="10.1.2.3/32", what="closed"),)
    way = structs.replace(entry(ALLOWED).way, closed=closed)
    with pytest.raises(Refused, match="fd77::5"):
        asyncio.run(handle(incoming(meant), structs.replace(entry(ALLOWED), way=way), tools))
    (way,) = tools.ways
    assert way.closed == closed
    (backend,) = way.backends
    assert backend == Backend(name=backend.name, side="host", host=meant, port=443)
    assert way.connect_timeout_s == 7.0


def test_a_datagrams_destination_is_read_from_what_the_kernel_says() -> None:
    assert original_destination(sockaddr("192.168.50.9", 53), ALLOWED) == ("host", socket.AF_INET, ("192.168.50.9", 53))
    six = original_destination(sockaddr("fd50::9", 53), ALLOWED)
    assert six == ("host", socket.AF_INET6, ("fd50::9", 53, 0, 0))
    for nothing in (b"", b"\0\2\0"):
        with pytest.raises(Refused, match="does not say"):
            original_destination(nothing, ALLOWED)


def incoming(meant: str) -> Incoming:
    client = TransportAddress(ip_address("fd77::5"), 40000)
    return Incoming(socket.socket.__new__(socket.socket), client, TransportAddress(ip_address(meant), 443), Listen())


def entry(allowed: tuple[str, ...]) -> Entry:
    return Entry(id="behind", kind="transparent", listen=(), allowed=allowed, way=Way(connect_timeout_s=7.0))


def sockaddr(meant: str, port: int) -> bytes:
    address = ip_address(meant)
    if address.version == 4:
        return struct.pack("=H2s4s8x", socket.AF_INET, port.to_bytes(2), address.packed)
    return struct.pack("=H2s4x16s4x", socket.AF_INET6, port.to_bytes(2), address.packed)
