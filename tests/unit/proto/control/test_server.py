"""The coordinator's end of a node's connection."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.control_pair import AUTHORITY, CERTIFICATE, NODE, NONCE, OTHER, TICKET, TIME_S, Pair, only, record
from warren.proto.control import messages, pacing
from warren.proto.control.messages import (
    Accepted,
    Authenticate,
    Enrol,
    Leave,
    Publish,
    Refused,
    Report,
    Signal,
    Update,
    Welcome,
    authentication_bytes,
    enrolment_bytes,
    pack,
    unpack_to_node_untrusted,
)
from warren.proto.control.server import DECIDE_WITHIN_S, OUTBOX_BYTES_MAX, PROVE_WITHIN_S, ServerSession, State
from warren.proto.control.server_events import (
    AuthenticateWanted,
    Ended,
    EnrolWanted,
    LeaveWanted,
    PublishWanted,
    Reported,
    SignalWanted,
)

NETWORK = AUTHORITY.verify_key
SECRET = TICKET.secret


def session() -> ServerSession:
    return ServerSession(nonce=NONCE, certificate_sha256=CERTIFICATE, time_s=TIME_S, now=0.0, version="1")


def proof(**changed: object) -> bytes:
    signed = authentication_bytes(NETWORK, NONCE, CERTIFICATE)
    right = Authenticate(
        protocol=1, network=NETWORK.raw, node=NODE.verify_key.raw, signature=NODE.sign(signed), since=7
    )
    return pack(msgspec.structs.replace(right, **changed))


def enrolment(**changed: object) -> bytes:
    signed = enrolment_bytes(NETWORK, NONCE, CERTIFICATE, SECRET)
    right = Enrol(
        protocol=1,
        network=NETWORK.raw,
        node=NODE.verify_key.raw,
        signature=NODE.sign(signed),
        secret=SECRET,
        name="web1",
    )
    return pack(msgspec.structs.replace(right, **changed))


def opened() -> ServerSession:
    server = session()
    server.receive(proof(), 0.0)
    server.accept(observed="192.0.2.9", time_s=TIME_S)
    server.take_events()
    server.take_transmits()
    return server


def refusal(server: ServerSession) -> Refused:
    """Why the session ended; it must have, and must take nothing any more."""
    events = server.take_events()
    assert isinstance(events[-1], Ended)
    assert server.state is State.ENDED
    last = unpack_to_node_untrusted(server.take_transmits()[-1])
    assert isinstance(last, Refused)
    server.receive(proof(), 0.0)
    server.receive(pack(Leave()), 0.0)
    assert server.take_events() == []
    assert server.take_transmits() == []
    assert not server.accept(observed="", time_s=TIME_S)
    assert server.next_deadline() is None
    return last


EVERY_OTHER_MESSAGE = [
    pack(Publish(record=record())),
    pack(Report(uptime_s=1.0)),
    pack(Signal(node=OTHER.verify_key.raw, data=b"x")),
    pack(Leave()),
]


# Proofs


def test_it_greets_with_its_nonce_and_time() -> None:
    (message,) = session().take_transmits()
    assert unpack_to_node_untrusted(message) == Welcome(protocol=1, nonce=NONCE, time=TIME_S, version="1")


def test_a_proof_that_holds_is_handed_to_the_service() -> None:
    server = session()
    server.receive(proof(), 1.0)
    assert server.take_events() == [AuthenticateWanted(NETWORK.raw, NODE.verify_key.raw, 7, "")]
    assert (server.state, server.network, server.node) == (State.DECIDING, NETWORK.raw, NODE.verify_key.raw)


def test_an_enrolment_that_holds_is_handed_to_the_service() -> None:
    server = session()
    server.receive(enrolment(), 1.0)
    assert server.take_events() == [EnrolWanted(NETWORK.raw, NODE.verify_key.raw, SECRET, "web1", "")]


@pytest.mark.parametrize(
    "changed",
    [
        {"signature": bytes(64)},
        {"signature": OTHER.sign(authentication_bytes(NETWORK, NONCE, CERTIFICATE))},
        {"signature": NODE.sign(authentication_bytes(NETWORK, bytes(32), CERTIFICATE))},
        {"signature": NODE.sign(authentication_bytes(NETWORK, NONCE, bytes(32)))},
        {"signature": NODE.sign(authentication_bytes(OTHER.verify_key, NONCE, CERTIFICATE))},
        {"signature": NODE.sign(enrolment_bytes(NETWORK, NONCE, CERTIFICATE, b""))},
        {"node": OTHER.verify_key.raw},
        {"network": OTHER.verify_key.raw},
    ],
)
def test_a_proof_with_anything_changed_ends_the_session(changed: dict[str, object]) -> None:
    server = session()
    server.receive(proof(**changed), 1.0)
    assert refusal(server).kind == "bad-proof"
    assert (server.node, server.network) == (b"", b"")


@pytest.mark.parametrize(
    "changed",
    [
        {"signature": NODE.sign(authentication_bytes(NETWORK, NONCE, CERTIFICATE))},
        {"signature": NODE.sign(enrolment_bytes(NETWORK, NONCE, bytes(32), SECRET))},
        {"secret": b"another secret .."},
        {"node": OTHER.verify_key.raw},
        {"network": OTHER.verify_key.raw},
    ],
)
def test_an_enrolment_with_anything_changed_ends_the_session(changed: dict[str, object]) -> None:
    server = session()
    server.receive(enrolment(**changed), 1.0)
    assert refusal(server).kind == "bad-proof"


@pytest.mark.parametrize("message", EVERY_OTHER_MESSAGE)
def test_whatever_comes_before_the_proof_ends_the_session(message: bytes) -> None:
    server = session()
    server.receive(message, 1.0)
    assert refusal(server).kind == "protocol"


@pytest.mark.parametrize("message", [*EVERY_OTHER_MESSAGE, proof(), enrolment()])
def test_whatever_comes_before_the_decision_ends_the_session(message: bytes) -> None:
    server = session()
    server.receive(proof(), 1.0)
    server.receive(message, 1.0)
    assert refusal(server).kind == "protocol"


@pytest.mark.parametrize("message", [proof(), enrolment(), proof(node=OTHER.verify_key.raw)])
def test_nobody_becomes_somebody_else_later(message: bytes) -> None:
    server = opened()
    server.receive(message, 1.0)
    assert refusal(server).kind == "protocol"
    assert server.node == NODE.verify_key.raw


def test_nothing_is_accepted_before_the_proof() -> None:
    server = session()
    with pytest.raises(ValueError, match="nothing to accept"):
        server.accept(observed="", time_s=TIME_S)


def test_another_protocol_is_refused_and_both_numbers_are_named() -> None:
    server = session()
    server.receive(proof(protocol=9), 1.0)
    refused = refusal(server)
    assert (refused.kind, refused.retry_after_s) == ("protocol", None)
    assert "protocol 9" in refused.detail


def test_the_unproved_may_send_only_little() -> None:
    server = session()
    server.receive(bytes(messages.UNAUTHENTICATED_BYTES_MAX + 1), 1.0)
    assert "the most" in refusal(server).detail


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_bytes_of_any_kind_only_end_the_session(received: list[bytes]) -> None:
    server = session()
    for message in received:
        server.receive(message, 1.0)
    assert server.state in {State.PROVING, State.ENDED}
    assert all(isinstance(event, Ended) for event in server.take_events())


@given(st.integers(0, len(proof()) - 1), st.integers(1, 255))
def test_a_proof_with_one_byte_changed_proves_nobody_else(position: int, flip: int) -> None:
    message = bytearray(proof())
    message[position] ^= flip
    server = session()
    server.receive(bytes(message), 1.0)
    # `since` and the protocol's number are not signed: whoever can change them holds the TLS channel.
    assert server.node in {b"", NODE.verify_key.raw}
    if server.node:
        assert server.network == NETWORK.raw


# Deadlines


def test_who_does_not_prove_in_time_is_refused() -> None:
    server = session()
    deadline = server.next_deadline()
    assert deadline is not None
    assert deadline.at == PROVE_WITHIN_S
    server.handle_timeout(PROVE_WITHIN_S - 0.1)
    assert server.take_events() == []
    server.handle_timeout(PROVE_WITHIN_S)
    assert "no proof" in refusal(server).detail


def test_a_service_that_does_not_decide_is_unavailable() -> None:
    server = session()
    server.receive(proof(), 5.0)
    server.handle_timeout(5.0 + DECIDE_WITHIN_S)
    refused = refusal(server)
    assert refused.kind == "unavailable"
    assert refused.retry_after_s is not None


def test_a_member_has_no_deadline() -> None:
    server = opened()
    assert server.next_deadline() is None
    server.handle_timeout(1e9)
    assert server.state is State.OPEN


# The service's answers


def test_the_accepted_learn_the_time_and_their_address() -> None:
    server = session()
    server.receive(proof(), 1.0)
    server.take_transmits()
    assert server.accept(observed="192.0.2.9", time_s=TIME_S + 3, report_every_s=30.0)
    (message,) = server.take_transmits()
    assert unpack_to_node_untrusted(message) == Accepted(time=TIME_S + 3, observed="192.0.2.9", report_every_s=30.0)


def test_a_refusal_is_told_and_final() -> None:
    server = session()
    server.receive(enrolment(), 1.0)
    server.take_events()
    server.refuse("ticket-used", "used", "the invite was used on Monday" + "!" * 2000, "ask for another")
    refused = refusal(server)
    assert (refused.kind, refused.remedy) == ("ticket-used", "ask for another")
    assert len(refused.detail) == 1024


def test_the_map_follows_and_since_follows_it() -> None:
    server = opened()
    first = Update(revision=8, whole=True, more=True)
    server.update(first)
    assert server.since == 7
    server.update(Update(revision=8, whole=True))
    assert server.since == 8
    server.update(Update(revision=9), packed=b"packed before")
    assert server.since == 9
    assert server.take_transmits() == [pack(first), pack(Update(revision=8, whole=True)), b"packed before"]


def test_an_update_that_two_wakes_brought_is_sent_once() -> None:
    server = opened()
    server.update(Update(revision=9))
    server.update(Update(revision=8))
    server.update(Update(revision=9))
    assert server.since == 9
    assert len(server.take_transmits()) == 1


def test_nothing_of_the_map_leaves_before_the_node_is_a_member() -> None:
    server = session()
    server.receive(proof(), 1.0)
    server.take_transmits()
    server.update(Update(revision=9))
    server.signal(OTHER.verify_key.raw, b"x")
    server.published(1)
    server.undeliverable(OTHER.verify_key.raw)
    assert server.take_transmits() == []


def test_a_node_that_does_not_read_is_cut_off() -> None:
    server = opened()
    packed = bytes(1 << 20)
    for revision in range(8, 8 + OUTBOX_BYTES_MAX // len(packed)):
        server.update(Update(revision=revision), packed)
    assert server.state is State.OPEN
    assert server.pending_bytes == OUTBOX_BYTES_MAX
    server.update(Update(revision=1000), packed)
    assert server.state is State.ENDED
    assert server.take_transmits() == []
    assert isinstance(server.take_events()[-1], Ended)


# From a member


def test_what_a_member_says_is_told() -> None:
    server = opened()
    for message in EVERY_OTHER_MESSAGE:
        server.receive(message, 1.0)
    assert server.take_events() == [
        PublishWanted(record()),
        Reported(Report(uptime_s=1.0)),
        SignalWanted(OTHER.verify_key.raw, b"x"),
        LeaveWanted(),
    ]
    assert server.state is State.LEAVING


def test_a_record_of_somebody_else_ends_the_session() -> None:
    server = opened()
    server.receive(pack(Publish(record=record(OTHER))), 1.0)
    assert refusal(server).kind == "bad-proof"


def test_after_leaving_nothing_more_is_said() -> None:
    server = opened()
    server.receive(pack(Leave()), 1.0)
    server.take_events()
    server.receive(pack(Leave()), 1.0)
    assert refusal(server).kind == "protocol"


def test_the_end_after_leaving_is_not_a_refusal() -> None:
    server = opened()
    server.receive(pack(Leave()), 1.0)
    server.end("left")
    server.end("again")
    assert server.take_events() == [LeaveWanted(), Ended("left")]
    assert server.take_transmits() == []


@pytest.mark.parametrize(
    ("message", "pace", "event"),
    [
        (EVERY_OTHER_MESSAGE[0], pacing.PUBLISH, PublishWanted),
        (EVERY_OTHER_MESSAGE[1], pacing.REPORT, Reported),
    ],
)
def test_records_and_reports_have_a_pace(message: bytes, pace: pacing.Pace, event: type) -> None:
    server = opened()
    for _ in range(pace.burst):
        server.receive(message, 1.0)
    server.receive(message, 1.0 + pace.interval_s)
    assert server.state is State.OPEN
    assert len([one for one in server.take_events() if isinstance(one, event)]) == pace.burst + 1
    server.receive(message, 1.0 + pace.interval_s)
    refused = refusal(server)
    assert refused.kind == "limit"
    assert refused.retry_after_s is not None


def test_signals_beyond_the_pace_get_lost_and_beyond_all_measure_end_the_session() -> None:
    server = opened()
    for _ in range(pacing.MESSAGES.burst - 1):
        server.receive(EVERY_OTHER_MESSAGE[2], 1.0)
    assert server.state is State.OPEN
    assert len(server.take_events()) == pacing.SIGNAL.burst
    for _ in range(65):
        server.receive(EVERY_OTHER_MESSAGE[2], 1.0)
    assert refusal(server).kind == "limit"


# Nothing secret is shown


def test_no_repr_shows_a_ticket_s_secret() -> None:
    server = session()
    server.receive(enrolment(), 1.0)
    shown = repr(server) + repr(server.take_events())
    assert "sixteen" not in shown
    assert SECRET.hex() not in shown
    assert "nobody yet" in repr(session())


def test_a_session_is_not_made_without_a_nonce() -> None:
    with pytest.raises(ValueError, match="nonce"):
        ServerSession(nonce=b"", certificate_sha256=CERTIFICATE, time_s=TIME_S, now=0.0)


def test_a_node_behind_somebody_who_opens_tls_is_refused() -> None:
    pair = Pair(seen_by_node=bytes(32))
    pair.move()
    assert only(Ended, pair.coordinator_events).why.startswith("refused (bad-proof)")
