"""Sealing and opening trains of data messages, the same in both twins and as PyNaCl does it."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_decrypt as nacl_decrypt
from nacl.bindings import crypto_aead_chacha20poly1305_ietf_encrypt as nacl_encrypt

from tests.support.twins import COMPILED, PURE, Twin, needs_both_twins, over_both_twins

KEY = bytes(range(100, 132))
INDEX = 0x1A2B3C4D
LIMIT = 2**64 - 2**13 - 1
AUTH, REPLAY, MALFORMED, FOREIGN, LIMITED = -1, -2, -3, -4, -5


def message(plaintext: bytes, counter: int, key: bytes = KEY, index: int = INDEX, kind: int = 4) -> bytes:
    """A data message as libsodium makes it."""
    nonce = struct.pack("<IQ", 0, counter)
    return struct.pack("<IIQ", kind, index, counter) + nacl_encrypt(plaintext, None, nonce, key)


def train(messages: list[bytes], at: int = 0, stride: int = 0) -> tuple[bytearray, int, int]:
    """The messages as one train in a buffer: buffer, end, stride."""
    stride = stride or len(messages[0])
    assert all(len(one) == stride for one in messages[:-1])
    data = bytearray(at) + b"".join(messages)
    return data + bytearray(9), len(data), stride


def opened(key: object, messages: list[bytes]) -> list[int]:
    """What ``open`` puts into ``lengths``; its return value is checked to fit."""
    buffer, end, stride = train(messages)
    lengths = array("i", [99] * len(messages))
    assert key.open(buffer, 0, end, stride, lengths) == sum(length >= 0 for length in lengths)  # type: ignore[attr-defined]
    return lengths.tolist()


@over_both_twins
class TestSealing:
    @pytest.mark.parametrize("size", [0, 1, 16, 64, 1000, 1420])
    @pytest.mark.parametrize("last", [0, 16, 1420])
    def test_makes_what_libsodium_would(self, twin: Twin, size: int, last: int) -> None:
        plain = [bytes([i]) * size for i in range(5)] + [b"\xee" * min(last, size)]
        buffer, end, stride = train([b"h" * 16 + one + b"t" * 16 for one in plain], at=5)
        key = twin.sealing_key(KEY, INDEX)
        key.counter = 2**40 + 3
        key.seal(buffer, 5, end, stride)
        assert buffer[:5] == bytes(5)
        assert buffer[5:end] == b"".join(message(one, 2**40 + 3 + i) for i, one in enumerate(plain))
        assert buffer[end:] == bytes(9)
        assert key.counter == 2**40 + 3 + len(plain)

    def test_starts_at_zero_and_never_repeats_a_counter(self, twin: Twin) -> None:
        key = twin.sealing_key(KEY, INDEX)
        used = []
        for count in (1, 3, 2):
            buffer = bytearray(32 * count)
            key.seal(buffer, 0, 32 * count, 32)
            used += [counter for (counter,) in struct.iter_unpack("<8xQ16x", buffer)]
        assert used == list(range(6))

    def test_of_nothing_does_nothing(self, twin: Twin) -> None:
        key = twin.sealing_key(KEY, INDEX)
        buffer = bytearray(b"abc")
        key.seal(buffer, 1, 1, 32)
        assert (buffer, key.counter) == (b"abc", 0)

    def test_stops_at_the_last_counter(self, twin: Twin) -> None:
        key = twin.sealing_key(KEY, INDEX)
        key.counter = LIMIT - 2
        buffer = bytearray(96)
        with pytest.raises(ValueError, match="all the messages"):
            key.seal(buffer, 0, 96, 32)
        assert (buffer, key.counter) == (bytes(96), LIMIT - 2)
        key.seal(buffer, 0, 64, 32)
        assert buffer[:64] == message(b"", LIMIT - 2) + message(b"", LIMIT - 1)
        for counter in (LIMIT, 2**64 - 1):
            key.counter = counter
            with pytest.raises(ValueError, match="all the messages"):
                key.seal(buffer, 0, 32, 32)

    @pytest.mark.parametrize(("at", "end", "stride"), [
        (0, 201, 50), (-1, 100, 50), (60, 50, 50), (0, 100, 0), (0, 100, -50), (201, 201, 50), (0, 181, 50),
        (0, 81, 50), (0, 31, 50), (0, 64, 31),
    ])  # fmt: skip
    def test_of_what_is_no_train_is_the_callers_fault(self, twin: Twin, at: int, end: int, stride: int) -> None:
        key = twin.sealing_key(KEY, INDEX)
        buffer = bytearray(200)
        with pytest.raises(ValueError, match=r"train|slot"):
            key.seal(buffer, at, end, stride)
        assert (buffer, key.counter) == (bytes(200), 0)

    def test_ends_when_the_key_is_wiped(self, twin: Twin) -> None:
        key = twin.sealing_key(KEY, INDEX)
        key.wipe()
        key.wipe()
        with pytest.raises(ValueError, match="wiped"):
            key.seal(bytearray(32), 0, 32, 32)


@over_both_twins
class TestOpening:
    @pytest.mark.parametrize("size", [0, 1, 16, 64, 1000, 1420])
    @pytest.mark.parametrize("last", [0, 5, 1420])
    def test_reads_what_libsodium_made(self, twin: Twin, size: int, last: int) -> None:
        plain = [bytes([i]) * size for i in range(5)] + [b"\xee" * min(last, size)]
        buffer, end, stride = train([message(one, 7 + i) for i, one in enumerate(plain)], at=3)
        lengths = array("i", [99] * 8)
        assert twin.opening_key(KEY, INDEX).open(buffer, 3, end, stride, lengths) == 6
        assert lengths.tolist() == [len(one) for one in plain] + [99, 99]
        for i, one in enumerate(plain):
            start = 3 + i * stride + 16
            assert buffer[start : start + len(one)] == one

    def test_refuses_every_single_flipped_bit(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        good = message(b"fourteen bytes", 5)
        for at in range(16, len(good)):
            for bit in range(8):
                bad = bytearray(good)
                bad[at] ^= 1 << bit
                assert opened(key, [bytes(bad)]) == [AUTH]
        for at in range(8, 16):  # another counter is another nonce
            bad = bytearray(good)
            bad[at] ^= 1
            assert opened(key, [bytes(bad)]) == [AUTH]
        assert opened(key, [good]) == [14]

    def test_refuses_another_key(self, twin: Twin) -> None:
        assert opened(twin.opening_key(KEY, INDEX), [message(b"", 0, key=bytes(32))]) == [AUTH]

    def test_takes_each_counter_once_within_and_across_trains(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        first, second = message(b"a", 0), message(b"b", 1)
        assert opened(key, [first, first, second, first]) == [1, REPLAY, 1, REPLAY]
        assert opened(key, [second, first]) == [REPLAY, REPLAY]

    def test_does_not_let_a_forgery_use_up_or_move_the_window(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        far = bytearray(message(b"x", 10**9))
        far[-1] ^= 1
        forged = bytearray(message(b"x", 1))
        forged[-1] ^= 1
        assert opened(key, [bytes(far), bytes(forged)]) == [AUTH, AUTH]
        assert opened(key, [message(b"x", 0), message(b"x", 1), message(b"x", 10**9)]) == [1, 1, 1]

    def test_judges_the_counter_before_the_tag(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        assert opened(key, [message(b"", 20_000)]) == [0]
        forged = bytearray(message(b"", 20_000))
        forged[-1] ^= 1
        old = bytearray(message(b"", 20_000 - 8129))
        old[-1] ^= 1
        assert opened(key, [bytes(forged), bytes(old)]) == [REPLAY, REPLAY]
        assert opened(key, [message(b"", 20_000 - 8128)]) == [0]

    @pytest.mark.parametrize("counter", [LIMIT, LIMIT + 1, 2**64 - 1])
    def test_refuses_counters_at_the_limit(self, twin: Twin, counter: int) -> None:
        key = twin.opening_key(KEY, INDEX)
        assert opened(key, [message(b"x", counter), message(b"x", LIMIT - 1)]) == [LIMITED, 1]

    @pytest.mark.parametrize("kind", [0, 1, 2, 3, 5, 0x104, 0x40000, 0x4000004])
    def test_leaves_other_kinds_of_message_alone(self, twin: Twin, kind: int) -> None:
        foreign = message(b"x" * 50, 0, kind=kind)
        buffer, end, stride = train([foreign])
        lengths = array("i", [0])
        assert twin.opening_key(KEY, INDEX).open(buffer, 0, end, stride, lengths) == 0
        assert lengths[0] == FOREIGN
        assert buffer[:end] == foreign

    @pytest.mark.parametrize("bit", range(32))
    def test_leaves_messages_for_another_index_alone(self, twin: Twin, bit: int) -> None:
        assert opened(twin.opening_key(KEY, INDEX ^ 1 << bit), [message(b"x", 0)]) == [FOREIGN]

    def test_calls_short_datagrams_malformed(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        good = message(b"", 0)
        for length in range(1, 32):
            assert opened(key, [good[:length]]) == [MALFORMED]
            assert opened(key, [bytes(40), good[:length]]) == [FOREIGN, MALFORMED]
        assert opened(key, [good]) == [0]

    def test_of_nothing_opens_nothing(self, twin: Twin) -> None:
        assert twin.opening_key(KEY, INDEX).open(bytearray(5), 5, 5, 1, array("i")) == 0

    @pytest.mark.parametrize(("at", "end", "stride"), [
        (0, 201, 50), (-1, 100, 50), (60, 50, 50), (0, 100, 0), (0, 100, -50), (201, 201, 50),
    ])  # fmt: skip
    def test_of_what_is_no_train_is_the_callers_fault(self, twin: Twin, at: int, end: int, stride: int) -> None:
        with pytest.raises(ValueError, match="train"):
            twin.opening_key(KEY, INDEX).open(bytearray(200), at, end, stride, array("i", bytes(40)))

    def test_wants_lengths_of_the_right_kind(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        for lengths in (array("i", [0]), array("q", bytes(160)), array("I", bytes(80)), array("b", bytes(40))):
            with pytest.raises(ValueError, match="lengths"):
                key.open(bytearray(64), 0, 64, 32, lengths)

    def test_ends_when_the_key_is_wiped(self, twin: Twin) -> None:
        key = twin.opening_key(KEY, INDEX)
        key.wipe()
        key.wipe()
        with pytest.raises(ValueError, match="wiped"):
            key.open(bytearray(32), 0, 32, 32, array("i", [0]))


@over_both_twins
class TestAKey:
    @pytest.mark.parametrize("kind", ["sealing_key", "opening_key"])
    @pytest.mark.parametrize(("key", "index"), [(KEY[:31], 0), (KEY + b"x", 0), (b"", 0), (KEY, -1), (KEY, 2**32)])
    def test_has_32_bytes_and_an_index_of_32_bits(self, twin: Twin, kind: str, key: bytes, index: int) -> None:
        with pytest.raises(ValueError, match="32 bytes with a 32-bit index"):
            getattr(twin, kind)(key, index)

    @pytest.mark.parametrize("kind", ["sealing_key", "opening_key"])
    def test_does_not_show_itself(self, twin: Twin, kind: str) -> None:
        key = getattr(twin, kind)(b"secretsecretsecretsecretsecretss", 1)
        assert "secret" not in repr(key)
        assert b"secret".hex() not in repr(key)


@over_both_twins
@given(
    plain=st.lists(st.binary(min_size=40, max_size=40), min_size=1, max_size=9),
    last=st.integers(0, 40),
    start=st.one_of(st.integers(0, 10**6), st.integers(0, LIMIT - 9)),
)
def test_what_is_sealed_is_opened(twin: Twin, plain: list[bytes], last: int, start: int) -> None:
    plain[-1] = plain[-1][:last]
    buffer, end, stride = train([bytes(16) + one + bytes(16) for one in plain], stride=72)
    key = twin.sealing_key(KEY, INDEX)
    key.counter = start
    key.seal(buffer, 0, end, stride)
    for i, one in enumerate(plain):
        sealed = bytes(buffer[i * 72 + 16 : min(i * 72 + 72, end)])
        assert nacl_decrypt(sealed, None, struct.pack("<IQ", 0, start + i), KEY) == one
    lengths = array("i", [0] * len(plain))
    assert twin.opening_key(KEY, INDEX).open(buffer, 0, end, stride, lengths) == len(plain)
    assert [bytes(buffer[i * 72 + 16 :][:length]) for i, length in enumerate(lengths)] == plain


GOOD = [message(b"0123456789", counter) for counter in range(4)]


@needs_both_twins
@given(
    parts=st.lists(st.one_of(st.sampled_from(GOOD), st.binary(max_size=60), st.just(GOOD[0][:20])), max_size=12),
    stride=st.one_of(st.just(len(GOOD[0])), st.integers(1, 90)),
    at=st.integers(0, 50),
)
def test_both_twins_make_the_same_of_any_datagrams(parts: list[bytes], stride: int, at: int) -> None:
    assert COMPILED is not None
    data = b"".join(parts)
    at = min(at, len(data))
    results = []
    for twin in (PURE, COMPILED):
        buffer, lengths = bytearray(data), array("i", [77] * (len(data) + 1))
        key = twin.opening_key(KEY, INDEX)
        count = key.open(buffer, at, len(data), stride, lengths)
        slots = zip(range(at, len(data), stride), lengths, strict=False)
        plain = [bytes(buffer[slot + 16 :][:length]) for slot, length in slots if length > 0]
        results.append((count, lengths.tolist(), plain, buffer[:at]))
    assert results[0] == results[1]
