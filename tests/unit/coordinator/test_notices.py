"""What replicas tell each other fits a notice, and what cannot be read is passed over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warren.coordinator.notices import (
    RevisionReached,
    SessionEnded,
    SignalSent,
    notice_of,
    read_notice,
    revision_notice,
)
from warren.coordinator.store import NOTICE_CHARACTERS_MAX
from warren.proto.control.messages import SIGNAL_BYTES_MAX

KEY = bytes(range(32))


def test_notices_come_back_as_they_were_made() -> None:
    assert read_notice(revision_notice(KEY, 2**40)) == RevisionReached(KEY, 2**40)
    for value in (SignalSent(KEY, KEY, KEY, b"x" * SIGNAL_BYTES_MAX), SessionEnded(KEY, KEY, "ab" * 8)):
        assert read_notice(notice_of(value)) == value


def test_the_longest_signal_fits() -> None:
    assert len(notice_of(SignalSent(KEY, KEY, KEY, bytes(SIGNAL_BYTES_MAX)))) <= NOTICE_CHARACTERS_MAX


@given(st.one_of(st.text(), st.text().map(lambda text: "+" + text), st.binary().map(lambda b: f"{b!r} 1")))
def test_what_cannot_be_read_is_none(text: str) -> None:
    assert read_notice(text) is None
