"""The TURN server: who gets what, and what becomes of it (RFC 8656)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.turn_clients import (
    TurnAsker,
    data_of,
    error_of,
    place,
    relayed_of,
    send_indication,
)
from tests.unit.proto.turn.turn_world import RELAY4, RELAY6, TCP, World
from warren.proto.stun.attributes import (
    MD5,
    pack_even_port,
    pack_family,
    pack_password_algorithms,
    pack_requested_transport,
    pack_uint32,
    pack_xor_address,
    unpack_uint32_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.credentials import verifies
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.proto.turn.server_values import Closed, Opened

PEER = place("8.8.8.8", 53)
PEER6 = place("2a00::8", 53)


@pytest.fixture
def world() -> World:
    return World()


# Who asks


@pytest.mark.parametrize("sha256", [True, False])
def test_who_knows_the_password_gets_an_address(world: World, sha256: bool) -> None:
    asker = world.asker(sha256=sha256)
    answer = asker.allocate()
    assert verifies(answer, asker.key, sha256_required=sha256)
    assert relayed_of(answer) == [place("9.9.9.9", relayed_of(answer)[0].port)]
    seen = unpack_xor_address_untrusted(answer.get(Attribute.XOR_MAPPED_ADDRESS) or b"", answer.transaction)
    assert seen == place("1.2.3.4", 1000)
    assert unpack_uint32_untrusted(answer.get(Attribute.LIFETIME) or b"") == 600
    assert world.sockets.open == {(4, relayed_of(answer)[0].port)}
    assert [type(event) for event in world.events] == [Opened]


@pytest.mark.parametrize(("username", "password"), [("u", "wrong"), ("nobody", "p"), ("", "p"), ("v", "p")])
def test_who_does_not_know_it_gets_nothing(world: World, username: str, password: str) -> None:
    asker = world.asker()
    asker.username, asker.password = username, password
    assert error_of(asker.allocate()) == 401
    assert not world.server.allocations
    assert not world.sockets.open


def test_nothing_is_kept_of_who_proved_nothing(world: World) -> None:
    for port in range(1, 500):
        world.server.receive(
            encode(Method.ALLOCATE, Class.REQUEST, port.to_bytes(12), [(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0")]),
            world.client("1.2.3.4", port),
            world.now,
        )
    world.settle()
    assert not world.server.allocations
    assert not world.events
    assert world.server.next_deadline() is None


def test_a_stale_nonce_is_replaced(world: World) -> None:
    asker = world.asker()
    asker.learn()
    world.now += 3601
    refused = asker.allocate()
    assert error_of(refused) == 438
    asker.nonce = refused.get(Attribute.NONCE) or b""
    assert error_of(asker.allocate()) == 0


def test_a_nonce_is_of_no_use_to_another_address(world: World) -> None:
    asker = world.asker()
    asker.learn()
    thief = world.asker(world.client("1.2.3.5"))
    thief.realm, thief.nonce, thief.algorithms = asker.realm, asker.nonce, asker.algorithms
    assert error_of(thief.allocate()) == 438


def test_weakened_password_algorithms_are_noticed(world: World) -> None:
    asker = world.asker()
    asker.learn()
    packed = asker.packed(Method.ALLOCATE, algorithms=pack_password_algorithms([MD5]))
    answer = decode_untrusted(world.exchange(world.client(), packed))
    assert error_of(answer) == 400
    assert not verifies(answer, asker.key)


@pytest.mark.parametrize("missing", [Attribute.USERNAME, Attribute.REALM, Attribute.NONCE])
def test_half_a_proof_is_a_bad_request(world: World, missing: Attribute) -> None:
    asker = world.asker()
    asker.learn()
    proof = {
        Attribute.USERNAME: b"u",
        Attribute.REALM: asker.realm,
        Attribute.NONCE: asker.nonce,
    }
    del proof[missing]
    packed = encode(Method.ALLOCATE, Class.REQUEST, bytes(12), proof.items(), key=asker.key)
    assert error_of(decode_untrusted(world.exchange(world.client(), packed))) == 400


def test_refusals_are_as_short_as_can_be(world: World) -> None:
    request = encode(
        Method.ALLOCATE, Class.REQUEST, bytes(12), [(Attribute.REQUESTED_TRANSPORT, pack_requested_transport())]
    )
    answer = world.exchange(world.client(), request)
    message = decode_untrusted(answer)
    assert len(answer) == 88
    assert message.get(Attribute.SOFTWARE) is None
    assert message.get(Attribute.ERROR_CODE) == b"\0\0\4\1"


def test_a_padded_first_request_is_answered_however_many_came_before(world: World) -> None:
    asker = world.asker()
    for _ in range(200):
        asker.bare(Method.ALLOCATE)
    assert asker.bare(Method.ALLOCATE) is None
    assert asker.bare(Method.ALLOCATE, (Attribute.SOFTWARE, bytes(64))) is None, "the limit of a network still counts"
    world.now += 1
    for _ in range(20):
        asker.bare(Method.ALLOCATE)
    assert asker.bare(Method.ALLOCATE, (Attribute.SOFTWARE, bytes(64))) is not None


def test_over_tcp_nobody_is_turned_away_for_having_asked_much(world: World) -> None:
    asker = world.asker(world.client(transport=TCP))
    assert all(asker.bare(Method.ALLOCATE) is not None for _ in range(500))


def test_unknown_attributes_that_must_be_understood_are_named(world: World) -> None:
    asker = world.asker()
    answer = asker.allocate((0x7FFF, b""), (0x7FFE, b"ab"))
    assert error_of(answer) == 420
    assert answer.get(Attribute.UNKNOWN_ATTRIBUTES) == b"\x7f\xff\x7f\xfe"


# Allocations


def test_a_retransmission_gets_the_same_answer_and_nothing_else(world: World) -> None:
    asker = world.asker()
    asker.learn()
    packed = asker.packed(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, pack_requested_transport()))
    first = world.exchange(world.client(), packed)
    assert world.exchange(world.client(), packed) == first
    assert len(world.sockets.open) == 1
    assert error_of(asker.allocate()) == 437, "a second allocation is not a retransmission"


def test_a_retransmission_of_another_user_is_none(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    other = world.asker(username="v")
    other.learn()
    answer = other.allocate(transaction=asker.transaction)
    assert error_of(answer) == 437


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ([], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x06\0\0\0")], 442),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0")], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"), (Attribute.REQUESTED_ADDRESS_FAMILY, b"\x03\0\0\0")], 440),
        (
            [
                (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"),
                (Attribute.REQUESTED_ADDRESS_FAMILY, pack_family(4)),
                (Attribute.ADDITIONAL_ADDRESS_FAMILY, pack_family(6)),
            ],
            400,
        ),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"), (Attribute.ADDITIONAL_ADDRESS_FAMILY, pack_family(4))], 400),
        (
            [
                (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"),
                (Attribute.EVEN_PORT, b"\x80"),
                (Attribute.ADDITIONAL_ADDRESS_FAMILY, pack_family(6)),
            ],
            400,
        ),
        (
            [
                (Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"),
                (Attribute.RESERVATION_TOKEN, bytes(8)),
                (Attribute.EVEN_PORT, b"\0"),
            ],
            400,
        ),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"), (Attribute.RESERVATION_TOKEN, bytes(8))], 508),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"), (Attribute.RESERVATION_TOKEN, bytes(7))], 400),
        ([(Attribute.REQUESTED_TRANSPORT, b"\x11\0\0\0"), (Attribute.LIFETIME, b"\0")], 400),
    ],
)
def test_bad_requests_for_an_allocation(world: World, attributes: list[tuple[int, bytes]], error: int) -> None:
    assert error_of(world.asker().ask(Method.ALLOCATE, *attributes)) == error
    assert not world.sockets.open


def test_both_families_at_once(world: World) -> None:
    asker = world.asker()
    answer = asker.allocate((Attribute.ADDITIONAL_ADDRESS_FAMILY, pack_family(6)))
    assert [address.ip for address in relayed_of(answer)] == [RELAY4, RELAY6]
    assert error_of(asker.permit(PEER, PEER6)) == 0
    assert error_of(asker.bind(0x4000, PEER6)) == 0
    assert error_of(asker.refresh(0, (Attribute.REQUESTED_ADDRESS_FAMILY, pack_family(6)))) == 0
    assert {family for family, _ in world.sockets.open} == {4}
    assert error_of(asker.bind(0x4000, PEER6)) == 443
    assert error_of(asker.bind(0x4000, PEER)) == 0
    assert error_of(asker.refresh(600, (Attribute.REQUESTED_ADDRESS_FAMILY, pack_family(6)))) == 443


def test_of_two_families_the_one_that_is_missing_is_named() -> None:
    world = World(addresses=(RELAY4,))
    answer = world.asker().allocate((Attribute.ADDITIONAL_ADDRESS_FAMILY, pack_family(6)))
    assert len(relayed_of(answer)) == 1
    assert answer.get(Attribute.ADDRESS_ERROR_CODE) == b"\2\0\4\x28"
    assert error_of(world.asker(world.client(port=2)).allocate(family=6)) == 440


def test_ipv6_alone(world: World) -> None:
    asker = world.asker()
    assert asker.relayed(family=6).ip == RELAY6
    assert error_of(asker.permit(PEER)) == 443
    assert error_of(asker.permit(PEER6)) == 0


def test_an_even_port_and_the_one_above_it(world: World) -> None:
    answer = world.asker().allocate((Attribute.EVEN_PORT, pack_even_port(reserve_next=True)))
    first = relayed_of(answer)[0].port
    token = answer.get(Attribute.RESERVATION_TOKEN)
    assert first % 2 == 0
    assert token is not None
    assert (4, first + 1) in world.sockets.open
    stranger = world.asker(world.client("1.2.3.9"), "v")
    assert error_of(stranger.allocate((Attribute.RESERVATION_TOKEN, token))) == 508
    second = world.asker(world.client(port=2)).relayed((Attribute.RESERVATION_TOKEN, token))
    assert second.port == first + 1


def test_a_reserved_port_is_given_back(world: World) -> None:
    answer = world.asker().allocate((Attribute.EVEN_PORT, pack_even_port(reserve_next=True)))
    world.wait(31)
    assert len(world.sockets.open) == 1
    token = answer.get(Attribute.RESERVATION_TOKEN) or b""
    assert error_of(world.asker(world.client(port=2)).allocate((Attribute.RESERVATION_TOKEN, token))) == 508


def test_an_allocation_ends_unless_it_is_refreshed(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    world.wait(500)
    assert error_of(asker.refresh(600)) == 0
    world.wait(599)
    assert world.sockets.open
    world.wait(2)
    assert not world.sockets.open
    assert not world.server.allocations
    assert isinstance(world.events[-1], Closed)
    assert error_of(asker.refresh(600)) == 437


def test_a_lifetime_has_bounds(world: World) -> None:
    asker = world.asker()
    answer = asker.allocate((Attribute.LIFETIME, pack_uint32(1)))
    assert unpack_uint32_untrusted(answer.get(Attribute.LIFETIME) or b"") == 600
    answer = asker.refresh(1_000_000)
    assert unpack_uint32_untrusted(answer.get(Attribute.LIFETIME) or b"") == 3600


def test_an_allocation_is_given_up(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    assert error_of(asker.refresh(0)) == 0
    assert not world.sockets.open
    assert world.server.next_deadline() is None or not world.server.allocations
    assert error_of(asker.allocate()) == 0


def test_another_user_cannot_touch_it(world: World) -> None:
    world.asker().relayed()
    other = world.asker(username="v")
    assert error_of(other.refresh(0)) == 441
    assert error_of(other.permit(PEER)) == 441
    assert error_of(other.bind(0x4000, PEER)) == 441
    assert world.sockets.open


def test_it_does_not_follow_its_client_to_another_address(world: World) -> None:
    """FAULTS F-RBR: only authentication makes an allocation, and none is moved."""
    asker = world.asker()
    asker.relayed()
    asker.permit(PEER)
    spoofer = world.client("6.6.6.6")
    world.server.receive(send_indication(PEER, b"stolen"), spoofer, world.now)
    world.settle()
    assert not world.to_peers
    moved = world.asker(spoofer)
    assert error_of(moved.refresh(600)) == 437
    assert error_of(moved.allocate()) == 0
    assert len(world.sockets.open) == 2


def test_a_user_has_only_so_many() -> None:
    world = World(allocations_per_user=2)
    for port in (1, 2):
        world.asker(world.client(port=port)).relayed()
    assert error_of(world.asker(world.client(port=3)).allocate()) == 486
    assert error_of(world.asker(world.client(port=3), "v").allocate()) == 0


def test_a_user_who_comes_from_a_new_place_takes_the_place_of_a_silent_one() -> None:
    world = World(allocations_per_user=2)
    first, second = (world.asker(world.client(port=port)) for port in (1, 2))
    first.relayed()
    second.relayed()
    world.wait(61)
    second.refresh(600)
    assert error_of(world.asker(world.client(port=3)).allocate()) == 0
    assert {client.remote[1] for client in world.server.allocations} == {2, 3}


def test_an_address_and_all_together_have_only_so_many() -> None:
    world = World(allocations_per_prefix=1, allocations_max=2)
    world.asker(world.client(port=1)).relayed()
    assert error_of(world.asker(world.client(port=2), "v").allocate()) == 486
    world.asker(world.client("1.2.3.5"), "v").relayed()
    assert error_of(world.asker(world.client("1.2.3.6"), "w").allocate()) == 508


def test_when_all_ports_are_taken_it_says_so() -> None:
    world = World(ports=range(50_000, 50_002))
    world.sockets.taken = {(4, 50_000), (4, 50_001)}
    assert error_of(world.asker().allocate()) == 508


def test_a_server_that_drains_lets_nobody_in(world: World) -> None:
    world.asker().relayed()
    world.server.refusing = True
    assert error_of(world.asker(world.client(port=2)).allocate()) == 508


def test_a_revoked_user_loses_everything_at_once(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    world.asker(world.client("1.2.3.5"), "v").relayed()
    world.table.users = {"v": "q"}
    world.server.revoke({"u"})
    world.settle()
    assert [one.identity for one in world.server.allocations.values()] == ["v"]
    assert error_of(asker.allocate()) == 401


def test_the_end_of_a_connection_is_the_end_of_its_allocation(world: World) -> None:
    client = world.client(transport=TCP)
    world.asker(client).relayed()
    world.server.disconnected(client)
    assert not world.sockets.open


# Permissions and channels


def test_data_leaves_only_to_whom_it_is_permitted(world: World) -> None:
    asker = world.asker()
    relayed = asker.relayed()
    world.exchange(world.client(), send_indication(PEER, b"too early"))
    assert error_of(asker.permit(PEER)) == 0
    world.exchange(world.client(), send_indication(PEER, b"now"))
    world.exchange(world.client(), send_indication(place("8.8.8.9", 53), b"elsewhere"))
    world.exchange(world.client(), send_indication(place("8.8.8.8", 99), b"another port"))
    assert [(one.peer, one.data, one.relayed.port) for one in world.to_peers] == [
        (("8.8.8.8", 53), b"now", relayed.port),
        (("8.8.8.8", 99), b"another port", relayed.port),
    ]


def test_a_permission_ends_after_five_minutes(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    asker.permit(PEER)
    world.wait(301)
    world.exchange(world.client(), send_indication(PEER, b"late"))
    assert not world.to_peers
    asker.permit(PEER)
    world.exchange(world.client(), send_indication(PEER, b"again"))
    assert len(world.to_peers) == 1


def test_data_comes_in_only_from_whom_it_is_permitted(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    (allocation,) = world.server.allocations.values()
    asker.permit(PEER)
    world.server.from_peer(allocation.relayed[4], ("8.8.8.9", 53), b"no", world.now)
    world.server.from_peer(allocation.relayed[4], ("8.8.8.8", 7), b"yes", world.now)
    world.settle()
    assert [data_of(one) for one in world.inboxes[world.client()]] == [(place("8.8.8.8", 7), b"yes")]


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0"])  # noqa: S104
def test_forbidden_peers_are_refused_by_every_door(world: World, peer: str) -> None:
    asker = world.asker()
    asker.relayed()
    assert error_of(asker.permit(place(peer, 80))) == 403
    assert error_of(asker.permit(PEER, place(peer, 80))) == 403
    assert error_of(asker.bind(0x4000, place(peer, 80))) == 403
    (allocation,) = world.server.allocations.values()
    assert not allocation.permissions
    assert not allocation.channels
    world.exchange(world.client(), send_indication(place(peer, 80), b"x"))
    assert not world.to_peers


def test_a_channel_has_one_peer_and_a_peer_one_channel(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    assert error_of(asker.bind(0x4000, PEER)) == 0
    assert error_of(asker.bind(0x4000, PEER)) == 0
    assert error_of(asker.bind(0x4000, place("8.8.8.8", 54))) == 400
    assert error_of(asker.bind(0x4001, PEER)) == 400
    world.wait(590)
    asker.refresh(600)
    world.wait(11)
    assert error_of(asker.bind(0x4001, PEER)) == 0, "the old channel has ended"
    (allocation,) = world.server.allocations.values()
    assert list(allocation.channels) == [0x4001]


@pytest.mark.parametrize(("number", "error"), [(0x3FFF, 400), (0x4000, 0), (0x4FFF, 0), (0x7FFF, 0), (0x8000, 400)])
def test_channels_have_the_numbers_of_rfc_5766(world: World, number: int, error: int) -> None:
    asker = world.asker()
    asker.relayed()
    assert error_of(asker.bind(number, PEER)) == error


def test_a_channel_is_open_as_long_as_its_permission(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    asker.bind(0x4000, PEER)
    (allocation,) = world.server.allocations.values()
    channel = allocation.channels[0x4000]
    world.wait(299)
    assert channel.is_open(world.now)
    world.wait(2)
    assert not channel.is_open(world.now)
    asker.permit(PEER)
    assert channel.is_open(world.now)
    world.wait(299)
    asker.permit(PEER)
    assert not channel.is_open(world.now + 1)


def test_permissions_and_channels_have_ceilings() -> None:
    world = World(permissions_max=3, channels_max=2)
    asker = world.asker()
    asker.relayed()
    assert error_of(asker.permit(*(place(f"8.8.8.{host}", 1) for host in range(4)))) == 508
    assert error_of(asker.bind(0x4000, place("8.8.8.1", 1))) == 0
    assert error_of(asker.bind(0x4001, place("8.8.8.2", 1))) == 0
    assert error_of(asker.bind(0x4002, place("8.8.8.3", 1))) == 508
    assert error_of(asker.permit(place("8.8.8.3", 1))) == 0
    assert error_of(asker.permit(place("8.8.8.5", 1))) == 508
    world.wait(301)
    asker.refresh(3600)
    assert error_of(asker.permit(place("8.8.8.5", 1))) == 0, "what has expired makes room"
    world.wait(301)
    assert error_of(asker.bind(0x4002, place("8.8.8.3", 1))) == 0


def test_other_allocations_of_the_relay_are_peers(world: World) -> None:
    asker = world.asker()
    asker.relayed()
    other = world.asker(world.client("1.2.3.5"), "v").relayed()
    assert error_of(asker.bind(0x4000, other)) == 0
    assert (str(other.ip), other.port) in world.server.relayed


# Binding, and bytes of any kind


def test_a_binding_request_says_where_one_is_seen_from(world: World) -> None:
    answer = world.asker(world.client("2a00::7", 9)).bare(Method.BINDING)
    assert answer is not None
    seen = unpack_xor_address_untrusted(answer.get(Attribute.XOR_MAPPED_ADDRESS) or b"", answer.transaction)
    assert seen == place("2a00::7", 9)


@pytest.mark.parametrize("method", [Method.BINDING, Method.SEND, Method.DATA, 0x0AB])
def test_indications_and_unknown_methods_get_no_answer(world: World, method: int) -> None:
    for cls in (Class.INDICATION, Class.SUCCESS, Class.ERROR):
        assert world.exchange(world.client(), encode(method, cls, bytes(12))) == b""
    if method != Method.BINDING:
        assert world.exchange(world.client(), encode(method, Class.REQUEST, bytes(12))) == b""


@given(st.binary(max_size=200))
def test_no_bytes_end_the_server(data: bytes) -> None:
    world = World()
    asker = world.asker()
    asker.relayed()
    world.exchange(world.client(), data)
    world.exchange(world.client(port=9), data)
    world.exchange(world.client(), b"\0\3\0\0\x21\x12\xa4\x42" + data)
    assert error_of(asker.refresh(600)) == 0


_METHODS = st.sampled_from([Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND])
_KINDS = st.sampled_from([one for one in Attribute if one not in {0x0008, 0x001C, 0x8028}])


@given(st.lists(st.tuples(_METHODS, st.lists(st.tuples(_KINDS, st.binary(max_size=24)), max_size=6)), max_size=8))
def test_no_authenticated_request_ends_the_server(
    requests: list[tuple[Method, list[tuple[int, bytes]]]],
) -> None:
    world = World()
    asker: TurnAsker = world.asker()
    for method, attributes in requests:
        answer = asker.ask(method, *attributes)
        assert answer.cls in (Class.SUCCESS, Class.ERROR)
        world.exchange(world.client(), encode(Method.SEND, Class.INDICATION, bytes(12), attributes))
    assert len(world.sockets.open) <= 4
    world.server.close()
    assert not world.sockets.open


def test_a_peer_address_is_xored_with_the_transaction(world: World) -> None:
    asker = world.asker()
    asker.relayed(family=6)
    wrong = pack_xor_address(PEER6, b"another-one!")
    assert error_of(asker.ask(Method.CREATE_PERMISSION, (Attribute.XOR_PEER_ADDRESS, wrong))) in {403, 0}
    (allocation,) = world.server.allocations.values()
    assert "2a00::8" not in allocation.permissions
