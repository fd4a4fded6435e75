"""The life of an allocation, opposite a scripted server."""

from __future__ import annotations

import pytest

from tests.support.turn_script import MAPPED, RELAYED4, RELAYED6, Play, Script, address
from warren.proto.stun.attributes import AddressErrorCode, pack_address, pack_address_error_code, pack_xor_address
from warren.proto.stun.message import Attribute, Class, Message, Method, encode
from warren.proto.turn.client_events import Failed, Lost, Ready


def attribute_sets(play: Play, method: Method) -> list[set[int]]:
    """Of the authenticated requests."""
    return [
        {kind for kind, _ in message.attributes}
        for message in play.script.seen
        if message.method == method and message.get(Attribute.NONCE) is not None
    ]


def test_both_families_are_allocated_with_one_request() -> None:
    play = Play()
    play.exchange()
    assert play.told() == [Ready((RELAYED4, RELAYED6), MAPPED)]
    assert play.client.relayed == (RELAYED4, RELAYED6)
    assert play.client.state == "ready"
    assert play.client.why == ""
    assert play.client.rtt_s == pytest.approx(0.02)
    (kinds,) = attribute_sets(play, Method.ALLOCATE)
    assert Attribute.ADDITIONAL_ADDRESS_FAMILY in kinds
    assert Attribute.REQUESTED_ADDRESS_FAMILY not in kinds


@pytest.mark.parametrize("number", [Attribute.ADDRESS_ERROR_CODE, 0x8033])
def test_a_server_without_ipv6_says_so_beside_its_ipv4_address(number: int) -> None:
    play = Play(Script(relayed=(RELAYED4,)))
    refused = (int(number), pack_address_error_code(AddressErrorCode(6, 440)))
    honest = play.script.answer

    def answer(message: Message) -> bytes | None:
        given = honest(message)
        if message.method == Method.ALLOCATE and given is not None and message.get(Attribute.NONCE):
            return play.script.grant(message, extra=[refused])
        return given

    play.script.answer = answer  # type: ignore[method-assign]
    play.exchange()
    assert play.client.relayed == (RELAYED4,)
    assert play.client.refused_families == {6: 440}


def test_an_unspecified_address_beside_an_error_counts_for_nothing() -> None:
    play = Play(Script(relayed=(RELAYED4, address("::", 0))))
    play.exchange()
    assert play.client.relayed == (RELAYED4,)


def test_a_server_that_has_only_ipv6_is_asked_for_that() -> None:
    play = Play(Script(relayed=(RELAYED6,)))
    honest = play.script.answer

    def answer(message: Message) -> bytes | None:
        wanted = message.get(Attribute.REQUESTED_ADDRESS_FAMILY)
        if message.method == Method.ALLOCATE and message.get(Attribute.NONCE) and wanted != b"\2\0\0\0":
            return play.script.refuse(message, 440)
        return honest(message)

    play.script.answer = answer  # type: ignore[method-assign]
    play.exchange()
    assert play.client.relayed == (RELAYED6,)
    assert play.client.refused_families == {}


@pytest.mark.parametrize("number", [400, 420])
def test_a_server_that_understands_no_families_is_asked_for_what_it_has(number: int) -> None:
    play = Play(Script(relayed=(RELAYED4,)))
    honest = play.script.answer

    def answer(message: Message) -> bytes | None:
        families = {Attribute.REQUESTED_ADDRESS_FAMILY, Attribute.ADDITIONAL_ADDRESS_FAMILY}
        if message.get(Attribute.NONCE) is not None and families & {kind for kind, _ in message.attributes}:
            return play.script.refuse(message, number)
        return honest(message)

    play.script.answer = answer  # type: ignore[method-assign]
    play.exchange()
    assert play.client.relayed == (RELAYED4,)


@pytest.mark.parametrize("families", [(4,), (6,)])
def test_a_single_family_is_not_exchanged_for_the_other(families: tuple[int, ...]) -> None:
    play = Play(Script(errors={Method.ALLOCATE: 440}), families=families)
    play.exchange()
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert event.final
    assert event.why == "relay berlin has no relayed address of the families that are wanted (error 440)"


@pytest.mark.parametrize(
    ("number", "words", "final"),
    [
        (300, "relay berlin sends its clients to another server", True),
        (403, "relay berlin does not relay for this node", True),
        (442, "relay berlin does not relay UDP", True),
        (486, "relay berlin has given this node as many relayed addresses as its quota allows", False),
        (500, "relay berlin has an error of its own", False),
        (508, "relay berlin has no relayed address left", False),
        (599, "relay berlin refuses to relay (error 599)", False),
    ],
)
def test_each_refusal_is_one_understandable_sentence(number: int, words: str, final: bool) -> None:
    play = Play(Script(errors={Method.ALLOCATE: number}))
    play.exchange()
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert event.why.startswith(words)
    assert "\n" not in event.why
    assert event.final is final
    assert play.client.state == "failed"
    assert play.client.why == event.why


def test_the_servers_own_words_cannot_do_harm() -> None:
    play = Play()
    play.script.errors[Method.ALLOCATE] = 508
    play.script.answer = lambda message: (  # type: ignore[method-assign]
        play.script.refuse(message, 508, reason="full\x1b[2J\n" + "x" * 500)
        if message.get(Attribute.NONCE)
        else play.script.challenge(message, 401)
    )
    play.exchange()
    assert play.client.why.isprintable()
    assert len(play.client.why) < 300


@pytest.mark.parametrize("proved", [True, False])
def test_another_server_is_named_only_by_one_that_proves_itself(proved: bool) -> None:
    play = Play()
    elsewhere = address("192.0.2.99", 3478)
    extra = [(int(Attribute.ALTERNATE_SERVER), pack_address(elsewhere))]

    def answer(message: Message) -> bytes | None:
        if message.get(Attribute.NONCE) is None:
            return play.script.challenge(message, 401)
        return play.script.refuse(message, 300, proved=proved, extra=extra)

    play.script.answer = answer  # type: ignore[method-assign]
    play.run(5)
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert event.alternate == (elsewhere if proved else None)


def test_a_full_server_is_asked_again_with_growing_pauses_until_it_has_room() -> None:
    play = Play(Script(errors={Method.ALLOCATE: 508}))
    play.run(100)
    assert 6 <= play.count(Method.ALLOCATE) // 2 <= 9
    play.script.errors.clear()
    play.run(31)
    assert play.client.state == "ready"
    assert [type(event) for event in play.told()] == [Failed, Ready]


def test_a_refusal_that_only_people_can_change_is_asked_about_rarely() -> None:
    play = Play(Script(errors={Method.ALLOCATE: 403}))
    play.run(290)
    assert play.count(Method.ALLOCATE) == 2
    play.run(20)
    assert play.count(Method.ALLOCATE) == 4


def test_a_wrong_password_is_told_soon_and_new_credentials_help_at_once() -> None:
    play = Play(password="wrong")
    play.run(2)
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert event.final
    assert event.why == (
        "relay berlin does not accept the user name and password; its secret must be the one that the coordinator "
        "knows (error 401)"
    )
    assert play.count(Method.ALLOCATE) == 2  # RFC 8489 §9.2.5: not again with the same name and realm
    play.client.credentials("anna", "secret", play.now)
    play.exchange()
    assert play.client.state == "ready"
    assert play.client.why == ""


def test_a_silent_server_is_named_and_asked_again() -> None:
    play = Play(Script(reachable=False))
    play.run(11)
    assert play.told() == []
    assert play.client.state == "allocating"
    play.run(2)
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert not event.final
    assert event.why.startswith("relay berlin does not answer")
    play.script.reachable = True
    play.run(5)
    assert play.client.state == "ready"


def test_an_allocation_is_refreshed_before_it_ends_and_keeps_its_addresses() -> None:
    play = Play()
    play.run(3600)
    assert play.told() == [Ready((RELAYED4, RELAYED6), MAPPED)]
    assert play.count(Method.REFRESH) == 6
    assert play.count(Method.ALLOCATE) == 2


@pytest.mark.parametrize("lifetime_s", [30, 90])
def test_a_server_that_grants_little_time_is_refreshed_more_often(lifetime_s: int) -> None:
    play = Play(Script(lifetime_s=lifetime_s))
    play.run(300)
    assert len(play.told()) == 1
    assert play.client.state == "ready"


def test_a_stale_nonce_is_exchanged_without_anybody_noticing() -> None:
    play = Play()
    play.exchange()
    play.script.nonce = b"nonce-2"
    play.run(1200)
    assert len(play.told()) == 1
    assert play.count(Method.REFRESH) == 3  # the first was sent twice; the new nonce is kept


def test_the_mapping_at_a_nat_is_kept_alive() -> None:
    play = Play()
    play.run(110)
    assert play.count(Method.BINDING) == 5


def test_a_server_that_answers_no_stun_is_kept_alive_by_refreshes() -> None:
    play = Play(Script(stun=False))
    play.run(120)
    assert len(play.told()) == 1
    assert play.count(Method.BINDING) == 3  # one request, three transmissions
    assert play.count(Method.REFRESH) >= 5


def test_a_mapping_that_changed_makes_the_client_ask_and_allocate_anew() -> None:
    play = Play()
    play.exchange()
    play.told()
    play.script.mapped = address("198.51.100.7", 40_001)
    play.script.errors[Method.REFRESH] = 437
    play.script.relayed = (address("192.0.2.1", 50_009),)
    play.run(21)
    lost, ready = play.told()
    assert isinstance(lost, Lost)
    assert lost.why == "relay berlin has forgotten us, after a restart of it or of a NAT on the way"
    assert ready == Ready((address("192.0.2.1", 50_009),), address("198.51.100.7", 40_001))


def test_somebody_who_claims_another_mapping_causes_one_question_and_no_more() -> None:
    play = Play()
    play.exchange()
    lie = address("198.51.100.66", 1)

    def interfere(message: Message) -> list[bytes]:
        if message.method != Method.BINDING:
            return []
        found = (int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(lie, message.transaction))
        return [encode(Method.BINDING, Class.SUCCESS, message.transaction, [found])]

    play.interfere = interfere
    play.run(200)
    assert play.client.state == "ready"
    assert play.count(Method.REFRESH) == 1
    assert play.client.mapped == MAPPED


def test_a_server_that_falls_silent_is_lost_soon_and_found_again_with_the_same_addresses() -> None:
    play = Play()
    play.exchange()
    play.told()
    play.script.reachable = False
    play.run(33)
    (lost,) = play.told()
    assert isinstance(lost, Lost)
    assert lost.why.startswith("relay berlin does not answer")
    assert play.client.state == "failed"
    assert play.client.relayed == ()
    play.run(60)
    play.script.reachable = True
    play.run(30)
    assert play.told() == [Ready((RELAYED4, RELAYED6), MAPPED)]
    assert play.count(Method.ALLOCATE) == 2


def test_a_server_that_stays_silent_until_the_allocation_ends_is_asked_for_a_new_one() -> None:
    play = Play()
    play.exchange()
    play.script.reachable = False
    play.run(700)
    play.script.reachable = True
    play.run(60)
    assert play.client.state == "ready"
    assert play.count(Method.ALLOCATE) > 2


def test_a_machine_that_slept_longer_than_its_allocation_allocates_anew() -> None:
    play = Play()
    play.exchange()
    play.told()
    play.now += 7200
    play.client.handle_timeout(play.now)
    play.exchange()
    assert [type(event) for event in play.told()] == [Lost, Ready]


def test_check_finds_out_at_once() -> None:
    play = Play()
    play.exchange()
    play.script.errors[Method.REFRESH] = 437
    play.client.check(play.now)
    play.exchange()
    assert [type(event) for event in play.told()] == [Ready, Lost, Ready]


def test_check_does_not_wait_for_the_pause_after_a_failure() -> None:
    play = Play(Script(errors={Method.ALLOCATE: 403}))
    play.exchange()
    play.script.errors.clear()
    play.client.check(play.now)
    play.exchange()
    assert play.client.state == "ready"


def earlier_run(play: Play, *, same_name: bool) -> None:
    """The server has an allocation for the client's port."""
    honest = play.script.answer
    held = [True]

    def answer(message: Message) -> bytes | None:
        if message.get(Attribute.NONCE) is None or message.method == Method.BINDING:
            return honest(message)
        if held[0] and message.method == Method.ALLOCATE:
            return play.script.refuse(message, 437, proved=same_name)
        if held[0] and not same_name:
            return play.script.refuse(message, 441, proved=False)
        if message.method == Method.REFRESH and message.get(Attribute.LIFETIME) == bytes(4):
            held[0] = False
        return honest(message)

    play.script.answer = answer  # type: ignore[method-assign]


def test_what_an_earlier_run_left_is_deleted_and_made_anew() -> None:
    play = Play()
    earlier_run(play, same_name=True)
    play.exchange()
    assert play.told() == [Ready((RELAYED4, RELAYED6), MAPPED)]


def test_what_an_earlier_run_left_under_another_name_is_waited_for() -> None:
    play = Play()
    earlier_run(play, same_name=False)
    play.run(10)
    (event,) = play.told()
    assert isinstance(event, Failed)
    assert not event.final
    assert "an earlier run of this node" in event.why


def test_a_server_that_never_lets_go_is_not_asked_without_end() -> None:
    play = Play(Script(errors={Method.ALLOCATE: 437}))
    play.run(60)
    assert play.client.state == "failed"
    assert play.count(Method.ALLOCATE) < 40


def test_new_credentials_leave_a_living_allocation_alone() -> None:
    play = Play()
    play.exchange()
    play.client.credentials("berta", "other", play.now)
    play.run(1200)
    assert [type(event) for event in play.told()] == [Ready]
    assert play.count(Method.ALLOCATE) == 2


def test_new_credentials_serve_when_the_old_ones_have_run_out() -> None:
    play = Play()
    play.exchange()
    play.client.credentials("berta", "other", play.now)
    play.script.username, play.script.password = "berta", "other"
    play.run(1200)
    assert [type(event) for event in play.told()] == [Ready]
    assert play.client.state == "ready"


def test_a_permission_refused_for_an_old_name_makes_the_new_one_be_tried() -> None:
    play = Play()
    play.exchange()
    play.client.credentials("berta", "other", play.now)
    play.script.username, play.script.password = "berta", "other"
    peer = address("203.0.113.9")
    play.client.permit([peer.ip], play.now)
    play.run(20)
    assert play.client.refusal(peer.ip) == ""
    assert [type(event) for event in play.told()] == [Ready]


def test_credentials_that_run_out_end_the_allocation_only_with_its_lifetime() -> None:
    play = Play()
    play.exchange()
    play.script.password = "changed"
    play.run(590)
    assert [type(event) for event in play.told()] == [Ready]
    play.run(30)
    lost, failed = play.told()
    assert isinstance(lost, Lost)
    assert isinstance(failed, Failed)
    assert "does not accept the user name and password" in failed.why


def test_an_answer_without_addresses_does_not_count_as_an_allocation() -> None:
    play = Play(Script(relayed=()))
    play.exchange()
    assert play.client.state == "failed"
    assert "an answer that cannot be read" in play.client.why


@pytest.mark.parametrize("lifetime_s", [0, 1, 29])
def test_a_lifetime_of_next_to_nothing_does_not_either_and_is_not_asked_for_at_full_speed(lifetime_s: int) -> None:
    play = Play(Script(lifetime_s=lifetime_s))
    play.exchange()
    assert play.client.state == "failed"
    assert f"for {lifetime_s} s only" in play.client.why
    play.run(600)
    assert play.count(Method.ALLOCATE) + play.count(Method.REFRESH) <= 100


def test_a_lifetime_of_136_years_is_refreshed_within_the_hour() -> None:
    play = Play(Script(lifetime_s=0xFFFF_FFFF))
    play.run(3 * 3600)
    assert play.count(Method.REFRESH) == 3
    assert len(play.told()) == 1


@pytest.mark.parametrize("lifetime_s", [0, 5])
def test_a_server_that_takes_its_promise_back_is_asked_for_another_at_a_bounded_pace(lifetime_s: int) -> None:
    play = Play()
    play.exchange()
    play.script.lifetime_s = lifetime_s
    play.run(545)
    assert "does not keep relayed addresses" in play.client.why or "s only" in play.client.why
    assert any(isinstance(event, Lost) for event in play.told())
    play.script.lifetime_s = 600
    play.run(60)
    assert play.client.state == "ready"
