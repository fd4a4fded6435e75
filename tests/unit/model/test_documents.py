from __future__ import annotations

import pytest

from tests.support.networks import NOW_S, MadeNetwork
from warren.model.documents import Candidate, Rule

HOME = MadeNetwork("home")


def test_what_is_signed_here_keeps_the_same_rules() -> None:
    with pytest.raises(ValueError, match="has no ports"):
        Rule(action="allow", sources=("members",), destinations=("members",), ports=("22",))
    with pytest.raises(ValueError, match="is no selector"):
        Rule(action="allow", sources=("everybody",), destinations=("members",))
    with pytest.raises(ValueError, match="nobody can be reached"):
        Candidate(kind="host", address="127.0.0.1", port=1)
    with pytest.raises(ValueError, match="is not a /64"):
        HOME.membership("x", prefix6="fd00::/48")
    with pytest.raises(ValueError, match="is not a /48"):
        HOME.spec(prefix6="fd00::/64")


def test_a_lease_holds_from_its_first_second_until_before_its_last() -> None:
    membership = HOME.membership("x", not_before=NOW_S, not_after=NOW_S + 10).document
    held = [second for second in range(NOW_S - 2, NOW_S + 13) if membership.holds_at(second)]
    assert held == list(range(NOW_S, NOW_S + 10))
    assert not membership.holds_at(NOW_S + 10.0)
    assert membership.holds_at(NOW_S + 9.999)


def test_no_secret_of_a_ticket_is_shown() -> None:
    ticket = HOME.ticket(secret=b"hush, a secret!!")
    assert "hush" not in repr(ticket) + repr(ticket.document) + repr(ticket.envelope)


def test_only_documents_about_nodes_have_a_subject() -> None:
    node = HOME.node("web").verify_key.raw
    assert HOME.membership("web").document.subject == HOME.record("web").document.subject == node
    for about_none in (HOME.spec(), HOME.revocation("old"), HOME.ticket()):
        assert about_none.document.subject == b""
