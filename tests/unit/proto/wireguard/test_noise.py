"""Our Noise against ``noiseprotocol``, which shares no code with it."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise.connection import Keypair as Role
from noise.connection import NoiseConnection

from warren.proto.wireguard.constants import CONSTRUCTION, IDENTIFIER
from warren.proto.wireguard.noise import Initiator, KeyPair, Rejected, Responder

logging.getLogger("noise").setLevel(logging.CRITICAL)

keys = st.binary(min_size=32, max_size=32)


def oracle(initiator: bool, prologue: bytes, psk: bytes, static: bytes, ephemeral: bytes, remote: bytes = b"") -> Any:
    connection = NoiseConnection.from_name(CONSTRUCTION)
    (connection.set_as_initiator if initiator else connection.set_as_responder)()
    connection.set_prologue(prologue)
    connection.set_psks(psk=psk)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of fixed ephemeral keys, which a test needs
        connection.set_keypair_from_private_bytes(Role.STATIC, static)
        connection.set_keypair_from_private_bytes(Role.EPHEMERAL, ephemeral)
        if remote:
            connection.set_keypair_from_public_bytes(Role.REMOTE_STATIC, remote)
        connection.start_handshake()
    return connection


def transport_keys(connection: Any) -> tuple[bytes, bytes]:
    protocol = connection.noise_protocol
    return protocol.cipher_state_encrypt.k, protocol.cipher_state_decrypt.k


@settings(max_examples=25)
@given(keys, keys, keys, keys, keys, st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_both_roles_write_and_read_what_the_oracle_does(
    static_i: bytes,
    static_r: bytes,
    ephemeral_i: bytes,
    ephemeral_r: bytes,
    psk: bytes,
    prologue: bytes,
    payload_1: bytes,
    payload_2: bytes,
) -> None:
    ours_i, ours_r = KeyPair(static_i), KeyPair(static_r)
    shared = ours_i.exchange(ours_r.public)
    theirs_i = oracle(True, prologue, psk, static_i, ephemeral_i, ours_r.public)
    theirs_r = oracle(False, prologue, psk, static_r, ephemeral_r)

    initiator = Initiator(ours_i, prologue)
    first = initiator.write(ours_r.public, shared, KeyPair(ephemeral_i), payload_1)
    assert first == bytes(theirs_i.write_message(payload_1))
    assert bytes(theirs_r.read_message(first)) == payload_1

    responder = Responder(ours_r, prologue)
    assert responder.read_static(first) == ours_i.public
    assert responder.read_payload(shared) == payload_1
    second = responder.write(KeyPair(ephemeral_r), psk, payload_2)
    assert second == bytes(theirs_r.write_message(payload_2))
    assert initiator.read(second, psk) == bytes(theirs_i.read_message(second)) == payload_2

    assert initiator.split() == transport_keys(theirs_i)
    assert responder.split() == transport_keys(theirs_r)
    assert initiator.split() == responder.split()[::-1]


STATIC_I, STATIC_R = KeyPair(b"\x01" * 32), KeyPair(b"\x02" * 32)
SHARED = STATIC_I.exchange(STATIC_R.public)
PSK = b"\x05" * 32


def begun() -> tuple[Initiator, bytes]:
    initiator = Initiator(STATIC_I, IDENTIFIER)
    return initiator, initiator.write(STATIC_R.public, SHARED, KeyPair(b"\x03" * 32), b"timestamp...")


def read_first(message: bytes) -> bytes:
    responder = Responder(STATIC_R, IDENTIFIER)
    responder.read_static(message)
    return responder.read_payload(SHARED)


@pytest.mark.parametrize("at", range(0, 108, 9))
def test_a_changed_first_message_is_rejected(at: int) -> None:
    _, first = begun()
    changed = bytearray(first)
    changed[at] ^= 1
    with pytest.raises(Rejected):
        read_first(bytes(changed))


@pytest.mark.parametrize("at", range(0, 48, 7))
def test_a_changed_second_message_is_rejected_and_the_genuine_one_still_accepted(at: int) -> None:
    initiator, first = begun()
    responder = Responder(STATIC_R, IDENTIFIER)
    responder.read_static(first)
    responder.read_payload(SHARED)
    second = responder.write(KeyPair(b"\x04" * 32), PSK, b"")
    changed = bytearray(second)
    changed[at] ^= 1
    with pytest.raises(Rejected):
        initiator.read(bytes(changed), PSK)
    with pytest.raises(Rejected):
        initiator.read(second, bytes(32))
    assert initiator.read(second, PSK) == b""
    assert initiator.split() == responder.split()[::-1]


def test_a_static_key_that_the_sender_does_not_have_is_rejected_with_the_payload() -> None:
    mallory = KeyPair(b"\x09" * 32)
    pretender = Initiator(STATIC_I, IDENTIFIER)  # seals the victim's public key …
    first = pretender.write(STATIC_R.public, mallory.exchange(STATIC_R.public), KeyPair(b"\x03" * 32), b"timestamp...")
    responder = Responder(STATIC_R, IDENTIFIER)
    assert responder.read_static(first) == STATIC_I.public  # … which is a claim only
    with pytest.raises(Rejected):
        responder.read_payload(SHARED)


@given(st.binary(max_size=200))
def test_arbitrary_messages_are_rejected_and_nothing_else(data: bytes) -> None:
    with pytest.raises(Rejected):
        Responder(STATIC_R, IDENTIFIER).read_static(data)
    initiator, _ = begun()
    with pytest.raises(Rejected):
        initiator.read(data, PSK)


def test_the_all_zero_shared_secret_is_refused() -> None:
    for point in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(Rejected):
            STATIC_I.exchange(point)
