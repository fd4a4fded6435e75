from __future__ import annotations

from typing import Any

import pytest

from warren.errors import UsageError
from warren.lab.nat import KINDS, NatKind, nat_kind


def test_a_kind_is_found_by_its_name_and_says_what_it_is() -> None:
    assert nat_kind("symmetric-sequential") == NatKind("apdm", "apdf", "sequential")
    assert nat_kind(NatKind(hairpin=True)).hairpin
    assert str(NatKind("apdm", "adf", "random", hairpin=True, udp_lifetime_s=20)) == "apdm adf random hairpin 20 s"
    assert str(KINDS["linux"]) == "eim apdf preserving overloads"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mapping": "eif"}, "NAT mapping 'eif': say eim, adm, apdm"),
        ({"filtering": "eim"}, "NAT filtering 'eim': say eif, adf, apdf"),
        ({"allocation": "none"}, "NAT allocation 'none': say preserving, sequential, random"),
        ({"mapping": "apdm"}, "preserves ports has mapping eim"),
        ({"overloads": True, "hairpin": True}, "can overload"),
        ({"udp_lifetime_s": 0}, "say 1 to 86400 seconds"),
    ],
)
def test_what_no_nat_can_be_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        NatKind(**wrong)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="NAT kind 'cone': say full-cone, address-restricted"):
        nat_kind("cone")
