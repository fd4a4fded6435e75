"""What is wrong with a body, in words."""

from __future__ import annotations

from typing import Any

import pytest

from warren.coordinator.web.body import decode_untrusted
from warren.coordinator.web.problems import HttpProblem
from warren.proto.control.administration import InviteRequest, NetworkRequest, TokenRequest
from warren.proto.control.desired_state import DesiredState


@pytest.mark.parametrize(
    ("wanted", "body", "said"),
    [
        (NetworkRequest, b'{"name":"A B"}', "name: a name has a-z, 0-9 and inner hyphens"),
        (NetworkRequest, b'{"name":"a","suffix":"."}', "suffix: a suffix is one to eight names"),
        (InviteRequest, b'{"tags":["A"]}', "tags[0]: a tag has a-z, 0-9, _ and -"),
        (TokenRequest, b'{"label":"x","ttl_s":5,"network":"A"}', "network: a name has a-z"),
        (DesiredState, b'{"members":{"A":{}},"policy":[]}', "members: a name has a-z"),
        (
            DesiredState,
            b'{"policy":[{"action":"deny","sources":["members"],"destinations":["members"],"comment":"\\n"}]}',
            "policy[0].comment: a comment is one line",
        ),
        (NetworkRequest, b"{}", "Object missing required field `name`; "),
        (NetworkRequest, b'{"name":"a","lease_s":1}', "lease_s: Expected `int` >= 60; "),
    ],
)
def test_what_is_wrong_is_told_in_words_and_with_its_place(wanted: Any, body: bytes, said: str) -> None:
    with pytest.raises(HttpProblem) as caught:
        decode_untrusted(body, wanted)
    assert str(caught.value).startswith(said)
    assert "regex" not in str(caught.value)
