"""Binding requests: answered, repeated, given up, and not fooled."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.reach.relay_world import at
from warren.model.tunnel import PLAIN, Way
from warren.proto.stun.attributes import pack_xor_address
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode
from warren.reach.probes import PROBES_MAX, SILENT_AFTER_S, TRIES, Answered, Probes, Silent

SERVER, SEEN = at("192.0.2.1"), at("203.0.113.9", 4000)


def answer(request: bytes, cls: Class = Class.SUCCESS) -> bytes:
    transaction = decode_untrusted(request).transaction
    value = pack_xor_address(SEEN, transaction)
    return encode(Method.BINDING, cls, transaction, [(int(Attribute.XOR_MAPPED_ADDRESS), value)])


def asked() -> tuple[Probes[str], bytes]:
    probes: Probes[str] = Probes(random.Random(1).randbytes)
    probes.ask(SERVER, "x", 0.0)
    (sent,) = probes.take_transmits()
    assert (sent.remote, sent.way) == (SERVER, PLAIN)
    return probes, sent.data


def test_an_answer_tells_the_outside_address_and_the_round_trip() -> None:
    probes, request = asked()
    assert probes.receive(answer(request), SERVER, 0.05)
    assert probes.take_events() == [Answered("x", SERVER, PLAIN, SEEN, 0.05)]
    assert probes.next_deadline() is None


def test_a_request_is_repeated_and_then_the_server_counts_as_silent() -> None:
    probes, _ = asked()
    count = 1
    for tenth in range(1, 40):
        probes.handle_timeout(tenth / 10)
        count += len(probes.take_transmits())
    assert count == TRIES
    assert probes.take_events() == [Silent("x", SERVER, PLAIN)]


def test_an_answer_from_elsewhere_or_to_another_question_is_none() -> None:
    probes, request = asked()
    assert not probes.receive(answer(request), at("192.0.2.66"), 0.01)
    assert not probes.receive(answer(encode(Method.BINDING, Class.REQUEST, bytes(12), ())), SERVER, 0.01)
    assert probes.receive(answer(request, Class.ERROR), SERVER, 0.01)
    assert probes.take_events() == []


@given(st.binary(max_size=200))
def test_whatever_comes_does_no_harm(data: bytes) -> None:
    probes, request = asked()
    probes.receive(data, SERVER, 0.0)
    probes.receive(request[:20] + data, SERVER, 0.0)
    probes.receive(answer(request)[:24] + data, SERVER, 0.0)


def test_the_same_question_is_asked_once_and_there_is_a_ceiling() -> None:
    probes, _ = asked()
    probes.ask(SERVER, "x", 0.1)
    assert probes.take_transmits() == []
    for number in range(2 * PROBES_MAX):
        probes.ask(SERVER, str(number), 0.1, Way(interface=1))
    assert len(probes.take_transmits()) == PROBES_MAX - 1
    probes.forget()
    probes.handle_timeout(SILENT_AFTER_S + 1)
    assert probes.take_events() == []
