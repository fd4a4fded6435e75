"""What is said between a nest and its clients: everything arrives as it was sent, and nonsense fails in one way."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address, ip_interface, ip_network
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.engine.rootless import messages
from warren.engine.rootless.messages import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    Answer,
    Request,
    WireAddress,
    WireRoute,
    address_untrusted,
    answer_of,
    frame_length_untrusted,
    pack_address,
    pack_frame,
    pack_route,
    prefixes_untrusted,
    route_untrusted,
    unpack_answer_untrusted,
    unpack_request_untrusted,
    value_untrusted,
)
from warren.errors import MalformedPacket
from warren.linux.netlink_values import Address, Link, Route, Rule

ROUTE = Route(ip_network("fd00::/64"), "wg0", 7, ip_address("fe80::1"), 1400, 9, True)
ADDRESS = Address("wg0", ip_interface("10.1.2.3/24"), False)
REQUESTS: list[Request] = [
    messages.OpenSockets(2, 1, 6, 3),
    messages.MakeTun("wg0"),
    messages.Namespaces(),
    messages.SetLink("wg0", up=True),
    messages.AddAddress(pack_address(ADDRESS)),
    messages.AddRoute(pack_route(ROUTE)),
    messages.AddRule(Rule(6, 10, 7, 1, True, 0)),
    messages.PathTo("fd00::1", 3),
    messages.RunNft([{"add": {"table": {"family": "inet", "name": "x"}}}]),
    messages.SetSysctl("net/ipv4/ip_forward", "1"),
    messages.Connections(("fd00::/64", "10.0.0.1/32")),
    messages.EndConnections(bytes(84)),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    frame = pack_frame(request_)
    assert frame_length_untrusted(frame[:LENGTH_BYTES]) == len(frame) - LENGTH_BYTES
    assert unpack_request_untrusted(frame[LENGTH_BYTES:]) == request_


def test_routes_and_addresses_lose_nothing_on_the_way() -> None:
    """Compared field by field: some fields do not count for equality."""
    assert dataclasses.astuple(address_untrusted(pack_address(ADDRESS))) == dataclasses.astuple(ADDRESS)
    assert dataclasses.astuple(route_untrusted(pack_route(ROUTE))) == dataclasses.astuple(ROUTE)
    defaults = {field.name: field.default for field in dataclasses.fields(Route)}
    assert all(getattr(ROUTE, name) != default for name, default in defaults.items()), "every field is tried"


def test_an_answer_brings_a_value_or_a_refusal() -> None:
    links = (Link("lo", 1, True, 65536, 65535), Link("wg0", 2, False, 1420, 44, "tun"))
    body = pack_frame(answer_of(links))[LENGTH_BYTES:]
    assert value_untrusted(unpack_answer_untrusted(body), tuple[Link, ...]) == links
    refused = unpack_answer_untrusted(pack_frame(Answer(refused="no"))[LENGTH_BYTES:])
    assert refused.refused == "no"
    assert value_untrusted(Answer(), None) is None
    with pytest.raises(MalformedPacket):
        value_untrusted(answer_of(["text"]), tuple[Link, ...])


def test_a_frame_has_a_greatest_length() -> None:
    assert frame_length_untrusted(FRAME_BYTES_MAX.to_bytes(4, "big")) == FRAME_BYTES_MAX
    for head in ((FRAME_BYTES_MAX + 1).to_bytes(4, "big"), b"\xff\xff\xff\xff", b"abc"):
        with pytest.raises(MalformedPacket):
            frame_length_untrusted(head)
    with pytest.raises(ValueError, match="too many"):
        pack_frame(messages.SetSysctl("net/x", "v" * FRAME_BYTES_MAX))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(body: bytes) -> None:
    for decode in (unpack_request_untrusted, unpack_answer_untrusted):
        try:
            decode(body)
        except MalformedPacket:
            continue


_SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
_NAMES = [kind.__name__ for kind in get_args(Request)]
_FIELDS = sorted({name for kind in get_args(Request) for name in kind.__struct_fields__})


@given(st.sampled_from(_NAMES), st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=4))
def test_any_values_in_a_request_are_taken_or_malformed(name: str, fields: dict[str, object]) -> None:
    try:
        request = unpack_request_untrusted(msgspec.msgpack.encode({"type": name, **fields}))
    except MalformedPacket:
        return
    assert type(request).__name__ == name


def test_nesting_without_end_is_malformed() -> None:
    deep = b"\x91" * 100_000
    with pytest.raises(MalformedPacket):
        unpack_request_untrusted(b"\x82\xa4type\xa6RunNft\xa8document" + deep)
    with pytest.raises(MalformedPacket):
        unpack_answer_untrusted(b"\x81\xa5value" + deep)


def test_prefixes_are_networks_or_malformed() -> None:
    assert prefixes_untrusted(("fd00::/64", "10.0.0.1/32")) == [ip_network("fd00::/64"), ip_network("10.0.0.1/32")]
    for text in ("", "10.0.0.0/33", "10.0.0.1/8", "name"):
        with pytest.raises(MalformedPacket):
            prefixes_untrusted(("fd00::/64", text))


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "fd00::/129", "name", "10.0.0.1/8"])
def test_a_text_that_is_no_network_is_malformed(text: str) -> None:
    with pytest.raises(MalformedPacket):
        route_untrusted(WireRoute(text, "wg0", 254, None, 0, 4))
    with pytest.raises(MalformedPacket):
        route_untrusted(WireRoute("10.0.0.0/8", "wg0", 254, text or "x", 0, 4))
    if not text.startswith("10.0.0.1"):
        with pytest.raises(MalformedPacket):
            address_untrusted(WireAddress("wg0", text))
