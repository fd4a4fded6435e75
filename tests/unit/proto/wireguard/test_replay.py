"""Each counter passes once, however they arrive. Both twins: the compiled window is seen through its OpeningKey."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.support.twins import COMPILED, PURE, Twin, over_both_twins
from warren.proto.wireguard.constants import REJECT_AFTER_MESSAGES
from warren.proto.wireguard.replay import WINDOW, ReplayWindow

LIMIT = REJECT_AFTER_MESSAGES
BEYOND = WINDOW + 1
KEY = bytes(range(32))

Passes = Callable[[int], bool]


def window() -> Passes:
    """A pure window: whether a counter passes, once it proved authentic."""
    seen = ReplayWindow()

    def passes(counter: int) -> bool:
        fresh = seen.accepts(counter)
        if fresh:
            seen.mark(counter)
        return fresh

    return passes


def key(twin: Twin) -> Passes:
    """A whole receiving key: whether an authentic message with this counter is opened."""
    opening = twin.opening_key(KEY, 1)
    cipher = ChaCha20Poly1305(KEY)

    def passes(counter: int) -> bool:
        tag = cipher.encrypt(struct.pack("<IQ", 0, counter), b"", None)
        message = bytearray(struct.pack("<IIQ", 4, 1, counter) + tag)
        return bool(opening.open(message, 0, len(message), len(message), array("i", [0])))

    return passes


# Steps (counter, whether it passes), after the kernel's and wireguard-go's own tests of their windows.
MIXED = [
    (0, True), (1, True), (1, False), (9, True), (8, True), (7, True), (7, False),
    (BEYOND, True), (BEYOND - 1, True), (BEYOND - 1, False), (BEYOND - 2, True), (2, True), (2, False),
    (BEYOND + 16, True), (3, False), (BEYOND + 16, False),
    (BEYOND * 4, True), (BEYOND * 4 - (BEYOND - 1), True), (10, False), (BEYOND * 4 - BEYOND, False),
    (BEYOND * 4 - (BEYOND + 1), False), (BEYOND * 4 - (BEYOND - 2), True), (BEYOND * 4 + 1 - BEYOND, False), (0, False),
    (LIMIT - 1, True), (LIMIT - 1, False), (LIMIT - 2, True), (LIMIT - 2, False), (LIMIT - 3, True), (0, False),
]  # fmt: skip
SEQUENCES = {
    "mixed": MIXED,
    "a full window, then its very first": [(i, True) for i in range(1, WINDOW + 1)] + [(0, True), (0, False)],
    "a full window, then its first and too old": [(i, True) for i in range(2, WINDOW + 2)] + [(1, True), (0, False)],
    "backwards through the window": [(i, True) for i in range(WINDOW + 1, 0, -1)],
    "backwards, then too old": [(i, True) for i in range(WINDOW + 2, 1, -1)] + [(0, False)],
    "backwards, one on, then too old": [(i, True) for i in range(WINDOW, 0, -1)] + [(WINDOW + 1, True), (0, False)],
    "backwards, the first, one on": [(i, True) for i in range(WINDOW, -1, -1)] + [(WINDOW + 1, True)],
    "a jump over the whole ring": [(5, True), (5 + 64 * 128, True), (5 + 64 * 127, True), (5, False), (69, True)],
    "a jump onto a block's own place": [(5, True), (6 + 64 * 128, True), (5 + 64 * 128, True)],
    "a jump far beyond the ring": [(5, True), (9 + 64 * 300, True), (5 + 64 * 256, True), (9 + 64 * 300, False)],
    "a jump of one block less": [(5, True), (64 * 127, True), (5, False), (4, True), (64 * 127, False)],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_window_lets_through_what_it_should(name: str) -> None:
    passes = window()
    for step, (counter, expected) in enumerate(SEQUENCES[name]):
        assert passes(counter) == expected, (step, counter)


@over_both_twins
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_key_lets_through_what_it_should(twin: Twin, name: str) -> None:
    passes = key(twin)
    for step, (counter, expected) in enumerate(SEQUENCES[name]):
        assert passes(counter) == expected, (step, counter)


@over_both_twins
@pytest.mark.parametrize("counter", [LIMIT, LIMIT + 1, LIMIT + 2, 2**64 - 1])
def test_a_key_never_takes_a_counter_at_the_limit(twin: Twin, counter: int) -> None:
    passes = key(twin)
    assert not passes(counter)
    assert passes(0)


class Model:
    """The window as a set of all there ever was."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def passes(self, counter: int) -> bool:
        greatest = max(self.seen, default=0)
        if counter in self.seen or greatest - counter > WINDOW:
            return False
        self.seen.add(counter)
        return True


moves = st.lists(
    st.one_of(
        st.integers(-3, 3),
        st.integers(-130, 130),
        st.integers(-WINDOW - 70, -WINDOW + 70),
        st.integers(WINDOW - 200, WINDOW + 200),
        st.integers(-20_000, 20_000),
    ),
    min_size=5,
    max_size=80,
)


@given(start=st.sampled_from([0, 1, 63, 64, 8191, 10**6, LIMIT - 5]), steps=moves)
def test_a_window_agrees_with_a_set_of_all_counters(start: int, steps: list[int]) -> None:
    model, candidates = Model(), [window()]
    candidates += [key(twin) for twin in (PURE, COMPILED) if twin]
    at = start
    for step in [0, *steps]:
        at = min(max(at + step, 0), LIMIT - 1)
        expected = model.passes(at)
        assert [passes(at) for passes in candidates] == [expected] * len(candidates)
