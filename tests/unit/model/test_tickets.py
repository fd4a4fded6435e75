"""Tickets and access strings: each way of being wrong has its own sentence."""

from __future__ import annotations

import base64
from collections import Counter

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.networks import NOW_S, MadeNetwork, signing_key
from warren.errors import UsageError
from warren.model.documents import Coordinator
from warren.model.envelope import Envelope, pack_envelope, seal
from warren.model.tickets import (
    ACCESS_SCHEME,
    TEXT_CHARACTERS_MAX,
    TICKET_SCHEME,
    Access,
    access_text,
    read_access,
    read_ticket,
    ticket_text,
)

HOME = MadeNetwork()
TICKET = HOME.ticket()
TEXT = ticket_text(TICKET)
ACCESS = Access(("https://c.example:443", "https://[2001:db8::1]:8443"), signing_key("c").verify_key, "s" * 43)
ACCESS_TEXT = access_text(ACCESS)

NOT_A_TICKET = "this is not a ticket; a ticket begins with warren-ticket:"
DAMAGED = "the ticket was cut off or damaged on its way; copy all of it, from warren-ticket: to its end"
FORGED = "the signature of the ticket is wrong: a character was changed, or it is a forgery; "
NO_ACCESS = "this is not an access string; an access string begins with warren-access:"
DAMAGED_ACCESS = "the access string was cut off or damaged on its way; "


def why(text: str, now_s: float = NOW_S) -> str:
    with pytest.raises(UsageError) as refused:
        read_ticket(text, now_s)
    return str(refused.value)


def why_access(text: str) -> str:
    with pytest.raises(UsageError) as refused:
        read_access(text)
    return str(refused.value)


def as_text(scheme: str, data: bytes) -> str:
    return scheme + base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_ticket_is_read_as_it_was_written() -> None:
    assert read_ticket(TEXT, NOW_S) == TICKET
    assert TEXT.isascii()
    assert " " not in TEXT
    assert "=" not in TEXT
    four = HOME.ticket(coordinators=(Coordinator(url="https://" + "c" * 248, key=HOME.key.raw),) * 4, secret=bytes(64))
    assert len(ticket_text(four)) < TEXT_CHARACTERS_MAX // 2
    assert read_ticket(ticket_text(four), NOW_S) == four


@pytest.mark.parametrize("wrap", ["{}", "  {}\n", "\t{}\r\n"])
def test_space_around_and_in_a_ticket_does_no_harm(wrap: str) -> None:
    lines = "\n  ".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76))
    for text in (TEXT, lines, TEXT.replace("warren-ticket", "Warren-Ticket")):
        assert read_ticket(wrap.format(text), NOW_S) == TICKET


@pytest.mark.parametrize(
    "text", ["", "hello", "warren-ticket", "ticket:abc", TEXT[1:], f"x{TEXT}", "https://c.example/x"]
)
def test_what_is_no_ticket_at_all_is_told_so(text: str) -> None:
    assert why(text) == NOT_A_TICKET


def test_an_access_string_is_told_from_a_ticket_and_back() -> None:
    assert why(ACCESS_TEXT) == "this is an access string, not a ticket; a ticket begins with warren-ticket:"
    assert why_access(TEXT) == "this is a ticket, not an access string; an access string begins with warren-access:"


def test_a_ticket_cut_off_anywhere_is_told_so() -> None:
    for length in range(len(TICKET_SCHEME), len(TEXT)):
        assert why(TEXT[:length]) == DAMAGED
    for length in range(len(TICKET_SCHEME)):
        assert why(TEXT[:length]) == NOT_A_TICKET


@pytest.mark.parametrize("more", ["A", "AA", "AAAA", ".", "=", "é", "\0"])
def test_a_ticket_with_something_after_it_is_told_so(more: str) -> None:
    assert why(TEXT + more) == DAMAGED


def test_a_character_changed_anywhere_is_noticed() -> None:
    told: Counter[str] = Counter()
    for at in range(len(TICKET_SCHEME), len(TEXT)):
        for other in "Az0-_.":
            if TEXT[at] != other:
                told[why(TEXT[:at] + other + TEXT[at + 1 :])[:40]] += 1
    assert set(told) == {DAMAGED[:40], FORGED[:40]}
    assert told[FORGED[:40]] > 200


def test_a_forged_ticket_is_told_so() -> None:
    stolen = msgspec.structs.replace(seal("ticket", TICKET.envelope.payload, signing_key("mine")), signer=HOME.key.raw)
    assert why(as_text(TICKET_SCHEME, pack_envelope(stolen))).startswith(FORGED)


def test_a_signed_ticket_that_cannot_be_is_told_why() -> None:
    for content, reason in (
        (TICKET.envelope.payload, "a ticket document of another network"),
        (b"\x80", "not a ticket document"),
    ):
        text = as_text(TICKET_SCHEME, pack_envelope(seal("ticket", content, signing_key("mine"))))
        assert why(text).startswith(f"the ticket cannot be used ({reason}")


def test_another_document_is_no_ticket() -> None:
    text = as_text(TICKET_SCHEME, pack_envelope(HOME.membership("web").envelope))
    assert why(text) == "this is a signed membership document, not a ticket; paste what `invite` printed"


def test_an_envelope_has_one_spelling() -> None:
    whole = msgspec.structs.asdict(TICKET.envelope)
    other_order = msgspec.msgpack.encode(dict(reversed(whole.items())))
    assert msgspec.msgpack.decode(other_order, type=Envelope) == TICKET.envelope
    assert why(as_text(TICKET_SCHEME, other_order)) == DAMAGED


def test_an_expired_ticket_says_since_when_and_by_which_clock() -> None:
    ticket = ticket_text(HOME.ticket(not_after=NOW_S))
    read_ticket(ticket, NOW_S - 1)
    assert why(ticket, NOW_S) == (
        "the ticket for home expired at 2027-01-15 08:00:00 UTC, and by the clock of this machine it is "
        "2027-01-15 08:00:00 UTC; ask for a new ticket, or set the clock right"
    )
    assert "it is second 1000000000000000 since 1970" in why(ticket, 1e15)


def test_a_clock_in_the_past_does_not_keep_anybody_out() -> None:
    assert read_ticket(TEXT, 0.0) == TICKET


def test_a_text_without_end_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base64, "b64decode", None)
    assert why(TICKET_SCHEME + "A" * 10_000_000) == DAMAGED


@given(st.text(max_size=100) | st.binary(max_size=200).map(lambda data: as_text(TICKET_SCHEME, data)))
@example("warren-ticket:")
@example("warren-ticket:" + "A" * 5)
@example(as_text(TICKET_SCHEME, b"\x91" * 4000))
@example("warren-ticket:\ud800")
def test_no_text_does_more_than_be_refused_as_a_ticket(text: str) -> None:
    assert why(text)


@given(
    st.text(max_size=100)
    | st.binary(max_size=200).map(lambda data: as_text(ACCESS_SCHEME, data))
    | st.dictionaries(
        st.sampled_from(["urls", "key", "secret", "check"]), st.text() | st.binary() | st.lists(st.text())
    )
    .map(msgspec.msgpack.encode)
    .map(lambda data: as_text(ACCESS_SCHEME, data))
)
@example(as_text(ACCESS_SCHEME, b"\x91" * 4000))
def test_no_text_does_more_than_be_refused_as_an_access(text: str) -> None:
    assert why_access(text)


def test_an_access_string_is_read_as_it_was_written() -> None:
    assert read_access(f" {ACCESS_TEXT[:80]}\n{ACCESS_TEXT[80:]} ") == ACCESS


def test_an_access_string_cut_off_or_changed_anywhere_is_told_so() -> None:
    start = len(ACCESS_SCHEME)
    for at in range(start, len(ACCESS_TEXT)):
        assert why_access(ACCESS_TEXT[:at]).startswith(DAMAGED_ACCESS)
        for other in "Az0-_.":
            if ACCESS_TEXT[at] != other:
                assert why_access(ACCESS_TEXT[:at] + other + ACCESS_TEXT[at + 1 :]).startswith(DAMAGED_ACCESS)
    assert why_access("hello") == NO_ACCESS


@pytest.mark.parametrize(
    "access",
    [
        Access((), ACCESS.key, ACCESS.secret),
        Access(("http://c",), ACCESS.key, ACCESS.secret),
        Access(("https://c",) * 17, ACCESS.key, ACCESS.secret),
        Access(("https://c",), ACCESS.key, "short"),
        Access(("https://c",), ACCESS.key, "white space in it, long enough"),
        Access(("https://c",), ACCESS.key, "s" * 43 + "\n"),
        Access(("https://c",), ACCESS.key, "s" * 257),
    ],
)
def test_what_could_not_be_read_is_not_written(access: Access) -> None:
    with pytest.raises(ValueError, match="no access string can be made"):
        access_text(access)


def test_no_secret_is_shown() -> None:
    assert ACCESS.secret not in repr(ACCESS) + repr([ACCESS])
    assert "0123456789abcdef" not in repr(read_ticket(TEXT, NOW_S))
