from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    ChangeRequest,
    pack_change_request,
    pack_port,
    unpack_address_untrusted,
    unpack_error_code_untrusted,
    unpack_unknown_attributes_untrusted,
)
from warren.proto.stun.binding import REQUEST_BYTES, mapped_untrusted, pack_binding_request
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted, encode
from warren.proto.stun.server import PREFIX_BURST, BindingServer, Discovery, Reply

CLIENT = TransportAddress(IPv4Address("198.51.100.7"), 40000)
CLIENT6 = TransportAddress(IPv6Address("2001:db8::7"), 40000)
FOUR = [TransportAddress(IPv4Address(f"203.0.113.{host}"), port) for host in (1, 2) for port in (3478, 3479)]
LOCAL, OTHER_PORT, OTHER_IP, OTHER = FOUR
LOCAL6 = TransportAddress(IPv6Address("2001:db8::1"), 3478)
DISCOVERY = [
    Discovery((LOCAL.ip, OTHER.ip), (3478, 3479)),
    Discovery((LOCAL6.ip, IPv6Address("2001:db8::2")), (3478, 3479)),
]
TRANSACTION = bytes(range(12))
CHANGE_BOTH = pack_change_request(ChangeRequest(address=True, port=True))


def padded(*attributes: tuple[int, bytes], fingerprint: bool = False) -> Message:
    if not fingerprint:
        return decode_untrusted(pack_binding_request(TRANSACTION, attributes))
    more = (*attributes, (Attribute.SOFTWARE, b" " * 88))
    return decode_untrusted(encode(Method.BINDING, Class.REQUEST, TRANSACTION, more, fingerprint=True))


def bare(*attributes: tuple[int, bytes]) -> Message:
    return decode_untrusted(encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes))


def answered(reply: Reply | None) -> Message:
    assert reply is not None
    return decode_untrusted(reply.data)


def error(reply: Reply | None) -> int:
    message = answered(reply)
    assert message.cls == Class.ERROR
    code = unpack_error_code_untrusted(message.get(Attribute.ERROR_CODE) or b"")
    assert code.reason == ""
    return code.number


@pytest.mark.parametrize(("client", "local"), [(CLIENT, LOCAL), (CLIENT6, LOCAL6)])
def test_a_client_is_told_its_address_and_nothing_else(client: TransportAddress, local: TransportAddress) -> None:
    reply = BindingServer().answer(padded(), client, local, 0.0)
    message = answered(reply)
    assert reply is not None
    assert (reply.remote, reply.source) == (client, local)
    assert (message.method, message.cls, message.transaction) == (Method.BINDING, Class.SUCCESS, TRANSACTION)
    assert mapped_untrusted(message) == client
    assert [kind for kind, _ in message.attributes] == [Attribute.XOR_MAPPED_ADDRESS]


def test_only_binding_requests_are_answered() -> None:
    server = BindingServer(any_size=True)
    for cls in Class:
        message = decode_untrusted(encode(Method.BINDING, cls, TRANSACTION))
        assert (server.answer(message, CLIENT, LOCAL, 0.0) is not None) == (cls == Class.REQUEST)
    for method in set(Method) - {Method.BINDING}:
        message = decode_untrusted(encode(method, Class.REQUEST, TRANSACTION))
        assert server.answer(message, CLIENT, LOCAL, 0.0) is None
    assert server.answer(bare(), TransportAddress(CLIENT.ip, 0), LOCAL, 0.0) is None


attribute_lists = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([int(attribute) for attribute in Attribute]), st.integers(0, 0xFFFF)),
        st.one_of(st.binary(max_size=40), st.sampled_from([pack_port(5), CHANGE_BOTH])),
    ),
    max_size=8,
)


@given(
    st.sampled_from([(CLIENT, local) for local in FOUR] + [(CLIENT6, LOCAL6)]),
    st.booleans(),
    attribute_lists,
    st.booleans(),
    st.integers(0, 120),
)
def test_no_answer_is_longer_than_its_request(
    ends: tuple[TransportAddress, TransportAddress],
    discovery: bool,
    attributes: list[tuple[int, bytes]],
    fingerprint: bool,
    padding: int,
) -> None:
    server = BindingServer(discovery=DISCOVERY if discovery else ())
    attributes = [*attributes, (Attribute.SOFTWARE, bytes(padding))]
    data = encode(Method.BINDING, Class.REQUEST, TRANSACTION, attributes, fingerprint=fingerprint)
    try:
        message = decode_untrusted(data)
    except MalformedPacket:
        return
    reply = server.answer(message, *ends, 0.0)
    if reply is not None:
        assert len(reply.data) <= len(data)
        assert reply.remote.ip == ends[0].ip


def test_bare_requests_are_answered_only_where_the_operator_says_so() -> None:
    strict = BindingServer()
    assert strict.answer(bare(), CLIENT, LOCAL, 0.0) is None
    assert strict.counters["too_small"] == 1
    assert mapped_untrusted(answered(BindingServer(any_size=True).answer(bare(), CLIENT, LOCAL, 0.0))) == CLIENT


def test_our_own_requests_are_long_enough_for_every_answer() -> None:
    server = BindingServer(discovery=DISCOVERY)
    change = (Attribute.CHANGE_REQUEST, CHANGE_BOTH)
    for client, local in ((CLIENT, LOCAL), (CLIENT6, LOCAL6)):
        for attributes in ((), (change,), ((Attribute.RESPONSE_PORT, pack_port(9)),)):
            assert len(padded(*attributes).raw) == REQUEST_BYTES
            assert answered(server.answer(padded(*attributes), client, local, 0.0)).cls == Class.SUCCESS


def test_one_network_gets_only_so_many_answers() -> None:
    server = BindingServer()
    neighbour = TransportAddress(IPv4Address("198.51.100.200"), 1)
    stranger = TransportAddress(IPv4Address("198.51.101.7"), 1)
    for _ in range(int(PREFIX_BURST)):
        assert server.answer(padded(), CLIENT, LOCAL, 0.0) is not None
    assert server.answer(padded(), neighbour, LOCAL, 0.0) is None
    assert server.answer(padded(), stranger, LOCAL, 0.0) is not None
    assert server.answer(padded(), neighbour, LOCAL, 0.5) is not None
    for number in range(int(PREFIX_BURST)):
        same48 = TransportAddress(IPv6Address(f"2001:db8:0:{number:x}::1"), 1)
        assert server.answer(padded(), same48, LOCAL6, 0.5) is not None
    assert server.answer(padded(), CLIENT6, LOCAL6, 0.5) is None
    assert server.counters["too_many"] == 2


def test_all_networks_together_get_only_so_many() -> None:
    server = BindingServer()
    answers = sum(
        server.answer(padded(), TransportAddress(IPv4Address(0x0B000000 + (number << 8)), 9), LOCAL, 0.0) is not None
        for number in range(20_500)
    )
    assert answers == 20_000


def test_attributes_that_must_be_understood_are_named_when_they_are_not() -> None:
    reply = BindingServer().answer(padded((0x7777, b""), (Attribute.PRIORITY, bytes(4))), CLIENT, LOCAL, 0.0)
    assert error(reply) == 420
    listed = answered(reply).get(Attribute.UNKNOWN_ATTRIBUTES) or b""
    assert unpack_unknown_attributes_untrusted(listed) == (0x7777, Attribute.PRIORITY)


def test_credentials_are_not_needed_and_do_no_harm() -> None:
    data = encode(
        Method.BINDING,
        Class.REQUEST,
        TRANSACTION,
        [(Attribute.USERNAME, b"somebody"), (Attribute.NONCE, b"n" * 60)],
        key=b"key",
    )
    message = answered(BindingServer().answer(decode_untrusted(data), CLIENT, LOCAL, 0.0))
    assert mapped_untrusted(message) == CLIENT


def test_a_request_with_a_fingerprint_gets_one_back() -> None:
    message = answered(BindingServer().answer(padded(fingerprint=True), CLIENT, LOCAL, 0.0))
    assert message.get(Attribute.FINGERPRINT) is not None


@pytest.mark.parametrize("local", FOUR)
def test_with_discovery_the_answer_comes_from_where_the_client_asks(local: TransportAddress) -> None:
    """RFC 5780 §6.1, table 1."""
    server = BindingServer(discovery=DISCOVERY)
    for address in (False, True):
        for port in (False, True):
            change = (Attribute.CHANGE_REQUEST, pack_change_request(ChangeRequest(address, port)))
            reply = server.answer(padded(change), CLIENT, local, 0.0)
            message = answered(reply)
            assert reply is not None
            assert (reply.source.ip != local.ip, reply.source.port != local.port) == (address, port)
            assert reply.source in FOUR
            assert unpack_address_untrusted(message.get(Attribute.RESPONSE_ORIGIN) or b"") == reply.source
            other = unpack_address_untrusted(message.get(Attribute.OTHER_ADDRESS) or b"")
            assert other in FOUR
            assert (other.ip != local.ip, other.port != local.port) == (True, True)


def test_without_discovery_nothing_of_it_is_done() -> None:
    for attribute in (
        (Attribute.CHANGE_REQUEST, CHANGE_BOTH),
        (Attribute.RESPONSE_PORT, pack_port(9)),
        (Attribute.PADDING, bytes(8)),
    ):
        assert error(BindingServer().answer(padded(attribute), CLIENT, LOCAL, 0.0)) == 420
        elsewhere = TransportAddress(LOCAL.ip, 7)  # an address of the server that has no others
        assert error(BindingServer(discovery=DISCOVERY).answer(padded(attribute), CLIENT, elsewhere, 0.0)) == 420


def test_with_one_address_it_answers_to_other_ports_and_refuses_the_rest() -> None:
    server = BindingServer(discovery=[Discovery((LOCAL.ip,), (LOCAL.port,))])
    reply = server.answer(padded((Attribute.RESPONSE_PORT, pack_port(50000))), CLIENT, LOCAL, 0.0)
    assert reply is not None
    assert (reply.remote, reply.source) == (TransportAddress(CLIENT.ip, 50000), LOCAL)
    message = answered(reply)
    assert mapped_untrusted(message) == CLIENT
    assert message.get(Attribute.OTHER_ADDRESS) is None
    change = (Attribute.CHANGE_REQUEST, CHANGE_BOTH)
    assert error(server.answer(padded(change), CLIENT, LOCAL, 0.0)) == 420


def test_padding_comes_back_as_far_as_there_is_room() -> None:
    """RFC 5780 §7.6."""
    request = bare((Attribute.PADDING, bytes(1200)))
    reply = BindingServer(discovery=DISCOVERY).answer(request, CLIENT, LOCAL, 0.0)
    assert reply is not None
    assert len(reply.data) == len(request.raw)
    both = padded((Attribute.PADDING, bytes(8)), (Attribute.RESPONSE_PORT, pack_port(9)))
    assert error(BindingServer(discovery=DISCOVERY).answer(both, CLIENT, LOCAL, 0.0)) == 400


@pytest.mark.parametrize("value", [b"", bytes(3), bytes(8)])
def test_values_that_do_not_parse_are_a_bad_request(value: bytes) -> None:
    server = BindingServer(discovery=DISCOVERY)
    for attribute in (Attribute.CHANGE_REQUEST, Attribute.RESPONSE_PORT):
        assert error(server.answer(padded((attribute, value)), CLIENT, LOCAL, 0.0)) == 400


def test_an_answer_without_an_address_is_malformed() -> None:
    with pytest.raises(MalformedPacket):
        mapped_untrusted(decode_untrusted(encode(Method.BINDING, Class.SUCCESS, TRANSACTION)))
    old = (Attribute.MAPPED_ADDRESS, b"\0\1\x9c\x40\xc6\x33\x64\7")
    assert mapped_untrusted(decode_untrusted(encode(Method.BINDING, Class.SUCCESS, TRANSACTION, [old]))) == CLIENT
