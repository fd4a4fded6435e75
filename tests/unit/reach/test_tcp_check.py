"""The proof over a TCP connection: the peer passes, everybody else fails."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.turn_script import address
from warren.proto.stun.attributes import pack_uint64
from warren.proto.stun.message import Attribute, Class, Method, encode
from warren.reach.tcp_check import MESSAGES_MAX, State, TcpCheck

KEY = b"k" * 32
REMOTE = address("203.0.113.9", 1234)


def check(*, controlling: bool, key: bytes = KEY, seed: int = 1) -> TcpCheck:
    return TcpCheck(key, REMOTE, random.Random(f"{seed} {controlling}").randbytes, controlling=controlling)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def exchange(one: TcpCheck, other: TcpCheck) -> None:
    for _ in range(10):
        a, b = one.take_transmits(), other.take_transmits()
        if not a and not b:
            return
        other.receive(a)
        one.receive(b)
    raise AssertionError("they never fall silent")


def proven() -> tuple[TcpCheck, TcpCheck]:
    leader, follower = check(controlling=True), check(controlling=False)
    exchange(leader, follower)
    assert leader.state is follower.state is State.PROVEN
    return leader, follower


def test_two_peers_prove_themselves_and_the_controlling_one_selects() -> None:
    leader, follower = proven()
    follower.select()
    exchange(leader, follower)
    assert leader.state is follower.state is State.PROVEN
    leader.select()
    exchange(leader, follower)
    assert leader.state is follower.state is State.SELECTED


def test_it_does_not_matter_how_the_stream_is_cut() -> None:
    leader, follower = check(controlling=True), check(controlling=False)
    for _ in range(10):
        for sender, receiver in ((leader, follower), (follower, leader)):
            for byte in sender.take_transmits():
                receiver.receive(bytes((byte,)))
        leader.select()
    assert leader.state is follower.state is State.SELECTED


def test_data_behind_the_selection_is_kept() -> None:
    leader, follower = proven()
    leader.select()
    follower.receive(leader.take_transmits() + b"\0\1a")
    assert follower.state is State.SELECTED
    assert follower.rest == b"\0\1a"
    leader.receive(follower.take_transmits() + b"\0\1b")
    leader.receive(b"\0\1c")
    assert leader.rest == b"\0\1b\0\1c"


@pytest.mark.parametrize("controlling", [True, False])
def test_another_key_fails(controlling: bool) -> None:
    one, stranger = check(controlling=controlling), check(controlling=not controlling, key=b"x" * 32)
    one.receive(stranger.take_transmits())
    assert one.state is State.FAILED
    one.take_transmits()
    assert one.take_transmits() == b""


@pytest.mark.parametrize("controlling", [True, False])
def test_what_is_sent_back_to_its_sender_proves_nothing(controlling: bool) -> None:
    one = check(controlling=controlling)
    one.receive(one.take_transmits())
    assert one.state is State.FAILED


def test_what_the_peer_said_on_another_connection_proves_nothing() -> None:
    recorded = bytearray()
    leader, follower = check(controlling=True), check(controlling=False)
    for _ in range(4):
        follower.receive(leader.take_transmits())
        said = follower.take_transmits()
        recorded += said
        leader.receive(said)
        leader.select()
    assert leader.state is State.SELECTED
    again = check(controlling=True, seed=2)
    again.receive(bytes(recorded))
    assert again.state not in {State.PROVEN, State.SELECTED}


def test_a_selection_before_the_proof_fails() -> None:
    follower = check(controlling=False)
    attributes = [(int(Attribute.ICE_CONTROLLING), pack_uint64(1)), (int(Attribute.USE_CANDIDATE), b"")]
    follower.receive(framed(encode(Method.BINDING, Class.REQUEST, bytes(12), attributes, key=KEY)))
    assert follower.state is State.FAILED


def test_the_controlled_end_cannot_select() -> None:
    leader, _ = proven()
    attributes = [(int(Attribute.ICE_CONTROLLED), pack_uint64(1)), (int(Attribute.USE_CANDIDATE), b"")]
    leader.receive(framed(encode(Method.BINDING, Class.REQUEST, bytes(12), attributes, key=KEY)))
    assert leader.state is State.FAILED


@pytest.mark.parametrize(
    "said",
    [
        framed(b"\x16\x03\x01\x02\x00\x01\x00\x01"),
        b"GET / HTTP/1.1\r\n\r\n",
        framed(encode(Method.BINDING, Class.REQUEST, bytes(12), [(int(Attribute.ICE_CONTROLLED), bytes(8))])),
        framed(encode(Method.BINDING, Class.REQUEST, bytes(12), [], key=KEY)),
        framed(encode(Method.BINDING, Class.SUCCESS, bytes(12), [], key=KEY)),
        framed(encode(Method.BINDING, Class.ERROR, bytes(12), [], key=KEY)),
        framed(encode(Method.ALLOCATE, Class.REQUEST, bytes(12), [(int(Attribute.ICE_CONTROLLED), bytes(8))], key=KEY)),
        framed(
            encode(
                Method.BINDING,
                Class.REQUEST,
                bytes(12),
                [(int(Attribute.ICE_CONTROLLED), bytes(8))],
                key=KEY,
                sha256=False,
                sha1=True,
            )
        ),
        b"\xff\xff",
        b"\0\0",
    ],
)
def test_anything_else_fails(said: bytes) -> None:
    one = check(controlling=True)
    one.receive(said)
    assert one.state is State.FAILED


def test_endless_requests_fail() -> None:
    one = check(controlling=True)
    request = framed(
        encode(Method.BINDING, Class.REQUEST, bytes(12), [(int(Attribute.ICE_CONTROLLED), bytes(8))], key=KEY)
    )
    one.receive(request * MESSAGES_MAX)
    assert one.state is State.CHECKING
    one.receive(request)
    assert one.state is State.FAILED


@given(st.lists(st.binary(max_size=700), max_size=5), st.booleans())
def test_any_bytes_prove_nothing_and_do_no_harm(pieces: list[bytes], controlling: bool) -> None:
    one = check(controlling=controlling)
    for piece in pieces:
        one.receive(piece)
    assert one.state in {State.CHECKING, State.FAILED}
