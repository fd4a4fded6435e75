"""Check keys: the same on both sides, different for every pair and network."""

from __future__ import annotations

from warren.identity.keys import PrivateKey, PublicKey
from warren.identity.signing import SigningKey
from warren.reach.keys import CHECK_KEY_BYTES, SECRET_BYTES, CheckKeys, check_key, mapping_secret

A, B, C = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
HOME, WORK = bytes(32), bytes([1]) * 32


def test_both_sides_make_the_same_key_and_nobody_else_does() -> None:
    key = check_key(A, B.public_key(), HOME)
    assert key is not None
    assert len(key) == CHECK_KEY_BYTES
    assert check_key(B, A.public_key(), HOME) == key
    assert check_key(C, A.public_key(), HOME) != key
    assert check_key(A, B.public_key(), WORK) != key


def test_with_a_key_of_low_order_nobody_shares_a_secret() -> None:
    """Whoever publishes one would know what key results."""
    assert check_key(A, PublicKey(bytes(32)), HOME) is None
    assert check_key(A, PublicKey(bytes([1]) + bytes(31)), HOME) is None
    assert CheckKeys(HOME).of([A], [PublicKey(bytes(32))]) == ()


def test_the_present_keys_come_first() -> None:
    keys = CheckKeys(HOME)
    found = keys.of([A, C], [B.public_key(), PrivateKey(bytes([4]) * 32).public_key()])
    assert found[0] == check_key(A, B.public_key(), HOME)
    assert len(set(found)) == 4
    keys.keep([A], [B.public_key()])
    assert keys.of([A, C], [B.public_key()])[0] == found[0]


def test_a_node_has_one_secret_for_gateways_in_each_network_and_has_it_again() -> None:
    key, other = SigningKey(bytes(32)), SigningKey(bytes([1]) * 32)
    secret = mapping_secret(key, HOME)
    assert len(secret) == SECRET_BYTES
    assert mapping_secret(SigningKey(bytes(32)), HOME) == secret
    assert len({secret, mapping_secret(key, WORK), mapping_secret(other, HOME), key.seed}) == 4
