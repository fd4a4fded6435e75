"""Problems: one form for administrators and nodes."""

from __future__ import annotations

import pytest

from warren.coordinator.problems import KINDS, Problem
from warren.proto.control.messages import Refused, pack, unpack_to_node_untrusted


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_status_and_travels_to_a_node(kind: str) -> None:
    problem = Problem(kind, "d" * 5000, "r" * 5000, retry_after_s=1.5)
    assert 400 <= problem.status < 600
    assert problem.type == f"urn:warren:problem:{kind}"
    refused = unpack_to_node_untrusted(pack(problem.refused()))
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.title, refused.retry_after_s) == (kind, problem.title, 1.5)


def test_a_problem_reads_as_a_sentence() -> None:
    assert str(Problem("not-found", "there is no network x", "List them.")) == "there is no network x; list them"


def test_an_unknown_kind_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Problem("no-such-kind")
