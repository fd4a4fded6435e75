"""Nonces that the server recognises without remembering them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.proto.stun.credentials import features_of_untrusted
from warren.proto.turn.nonce import Freshness, Nonces

KEY = bytes(range(32))
HOST = "192.0.2.7"


def test_a_nonce_is_good_for_its_client_and_its_time() -> None:
    nonces = Nonces(KEY, 60.0)
    nonce = nonces.make(HOST, 1000.0)
    assert nonces.judge_untrusted(nonce, HOST, 1000.0) is Freshness.FRESH
    assert nonces.judge_untrusted(nonce, HOST, 1060.0) is Freshness.FRESH
    assert nonces.judge_untrusted(nonce, HOST, 1061.5) is Freshness.STALE
    assert nonces.judge_untrusted(nonce, "192.0.2.8", 1000.0) is Freshness.UNKNOWN
    assert Nonces(bytes(32)).judge_untrusted(nonce, HOST, 1000.0) is Freshness.UNKNOWN


def test_a_nonce_is_of_a_whole_ipv6_network() -> None:
    nonces = Nonces(KEY)
    nonce = nonces.make("2001:db8::1", 0.0)
    assert nonces.judge_untrusted(nonce, "2001:db8::ffff", 1.0) is Freshness.FRESH
    assert nonces.judge_untrusted(nonce, "2001:db8:0:1::1", 1.0) is Freshness.UNKNOWN


def test_a_nonce_from_the_future_is_stale() -> None:
    nonces = Nonces(KEY)
    assert nonces.judge_untrusted(nonces.make(HOST, 50.0), HOST, 10.0) is Freshness.STALE


def test_it_names_the_features_of_the_server() -> None:
    nonce = Nonces(KEY).make(HOST, 0.0).decode()
    assert len(nonce) == 29
    assert nonce.isprintable()
    assert features_of_untrusted(nonce).password_algorithms
    assert not features_of_untrusted(nonce).username_anonymity


@given(st.binary(max_size=64))
def test_whatever_is_no_nonce_is_unknown(data: bytes) -> None:
    nonces = Nonces(KEY)
    assert nonces.judge_untrusted(data, HOST, 0.0) is Freshness.UNKNOWN
    genuine = nonces.make(HOST, 0.0)
    assert nonces.judge_untrusted(genuine[:13] + data, HOST, 0.0) is Freshness.UNKNOWN


def test_each_bit_of_a_nonce_counts() -> None:
    nonces = Nonces(KEY)
    genuine = nonces.make(HOST, 5.0)
    for at in range(len(genuine)):
        forged = bytearray(genuine)
        forged[at] = ord("B") if forged[at] != ord("B") else ord("C")
        assert nonces.judge_untrusted(bytes(forged), HOST, 5.0) is Freshness.UNKNOWN
