"""Who a TURN server lets in."""

from __future__ import annotations

import pytest

from warren.proto.turn.credentials import rest_password, rest_username
from warren.proto.turn.server_credentials import Both, SharedSecret, Table

SECRET, OLD = b"0123456789abcdef", b"fedcba9876543210"


def shared(now: float = 1000.0) -> SharedSecret:
    return SharedSecret((SECRET, OLD), lambda: now)


def test_a_time_limited_name_has_the_password_of_each_secret() -> None:
    name = rest_username("node", 1000)
    assert shared().passwords(name) == (rest_password(SECRET, name), rest_password(OLD, name))


def test_a_name_whose_time_is_up_has_none() -> None:
    assert shared(1000.5).passwords("1000:node") == ()


@pytest.mark.parametrize("name", ["", ":", "node", "x:node", "-5:node", "²:node", "1e9:node", " 2000:node", "9" * 13])
def test_what_is_no_time_limited_name_has_none(name: str) -> None:
    assert shared().passwords(name) == ()


def test_a_bare_time_is_a_name_too_as_coturn_has_it() -> None:
    assert shared().passwords("2000") != ()


def test_the_identity_stays_when_the_name_is_renewed() -> None:
    assert shared().identity("2000:a:b") == shared().identity("3000:a:b") == "a:b"


def test_who_is_revoked_has_none() -> None:
    secret = shared()
    secret.revoked = frozenset({"node"})
    assert secret.passwords("2000:node") == ()
    assert secret.passwords("2000:other") != ()


def test_a_table_may_be_replaced() -> None:
    table = Table({"u": "p"})
    assert table.passwords("u") == ("p",)
    table.users = {"v": "q"}
    assert table.passwords("u") == ()


def test_both_ask_the_table_first() -> None:
    both = Both(Table({"u": "p"}), shared())
    assert both.passwords("u") == ("p",)
    assert both.identity("u") == "u"
    assert len(both.passwords("2000:n")) == 2
    assert both.identity("2000:n") == "n"
    assert both.passwords("nobody") == ()
