from __future__ import annotations

from ipaddress import ip_address

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.path_pair import at
from warren.errors import MalformedPacket
from warren.paths.checks import key_of, label_of, names
from warren.paths.signals import (
    CANDIDATES_MAX,
    CARRIED_BYTES_MAX,
    CARRIED_FROM,
    CARRY_TO,
    SIGNAL_BYTES_MAX,
    Place,
    Signal,
    places,
    read_signal_untrusted,
    seal_carried,
    seal_signal,
)
from warren.paths.values import RemoteCandidate
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode

KEY = bytes(32)
A, B = label_of(b"a" * 32), label_of(b"b" * 32)


def seal(signal: Signal) -> bytes:
    return seal_signal(signal, key=KEY, transaction=bytes(12), receiver=A, sender=B)


def test_a_signal_says_what_was_sealed() -> None:
    candidates = (RemoteCandidate("srflx", at("198.51.100.1", 7)), RemoteCandidate("relay", at("2001:db8::1", 9)))
    signal = Signal(True, places(candidates), "v4:open", 256, b"record")
    message = decode_untrusted(seal(signal), SIGNAL_BYTES_MAX)
    assert names(message) == (A, B)
    assert key_of(message, (KEY,)) == KEY
    found = read_signal_untrusted(message)
    assert found == signal
    assert found.candidates() == candidates


def test_programs_that_number_their_signals_and_those_that_do_not_read_each_other() -> None:
    class Before(msgspec.Struct, frozen=True, array_like=True):
        asks: bool
        places: tuple[Place, ...] = ()
        nat: str = ""
        sockets: int = 0
        record: bytes = b""

    old, new = Before(True, (), "v4:open", 3, b"r"), Signal(True, (), "v4:open", 3, b"r", epoch=2**64 - 1, order=5)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(new), type=Before) == old
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Signal)
    assert read == Signal(True, (), "v4:open", 3, b"r")


NOWHERE = ("127.0.0.1", "0.0.0.9", "224.0.0.1", "255.255.255.255", "::1", "ff02::1", "::ffff:192.0.2.1", "::192.0.2.1")


def test_addresses_at_which_no_other_host_can_be_are_passed_over() -> None:
    """Whoever signed it may be hostile; and what we tell of ourselves comes from relays and peers that may lie."""
    where = tuple(RemoteCandidate("srflx", at(text, 7)) for text in (*NOWHERE, "198.51.100.1"))
    told = Signal(True, tuple(Place(3, one.address.ip.packed, one.address.port) for one in where))
    assert read_signal_untrusted(decode_untrusted(seal(told))).candidates() == where[-1:]
    assert Signal(True, places(where)).places == places(where[-1:])


def test_a_lie_about_our_port_does_not_make_our_signals_unreadable() -> None:
    lie = RemoteCandidate("srflx", at("198.51.100.1", 0))
    true = RemoteCandidate("srflx", at("198.51.100.1", 9))
    found = read_signal_untrusted(decode_untrusted(seal(Signal(True, places((lie, true))))))
    assert found.candidates() == (true,)


def test_as_many_candidates_as_a_signal_has_can_be_carried() -> None:
    many = tuple(RemoteCandidate("srflx", at(f"2001:db8::{number:x}", 60_000)) for number in range(1, 64))
    signal = Signal(True, places(many), "v" * 256, 1024)
    assert len(signal.places) == CANDIDATES_MAX
    data = seal(signal)
    assert len(data) <= CARRIED_BYTES_MAX
    carried = seal_carried(data, b"n" * 32, onward=True, key=KEY, transaction=bytes(12), receiver=A, sender=B)
    assert len(carried) <= 1280 - 48


def test_who_carries_is_told_to_whom_and_who_gets_it_from_whom() -> None:
    inner = seal(Signal(False))
    for onward, attribute, other in ((True, CARRY_TO, CARRIED_FROM), (False, CARRIED_FROM, CARRY_TO)):
        data = seal_carried(inner, b"n" * 32, onward=onward, key=KEY, transaction=bytes(12), receiver=A, sender=B)
        message = decode_untrusted(data)
        assert message.get(attribute) == b"n" * 32
        assert message.get(other) is None
        assert message.get(Attribute.DATA) == inner


@given(st.binary(max_size=200))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    data = encode(Method.CARRY, Class.INDICATION, bytes(12), [(int(Attribute.DATA), content)], key=KEY)
    try:
        signal = read_signal_untrusted(decode_untrusted(data))
    except MalformedPacket:
        return
    for candidate in signal.candidates():
        assert ip_address(str(candidate.address.ip))
