"""The node's end of a connection to a coordinator."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.control_pair import AUTHORITY, CERTIFICATE, NODE, NONCE, OTHER, TICKET, TIME_S, Pair, only, record
from warren.errors import MalformedPacket
from warren.proto.control import messages, pacing, server_events
from warren.proto.control.client import ANSWER_WITHIN_S, WELCOME_WITHIN_S, ClientSession, EnrolRequest, State, fitting
from warren.proto.control.client_events import (
    Ended,
    Opened,
    Published,
    RefusedByCoordinator,
    RelayAccessReceived,
    SignalReceived,
    SignalUndeliverable,
    UpdateReceived,
)
from warren.proto.control.messages import (
    Accepted,
    Peering,
    RelayAccess,
    RelayCredential,
    Report,
    Task,
    Update,
    Welcome,
    pack,
    unpack_to_node_untrusted,
)


def session(enrol: EnrolRequest | None = None) -> ClientSession:
    return ClientSession(
        network=AUTHORITY.verify_key, key=NODE, certificate_sha256=CERTIFICATE, now=0.0, since=5, enrol=enrol
    )


WELCOME = pack(Welcome(protocol=1, nonce=NONCE, time=TIME_S))
ACCEPTED = pack(Accepted(time=TIME_S, observed="192.0.2.9"))


def why(client: ClientSession) -> str:
    """Why the session ended; it must have, and take nothing any more."""
    last = client.take_events()[-1]
    assert isinstance(last, Ended)
    client.take_transmits()
    client.receive(WELCOME, 0.0)
    client.publish(record(), 0.0)
    assert client.take_events() == []
    assert client.take_transmits() == []
    assert client.next_deadline() is None
    return last.why


def test_a_member_comes_back_and_says_where_it_stands() -> None:
    pair = Pair(since=5)
    pair.move()
    wanted = only(server_events.AuthenticateWanted, pair.coordinator_events)
    assert (wanted.node, wanted.network, wanted.since) == (NODE.verify_key.raw, AUTHORITY.verify_key.raw, 5)
    pair.server.accept(observed="192.0.2.9", time_s=TIME_S)
    pair.move()
    assert pair.node_events == [Opened(TIME_S, "192.0.2.9", 60.0)]


def test_a_node_enrols_by_its_ticket() -> None:
    pair = Pair(enrol=TICKET)
    pair.move()
    wanted = only(server_events.EnrolWanted, pair.coordinator_events)
    assert (wanted.node, wanted.secret, wanted.name) == (NODE.verify_key.raw, TICKET.secret, "web1")


def test_a_refusal_says_why_and_ends_it() -> None:
    pair = Pair(enrol=TICKET)
    pair.move()
    pair.server.refuse("ticket-used", "used", "the invite was used", "ask for another")
    pair.move()
    assert only(RefusedByCoordinator, pair.node_events).refused.kind == "ticket-used"
    assert pair.client.state is State.ENDED


def test_members_talk_both_ways() -> None:
    pair = Pair()
    pair.open()
    pair.client.publish(record(), pair.now)
    pair.client.report(Report(uptime_s=1.0), pair.now)
    pair.client.signal(OTHER.verify_key.raw, b"hello", pair.now)
    pair.server.update(Update(revision=3))
    pair.server.published(1)
    pair.server.signal(OTHER.verify_key.raw, b"you")
    pair.server.undeliverable(OTHER.verify_key.raw)
    credential = RelayCredential(relay="one", username="1:n", password="p", not_after=1)
    pair.server.relay_access(RelayAccess(credentials=(credential,)))
    pair.move()
    assert pair.coordinator_events == [
        server_events.PublishWanted(record()),
        server_events.Reported(Report(uptime_s=1.0)),
        server_events.SignalWanted(OTHER.verify_key.raw, b"hello"),
    ]
    assert pair.node_events == [
        UpdateReceived(Update(revision=3)),
        Published(1),
        SignalReceived(OTHER.verify_key.raw, b"you"),
        SignalUndeliverable(OTHER.verify_key.raw),
        RelayAccessReceived((credential,)),
    ]


def test_what_is_said_before_the_session_is_open_waits_for_it() -> None:
    pair = Pair()
    pair.client.publish(record(version=1), pair.now)
    pair.client.publish(record(version=2), pair.now)
    pair.client.signal(OTHER.verify_key.raw, b"hello", pair.now)
    pair.move()
    assert not [event for event in pair.coordinator_events if isinstance(event, server_events.PublishWanted)]
    pair.server.accept(observed="", time_s=TIME_S)
    pair.move()
    assert only(server_events.PublishWanted, pair.coordinator_events).record == record(version=2)


def test_leaving_ends_when_the_coordinator_has_forgotten() -> None:
    pair = Pair()
    assert not pair.client.leave(pair.now)
    pair.open()
    assert pair.client.leave(pair.now)
    pair.server.update(Update(revision=9))
    pair.move()
    assert pair.coordinator_events == [server_events.LeaveWanted()]
    assert pair.node_events == []
    assert pair.client.state is State.LEAVING


def test_a_node_that_reports_and_publishes_all_the_time_never_meets_a_limit() -> None:
    pair = Pair()
    pair.open()
    for step in range(4000):
        pair.client.publish(record(version=step + 1), pair.now)
        pair.client.report(Report(uptime_s=float(step)), pair.now)
        pair.client.signal(OTHER.verify_key.raw, b"x", pair.now)
        pair.move()
        pair.now += 0.01
    for _ in range(2000):
        deadline = pair.client.next_deadline()
        if deadline is None:
            break
        pair.now = max(pair.now, deadline.at)
        pair.client.handle_timeout(pair.now)
        pair.move()
    assert pair.client.next_deadline() is None
    assert pair.server.state.name == "OPEN"
    published = [event for event in pair.coordinator_events if isinstance(event, server_events.PublishWanted)]
    assert published[-1].record == record(version=4000)  # the latest always arrives
    assert len(published) < 40


def test_who_sends_by_the_clock_of_the_deadline_makes_progress() -> None:
    allowance = pacing.Allowance(pacing.Pace(2, 0.1), 0.0)
    now = 0.3
    for _ in range(100):
        ready = allowance.ready_at(now)
        assert ready >= now
        now = ready
        assert allowance.take(now)
    assert now == pytest.approx(0.3 + 98 * 0.1)


@pytest.mark.parametrize("message", [ACCEPTED, pack(Update(revision=1)), WELCOME[:-1], b""])
def test_a_coordinator_that_does_not_greet_first_is_left(message: bytes) -> None:
    client = session()
    client.receive(message, 0.0)
    assert why(client)


@pytest.mark.parametrize("message", [WELCOME, pack(Update(revision=1))])
def test_a_coordinator_that_talks_out_of_turn_is_left(message: bytes) -> None:
    client = session()
    client.receive(WELCOME, 0.0)
    client.receive(message, 0.0)
    assert "out of place" in why(client)


def test_another_protocol_names_both_numbers_and_proves_nothing() -> None:
    client = session()
    client.receive(pack(Welcome(protocol=2, nonce=NONCE, time=TIME_S)), 0.0)
    assert client.take_transmits() == []
    assert "protocol 2" in why(client)


def test_a_coordinator_that_does_not_greet_in_time_is_left() -> None:
    client = session()
    client.handle_timeout(WELCOME_WITHIN_S - 0.1)
    assert client.take_events() == []
    client.handle_timeout(WELCOME_WITHIN_S)
    assert "too slow" in why(client)


def test_a_coordinator_that_does_not_answer_the_proof_is_left() -> None:
    client = session()
    client.receive(WELCOME, 5.0)
    client.handle_timeout(5.0 + ANSWER_WITHIN_S)
    assert "too slow" in why(client)


def test_a_lost_connection_ends_it_once() -> None:
    client = session()
    client.end("the connection was lost")
    client.end("again")
    assert why(client) == "the connection was lost"


def test_a_signal_too_large_is_a_mistake_of_the_caller() -> None:
    client = session()
    with pytest.raises(ValueError, match="the most"):
        client.signal(OTHER.verify_key.raw, bytes(messages.SIGNAL_BYTES_MAX + 1), 0.0)


def test_a_report_is_cut_to_what_a_message_takes() -> None:
    peers = tuple(
        Peering(node=bytes([i % 256]) * 32, endpoint=f"[2001:db8::{i}]:51820", rtt_ms=1.5, tx_bytes=2**40)
        for i in range(1024)
    )
    tasks = tuple(Task(name=f"task {i}", state="failed", reason="x" * 1000) for i in range(100))
    for report in (Report(uptime_s=1.0, peers=peers), Report(uptime_s=1.0, peers=peers, tasks=tasks)):
        sent = fitting(report)
        assert len(pack(sent)) <= messages.NODE_MESSAGE_BYTES_MAX
        assert sent.peers == peers[: len(sent.peers)]
    small = Report(uptime_s=1.0, peers=peers[:10])
    assert fitting(small) is small


def test_no_repr_shows_a_ticket_s_secret() -> None:
    assert "sixteen" not in repr(session(TICKET)) + repr(TICKET)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_bytes_of_any_kind_only_end_the_session(received: list[bytes]) -> None:
    client = session()
    for message in received:
        client.receive(message, 0.0)
    assert client.state in {State.WAITING, State.ENDED}
    assert client.take_transmits() == []


@pytest.mark.parametrize(("letter", "fits"), [("u", True), ("ü", False)])
def test_a_name_for_a_relay_that_stun_cannot_carry_is_refused_where_it_comes_in(letter: str, fits: bool) -> None:
    made = {"relay": "one", "username": "1:" + letter * 254, "password": "p", "not_after": 1}
    data = msgspec.msgpack.encode({"type": "relay-access", "credentials": [made]})
    if fits:
        assert isinstance(unpack_to_node_untrusted(data), RelayAccess)
    else:
        with pytest.raises(MalformedPacket):
            unpack_to_node_untrusted(data)
