"""Requests under attack and under loss. The attacker sees everything and is always faster, but cannot suppress."""

from __future__ import annotations

import pytest

from tests.support.turn_script import MAPPED, PASSWORD, REALM, RELAYED4, RELAYED6, Play, Script, address
from warren.proto.stun.attributes import MD5, SHA256, PasswordAlgorithm, pack_error_code, pack_password_algorithms
from warren.proto.stun.credentials import SecurityFeatures, long_term_key, nonce_prefix, userhash
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted, encode
from warren.proto.turn.client_events import Failed, Ready

BOTH = pack_password_algorithms([SHA256, MD5])
OFFERING = nonce_prefix(SecurityFeatures(password_algorithms=True)).encode() + b"x"


def error(message: Message, number: int) -> bytes:
    code = (int(Attribute.ERROR_CODE), pack_error_code(number))
    return encode(message.method, Class.ERROR, message.transaction, [code])


@pytest.mark.parametrize("method", [Method.REFRESH, Method.CHANNEL_BIND, Method.CREATE_PERMISSION])
@pytest.mark.parametrize("number", [300, 400, 401, 403, 437, 438, 441, 486, 508])
def test_forged_errors_do_not_end_a_living_allocation(method: Method, number: int) -> None:
    play = Play()
    peer = address("203.0.113.9")
    play.exchange()
    nonces = iter(range(10_000))

    def interfere(message: Message) -> list[bytes]:
        if message.method != method:
            return []
        challenge = play.script.challenge(message, number, f"forged {next(nonces)}".encode())
        return [error(message, number), challenge, challenge]

    play.interfere = interfere
    play.client.bind(peer, play.now)
    play.client.permit([peer.ip], play.now)
    play.run(1500)
    assert [event for event in play.told() if not isinstance(event, Ready)][1:] == []
    assert play.client.state == "ready"
    assert play.client.channel_of(peer) == 0x4000
    assert play.client.refusal(peer.ip) == ""


def test_a_forged_success_makes_no_allocation() -> None:
    play = Play(Script(reachable=False))
    mallory = Script(password="guess", relayed=(address("198.51.100.66"),))
    sent = play.client.take_transmits()
    first = decode_untrusted(sent[0])
    assert play.client.receive(play.script.challenge(first, 401), play.now)
    second = decode_untrusted(play.client.take_transmits()[0])
    unproved = encode(second.method, Class.SUCCESS, second.transaction, mallory_attributes(mallory, second))
    for forged in (mallory.grant(second), unproved, mallory.refuse(second, 437)):
        play.client.receive(forged, play.now)
        assert play.client.state == "allocating"
    play.client.receive(play.script.grant(second), play.now)
    assert play.client.relayed == (RELAYED4, RELAYED6)


def mallory_attributes(mallory: Script, message: Message) -> list[tuple[int, bytes]]:
    granted = decode_untrusted(mallory.grant(message))
    return [one for one in granted.attributes if one[0] != Attribute.MESSAGE_INTEGRITY]


def test_a_success_before_any_credentials_were_asked_for_does_not_count() -> None:
    play = Play()

    def interfere(message: Message) -> list[bytes]:
        if message.get(Attribute.NONCE) is not None:
            return []
        return [encode(message.method, Class.SUCCESS, message.transaction, mallory_attributes(Script(), message))]

    play.interfere = interfere
    play.exchange()
    assert play.told() == [Ready((RELAYED4, RELAYED6), MAPPED)]
    assert play.count(Method.ALLOCATE) == 2


def test_forged_challenges_before_the_real_one_do_not_keep_the_client_out() -> None:
    play = Play()
    play.interfere = lambda message: (
        [play.script.challenge(message, 401, b"forged")] if message.get(Attribute.NONCE) is None else []
    )
    play.exchange()
    assert play.client.state == "ready"


def test_any_number_of_forged_challenges_causes_few_requests() -> None:
    play = Play()
    play.exchange()
    before = play.count(Method.REFRESH)
    play.interfere = lambda message: [
        play.script.challenge(message, 438, b"forged %d" % number) for number in range(100)
    ]
    play.client.check(play.now)
    play.exchange()
    assert play.client.state == "ready"
    assert play.count(Method.REFRESH) - before <= 4


def test_a_mismatch_that_nobody_vouches_for_does_not_end_the_allocation() -> None:
    play = Play()
    play.exchange()
    honest = play.script.answer
    play.script.answer = lambda message: (  # type: ignore[method-assign]
        error(message, 437) if message.method in {Method.REFRESH, Method.CHANNEL_BIND} else honest(message)
    )
    play.client.bind(address("203.0.113.9"), play.now)
    play.client.check(play.now)
    play.run(300)
    assert play.client.state == "ready"
    play.script.answer = honest  # type: ignore[method-assign]
    play.run(1200)
    assert play.client.relayed == (RELAYED4, RELAYED6)
    assert play.count(Method.ALLOCATE) == 2


def test_a_refusal_of_a_peer_that_nobody_vouches_for_is_not_believed_for_long() -> None:
    play = Play()
    peer = address("203.0.113.9")
    play.exchange()
    honest = play.script.answer
    play.script.answer = lambda message: (  # type: ignore[method-assign]
        error(message, 403) if message.method == Method.CREATE_PERMISSION else honest(message)
    )
    play.client.permit([peer.ip], play.now)
    play.run(5)
    assert "is not allowed to" in play.client.refusal(peer.ip)
    play.script.answer = honest  # type: ignore[method-assign]
    play.run(15)
    assert play.client.refusal(peer.ip) == ""


def test_an_answer_of_another_kind_than_the_question_does_not_count() -> None:
    play = Play(Script(reachable=False))
    play.exchange()
    play.script.reachable = True
    play.client.check(play.now)
    play.interfere = lambda message: [encode(Method.BINDING, Class.ERROR, message.transaction, [])]
    play.exchange()
    assert play.client.state == "ready"
    play.interfere = lambda message: [
        encode(Method.BINDING, Class.SUCCESS, message.transaction, [], key=play.script.key, sha256=False, sha1=True)
    ]
    play.script.errors[Method.REFRESH] = 437
    play.script.relayed = (RELAYED4,)
    play.client.check(play.now)
    play.exchange()
    assert play.client.relayed == (RELAYED4,)


def test_a_copy_of_a_challenge_is_answered_once() -> None:
    play = Play()
    play.interfere = lambda message: (
        [play.script.challenge(message, 401)] * 3 if message.get(Attribute.NONCE) is None else []
    )
    play.exchange()
    assert play.client.state == "ready"
    assert play.count(Method.ALLOCATE) == 2


def test_the_first_request_is_no_shorter_than_the_challenge() -> None:
    play = Play(Script(nonce=OFFERING + b"x" * 16, algorithms=BOTH, sha256=True), families=(4,))
    play.exchange()
    first = play.script.seen[0]
    assert len(first.raw) >= len(play.script.challenge(first, 401))


def test_an_error_nobody_vouches_for_counts_after_a_second_when_nothing_better_comes() -> None:
    play = Play()
    play.script.answer = lambda message: (  # type: ignore[method-assign]
        error(message, 486) if message.get(Attribute.NONCE) else play.script.challenge(message, 401)
    )
    play.exchange()
    play.run(0.5)
    assert play.told() == []
    play.run(1)
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert "quota" in event.why


def test_a_lost_request_is_sent_again_with_doubling_pauses() -> None:
    play = Play(Script(reachable=False))
    at = []
    for _ in range(6):
        if play.client.take_transmits():
            at.append(round(play.now - 1000, 2))
        deadline = play.client.next_deadline()
        assert deadline is not None
        play.now = deadline.at
        play.client.handle_timeout(play.now)
    assert at[:5] == [0, 0.5, 1.5, 3.5, 7.5]


def test_nothing_is_sent_twice_where_nothing_is_lost() -> None:
    play = Play(Script(reachable=False), reliable=True)
    play.run(14)
    assert play.count(Method.ALLOCATE) == 1
    play.run(2)
    assert "does not answer" in play.client.why


def test_a_round_trip_is_measured_only_when_the_request_was_sent_once() -> None:
    play = Play()
    play.exchange()
    play.script.reachable = False
    play.client.check(play.now)
    play.run(0.6)
    play.script.reachable = True
    play.run(2)
    assert play.count(Method.REFRESH) == 3
    assert play.client.rtt_s == pytest.approx(0.02)


# RFC 8489 §9.2


@pytest.mark.parametrize(
    ("offered", "chosen", "sha256"),
    [([SHA256, MD5], SHA256, True), ([MD5, SHA256], MD5, False), ([PasswordAlgorithm(77, b"x"), SHA256], SHA256, True)],
)
def test_the_first_known_password_algorithm_is_taken(
    offered: list[PasswordAlgorithm], chosen: PasswordAlgorithm, sha256: bool
) -> None:
    packed = pack_password_algorithms(offered)
    play = Play(Script(nonce=OFFERING, algorithms=packed, sha256=sha256))
    play.exchange()
    assert play.client.state == "ready"
    request = play.script.seen[-1]
    assert request.get(Attribute.PASSWORD_ALGORITHMS) == packed
    assert request.get(Attribute.PASSWORD_ALGORITHM) == chosen.number.to_bytes(2) + b"\0\0"
    assert request.get(Attribute.MESSAGE_INTEGRITY_SHA256) is not None
    assert request.get(Attribute.MESSAGE_INTEGRITY) is None


def test_an_old_server_gets_the_old_integrity() -> None:
    play = Play()
    play.exchange()
    request = play.script.seen[-1]
    assert request.get(Attribute.MESSAGE_INTEGRITY) is not None
    assert request.get(Attribute.MESSAGE_INTEGRITY_SHA256) is None
    assert request.get(Attribute.PASSWORD_ALGORITHM) is None


def test_a_challenge_whose_algorithms_were_taken_out_is_not_answered() -> None:
    play = Play(Script(nonce=OFFERING))
    play.run(5)
    assert play.count(Method.ALLOCATE) == 1
    assert play.client.state == "failed"


def test_only_unknown_algorithms_are_not_answered() -> None:
    play = Play(Script(nonce=OFFERING, algorithms=pack_password_algorithms([PasswordAlgorithm(77)])))
    play.run(5)
    assert play.count(Method.ALLOCATE) == 1


def test_the_old_integrity_does_not_count_once_the_new_one_was_agreed_on() -> None:
    play = Play(Script(nonce=OFFERING, algorithms=BOTH, sha256=True))
    weak = Script()

    def answer(message: Message) -> bytes | None:
        if message.get(Attribute.NONCE) is None:
            return play.script.challenge(message, 401)
        key = long_term_key("anna", REALM, PASSWORD, sha256=True)
        return weak.grant(message, key=key)

    play.script.answer = answer  # type: ignore[method-assign]
    play.run(5)
    assert play.client.state == "allocating"


def test_a_server_that_wants_names_hidden_gets_a_hash() -> None:
    nonce = nonce_prefix(SecurityFeatures(password_algorithms=True, username_anonymity=True)).encode()
    play = Play(Script(nonce=nonce, algorithms=BOTH, sha256=True))
    play.exchange()
    assert play.client.state == "ready"
    assert play.script.seen[-1].get(Attribute.USERNAME) is None
    assert play.script.seen[-1].get(Attribute.USERHASH) == userhash("anna", REALM)


def test_a_challenge_without_nonce_or_realm_is_not_answered() -> None:
    play = Play()
    play.script.answer = lambda message: error(message, 401)  # type: ignore[method-assign]
    play.run(3)
    assert play.count(Method.ALLOCATE) == 1
    assert "does not accept" in play.client.why
