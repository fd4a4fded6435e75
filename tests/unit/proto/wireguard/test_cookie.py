from __future__ import annotations

from random import Random

import pytest

from warren.proto.wireguard.addresses import through_channel
from warren.proto.wireguard.constants import COOKIE_REFRESH_S
from warren.proto.wireguard.cookie import CookieChecker, CookieJar
from warren.proto.wireguard.messages import CookieReply

OWN = b"\x21" * 32
SOURCE = ("192.0.2.7", 7000)
BODY = bytes([1, 0, 0, 0, 0xEF, 0xBE, 0xAD, 0xDE]) + bytes(108)


@pytest.fixture
def checker() -> CookieChecker:
    return CookieChecker(OWN, Random(1).randbytes)


@pytest.fixture
def jar() -> CookieJar:
    return CookieJar(OWN)


def test_mac1_shows_that_the_sender_knows_our_key(checker: CookieChecker, jar: CookieJar) -> None:
    assert checker.mac1_matches(memoryview(jar.add_macs(BODY, 0.0)))
    assert not checker.mac1_matches(memoryview(CookieJar(b"\x22" * 32).add_macs(BODY, 0.0)))
    for at in (0, 50, 115, 116, 131):
        changed = bytearray(jar.add_macs(BODY, 0.0))
        changed[at] ^= 1
        assert not checker.mac1_matches(memoryview(changed))


def test_mac2_is_zero_until_a_cookie_was_given(checker: CookieChecker, jar: CookieJar) -> None:
    message = jar.add_macs(BODY, 0.0)
    assert message[-16:] == bytes(16)
    assert not checker.mac2_matches(memoryview(message), SOURCE, 0.0)


def test_a_cookie_makes_mac2_match_from_that_address_only(checker: CookieChecker, jar: CookieJar) -> None:
    reply = checker.reply(memoryview(jar.add_macs(BODY, 0.0)), SOURCE, 0.0)
    assert reply.receiver == 0xDEADBEEF
    assert jar.take(reply, 0.1)
    message = memoryview(jar.add_macs(BODY, 0.2))
    assert checker.mac2_matches(message, SOURCE, 0.3)
    behind = through_channel(SOURCE, 0x4001)
    for other in (("192.0.2.7", 7001), ("192.0.2.8", 7000), ("2001:db8::7", 7000, 0, 0), behind):
        assert not checker.mac2_matches(message, other, 0.3)


def test_a_cookie_works_for_two_minutes_on_either_side(checker: CookieChecker, jar: CookieJar) -> None:
    assert jar.take(checker.reply(memoryview(jar.add_macs(BODY, 0.0)), SOURCE, 0.0), 0.0)
    message = memoryview(jar.add_macs(BODY, COOKIE_REFRESH_S))
    assert checker.mac2_matches(message, SOURCE, COOKIE_REFRESH_S)
    assert not checker.mac2_matches(message, SOURCE, COOKIE_REFRESH_S + 0.1)
    assert jar.add_macs(BODY, COOKIE_REFRESH_S + 0.1)[-16:] == bytes(16)


def test_the_secret_changes_every_two_minutes(checker: CookieChecker) -> None:
    cookies = []
    for now in (0.0, 119.0, 121.0):
        fresh = CookieJar(OWN)
        assert fresh.take(checker.reply(memoryview(fresh.add_macs(BODY, now)), SOURCE, now), now)
        cookies.append(fresh.add_macs(BODY, now)[-16:])
    assert cookies[0] == cookies[1] != cookies[2]


def test_a_reply_to_another_message_or_a_changed_one_is_refused(checker: CookieChecker, jar: CookieJar) -> None:
    first = checker.reply(memoryview(jar.add_macs(BODY, 0.0)), SOURCE, 0.0)
    jar.add_macs(BODY[:-1] + b"x", 0.0)
    assert not jar.take(first, 0.1)
    second = checker.reply(memoryview(jar.add_macs(BODY, 0.0)), SOURCE, 0.0)
    assert not jar.take(CookieReply(second.receiver, second.nonce, bytes(32)), 0.1)
    assert jar.take(second, 0.1)


def test_a_reply_is_taken_once_and_not_before_we_sent_anything(checker: CookieChecker, jar: CookieJar) -> None:
    other = CookieJar(OWN)
    reply = checker.reply(memoryview(other.add_macs(BODY, 0.0)), SOURCE, 0.0)
    assert not jar.take(reply, 0.0)
    jar.add_macs(BODY, 0.0)  # the same bytes, so the same mac1
    assert jar.take(reply, 0.0)
    assert not jar.take(reply, 0.0)


def test_no_two_replies_share_a_nonce(checker: CookieChecker, jar: CookieJar) -> None:
    message = memoryview(jar.add_macs(BODY, 0.0))
    nonces = [checker.reply(message, SOURCE, now).nonce for now in range(0, 600, 3)]
    assert len(set(nonces)) == 200
