from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import MalformedPacket
from warren.paths.nat import (
    ADDRESS_RESTRICTED,
    FIREWALLED,
    FULL_CONE,
    MEANS,
    OPEN,
    PORT_RESTRICTED,
    SYMMETRIC,
    SYMMETRIC_SEQUENTIAL,
    TEXT_CHARACTERS_MAX,
    Behaviour,
    Situation,
    behaviour_from_text_untrusted,
    behind,
    verdict,
)

KINDS = {
    "open": OPEN,
    "firewalled": FIREWALLED,
    "full-cone": FULL_CONE,
    "address-restricted": ADDRESS_RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
    "symmetric-sequential": SYMMETRIC_SEQUENTIAL,
}

# By hand from Ford, Srisuresh, Kegel 2005 (§3.4, §3.5, §5.1), RFC 5128 (§3.3, §3.6) and RFC 4787; "birthday" and
# "predicted" are the "symmetric against port-restricted" that those call impossible without guessing ports.
TABLE = """
                      open  firewalled  full-cone  address-restricted  port-restricted  symmetric  symmetric-sequential
open                  open  open        open       open                open             open       open
firewalled            open  punched     open       punched             punched          birthday   predicted
full-cone             open  open        open       open                open             open       open
address-restricted    open  punched     open       punched             punched          punched    punched
port-restricted       open  punched     open       punched             punched          birthday   predicted
symmetric             open  birthday    open       punched             birthday         relay      relay
symmetric-sequential  open  predicted   open       punched             predicted        relay      relay
"""


def cells() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return [(name, other, by) for name, *means in rows for other, by in zip(head, means, strict=True)]


@pytest.mark.parametrize(("one", "other", "by"), cells())
def test_every_pair_of_kinds_is_judged_as_the_literature_says(one: str, other: str, by: str) -> None:
    found = verdict(Situation(v4=KINDS[one], outside4="1"), Situation(v4=KINDS[other], outside4="2"))
    assert (found.by, found.direct, found.family) == (by, by != "relay", 4 if by != "relay" else 0)
    assert found.why.endswith(".")


def test_the_table_names_every_pair() -> None:
    assert {(one, other) for one, other, _ in cells()} == set(itertools.product(KINDS, KINDS))


@pytest.mark.parametrize(
    ("one", "other", "by"),
    [
        # RFC 4787 §4.1: a port that depends on the address alone is as unknown to a third party as any other.
        (Behaviour("adm", "apdf", "random"), PORT_RESTRICTED, "birthday"),
        (Behaviour("adm", "adf", "random"), PORT_RESTRICTED, "birthday"),
        (Behaviour("adm", "adf", "sequential"), ADDRESS_RESTRICTED, "punched"),
        (Behaviour("adm", "eif", "random"), Behaviour("adm", "adf", "random"), "punched"),
        (Behaviour("adm", "eif", "random"), Behaviour("apdm", "adf", "random"), "punched"),
        (Behaviour("adm", "eif", "random"), Behaviour("adm", "apdf", "random"), "relay"),
        (Behaviour("apdm", "eif", "random"), Behaviour("apdm", "eif", "random"), "relay"),
        # Ports that are kept are known, whatever the mapping.
        (Behaviour("apdm", "apdf", "preserving"), PORT_RESTRICTED, "punched"),
        (Behaviour("apdm", "apdf", "preserving"), SYMMETRIC, "birthday"),
        (Behaviour("apdm", "eif", "preserving"), SYMMETRIC, "open"),
    ],
)
def test_rare_nats_are_judged_by_their_traits(one: Behaviour, other: Behaviour, by: str) -> None:
    assert verdict(Situation(v4=one), Situation(v4=other)).by == by


HOME = Situation(v4=PORT_RESTRICTED, outside4="1", lans=frozenset({"home"}))
SITUATIONS = {
    "home": HOME,
    "another home": Situation(v4=PORT_RESTRICTED, outside4="2", lans=frozenset({"other"})),
    "hard": Situation(v4=SYMMETRIC, outside4="3"),
    "same CGN": Situation(v4=PORT_RESTRICTED, outside4="1", lans=frozenset({"next door"})),
    "CGN that hairpins": Situation(v4=Behaviour(filtering="apdf", hairpin=True), outside4="4"),
    "no UDP": Situation(v4=PORT_RESTRICTED, outside4="5", udp=False),
    "hard, no UDP": Situation(v4=SYMMETRIC, outside4="6", udp=False),
    "only 443": Situation(v4=PORT_RESTRICTED, outside4="7", udp=False, tcp=False),
    "no relay": Situation(v4=SYMMETRIC, outside4="8", relay=False),
    "no way out": Situation(v4=SYMMETRIC, outside4="12", udp=False, tcp=False, relay=False),
    "IPv6 firewalled": Situation(v4=SYMMETRIC, v6=FIREWALLED, outside4="9"),
    "IPv6 only": Situation(v6=FIREWALLED),
    "IPv6 only, NAT64": Situation(v4=ADDRESS_RESTRICTED, v6=FIREWALLED, nat64=True, outside4="10"),
    "server": Situation(v4=OPEN, v6=OPEN, outside4="11"),
}


@pytest.mark.parametrize(
    ("one", "other", "by", "family"),
    [
        ("home", "home", "lan", 0),
        ("home", "another home", "punched", 4),
        ("home", "same CGN", "relay", 0),
        ("CGN that hairpins", "CGN that hairpins", "punched", 4),
        ("home", "no UDP", "tcp", 4),
        ("server", "no UDP", "tcp", 4),
        ("home", "hard, no UDP", "relay", 0),
        ("server", "only 443", "relay", 0),
        ("no relay", "hard", "relay", 0),
        ("no relay", "no relay", "none", 0),
        ("no relay", "only 443", "relay", 0),
        ("no way out", "only 443", "none", 0),
        ("no way out", "server", "none", 0),
        ("no relay", "server", "open", 4),
        ("hard", "IPv6 firewalled", "relay", 0),
        ("IPv6 firewalled", "IPv6 firewalled", "punched", 6),
        ("IPv6 firewalled", "IPv6 only", "punched", 6),
        ("home", "IPv6 only", "relay", 0),
        ("home", "IPv6 only, NAT64", "punched", 4),
        ("hard", "IPv6 only, NAT64", "punched", 4),
        ("server", "IPv6 only", "open", 6),
        ("server", "server", "open", 6),
    ],
)
def test_situations_are_judged(one: str, other: str, by: str, family: int) -> None:
    found = verdict(SITUATIONS[one], SITUATIONS[other])
    assert (found.by, found.family) == (by, family)
    assert found.direct == (by not in {"relay", "none"})
    assert verdict(SITUATIONS[other], SITUATIONS[one]) == found


def test_a_home_behind_a_cgn_is_as_hard_as_the_worse_of_the_two() -> None:
    assert behind(PORT_RESTRICTED, SYMMETRIC) == SYMMETRIC
    assert behind(SYMMETRIC, FULL_CONE) == SYMMETRIC
    assert behind(FULL_CONE, ADDRESS_RESTRICTED) == ADDRESS_RESTRICTED
    short = Behaviour(lifetime_s=20, hairpin=True)
    assert behind(PORT_RESTRICTED, short) == Behaviour(filtering="apdf", hairpin=True, lifetime_s=20)


behaviours = st.builds(
    Behaviour,
    st.sampled_from(["eim", "adm", "apdm"]),
    st.sampled_from(["eif", "adf", "apdf"]),
    st.sampled_from(["preserving", "sequential", "random"]),
    st.booleans(),
    st.none() | st.integers(1, 7200).map(float),
) | st.sampled_from([OPEN, FIREWALLED])
situations = st.builds(
    Situation,
    st.none() | behaviours,
    st.none() | behaviours,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@given(situations)
def test_a_situation_survives_being_written_and_read(situation: Situation) -> None:
    text = str(situation)
    assert len(text) < TEXT_CHARACTERS_MAX
    assert Situation.from_text_untrusted(text) == situation
    assert Situation.from_text_untrusted(f"{text} weather:fine later") == situation


@given(situations, situations)
def test_the_verdict_does_not_depend_on_who_asks(a: Situation, b: Situation) -> None:
    assert verdict(a, b).by == verdict(b, a).by
    assert verdict(a, b).direct == (verdict(a, b).by not in {"relay", "none"})


@given(situations, situations)
def test_a_wall_taken_away_never_makes_it_worse(a: Situation, b: Situation) -> None:
    def rank(one: Situation) -> int:
        return MEANS.index(verdict(one, b).by)

    opened = Situation(OPEN, a.v6, udp=True, tcp=a.tcp, relay=a.relay, nat64=a.nat64)
    assert rank(opened) <= rank(a)


@given(st.text(max_size=300) | st.text("v46:,eimadpfrnoguls0123456789. ", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        Situation.from_text_untrusted(text)
    except MalformedPacket:
        return


@pytest.mark.parametrize("text", ["", "open,", "eim,30", "eim,3.3.s", "eim,1e9s", "eim,٣s", "x"])
def test_what_is_no_behaviour_is_refused(text: str) -> None:
    if text == "open,":
        assert behaviour_from_text_untrusted(text) == OPEN
        return
    with pytest.raises(MalformedPacket):
        behaviour_from_text_untrusted(text)


def test_a_trait_that_is_not_named_is_the_worst() -> None:
    assert behaviour_from_text_untrusted("apdm") == SYMMETRIC
    assert behaviour_from_text_untrusted("eim") == PORT_RESTRICTED
