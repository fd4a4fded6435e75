"""A node's map: what it takes, what it keeps, and what no carrier can make it forget."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.networks import LEASE_S, NOW_S, MadeNetwork, envelopes, put, signing_key
from warren.model import intake, netmap
from warren.model.documents import DocumentKey
from warren.model.envelope import Envelope, seal
from warren.model.netmap import Applied, NetworkMap


@pytest.fixture
def home() -> MadeNetwork:
    return MadeNetwork()


@pytest.fixture
def view(home: MadeNetwork) -> NetworkMap:
    return NetworkMap(home.key)


def names(view: NetworkMap) -> list[str]:
    return sorted(member.name for member in view.members().values())


def reasons(applied: Applied) -> list[str]:
    return [refusal.reason for refusal in applied.refused]


def test_documents_become_members(home: MadeNetwork, view: NetworkMap) -> None:
    record = home.record("web")
    applied = put(view, home.spec(), home.membership("web", tags=("www",), routes=("192.168.7.0/24",)), record)
    assert applied.complete
    assert applied.refused == ()
    assert view.revision == 1
    assert view.spec is not None
    assert view.spec.name == "home"
    node = home.node("web").verify_key
    member = view.member(node.raw)
    assert member is not None
    assert view.members() == {node.raw: member}
    assert (member.key, member.name, member.tags) == (node, "web", ("www",))
    assert str(member.address6) == str(home.plan.address6(1))
    assert str(member.address4) == "10.77.0.1"
    assert [str(route) for route in member.routes] == ["192.168.7.0/24"]
    assert member.wireguard_key is not None
    assert member.wireguard_key.raw == record.document.wireguard_key
    assert [str(candidate) for candidate in member.candidates] == ["[2001:db8::1]:51820"]
    assert view.live_members(NOW_S) == (member,)
    assert view.next_lease_change(NOW_S) == NOW_S + LEASE_S


def test_an_empty_map_has_nothing(view: NetworkMap) -> None:
    assert (view.revision, view.spec, view.revocation, view.envelopes()) == (0, None, None, ())
    assert (dict(view.members()), view.live_members(NOW_S), view.next_lease_change(NOW_S)) == ({}, (), None)


# Versions


def test_an_older_document_is_never_taken_after_a_newer_one(home: MadeNetwork, view: NetworkMap) -> None:
    old = home.membership("web", tags=("old",)), home.record("web"), home.spec(), home.revocation()
    new = home.membership("web", tags=("new",)), home.record("web"), home.spec(), home.revocation("bad")
    put(view, *new)
    before = view.envelopes()
    applied = put(view, *old)
    assert view.envelopes() == before
    assert applied.changed == frozenset()
    assert len(applied.refused) == 4
    assert all("came after version" in reason for reason in reasons(applied))
    again = put(view, *new)
    assert (again.changed, again.refused) == (frozenset(), ())


def test_a_version_goes_down_neither_in_one_update_nor_over_its_parts(home: MadeNetwork, view: NetworkMap) -> None:
    first, second = home.membership("web", tags=("first",)), home.membership("web", tags=("second",))
    applied = put(view, second, first)
    assert view.versions()[second.key] == second.document.version
    assert len(applied.refused) == 1
    third, fourth = home.membership("web"), home.membership("web")
    view.apply(revision=2, whole=False, more=True, put=envelopes(fourth), drop=())
    applied = view.apply(revision=2, whole=False, more=False, put=envelopes(third), drop=())
    assert view.versions()[fourth.key] == fourth.document.version
    assert len(applied.refused) == 1


def test_what_was_dropped_does_not_come_back_in_an_older_version(home: MadeNetwork, view: NetworkMap) -> None:
    older, old, record = home.membership("web"), home.membership("web"), home.record("web")
    node = home.node("web").verify_key.raw
    put(view, old, record)
    assert put(view, drop=(node,)).dropped == {old.key, record.key}
    assert names(view) == []
    assert reasons(put(view, older)) == [
        f"version {older.document.version} of a membership document came after version {old.document.version}"
    ]
    assert put(view, old).changed == {old.key}
    assert names(view) == ["web"]


def test_a_member_that_joins_anew_is_taken_in_the_same_update(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("web"), home.record("web"))
    node = home.node("web").verify_key.raw
    again = home.membership("web", name="web-2")
    applied = put(view, again, drop=(node,))
    assert names(view) == ["web-2"]
    assert view.members()[node].record is None
    assert applied.changed == {again.key}
    assert applied.dropped == {DocumentKey("node", node)}


def test_the_memory_of_versions_has_a_ceiling(
    home: MadeNetwork, view: NetworkMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netmap, "MARKS_MAX", 3)
    older = {name: home.membership(name) for name in "abcd"}
    for name in "abcd":
        put(view, home.membership(name))
        put(view, drop=(home.node(name).verify_key.raw,))
    assert len(put(view, *(older[name] for name in "bcd")).refused) == 3
    assert put(view, older["a"]).refused == ()


def test_of_two_documents_with_one_version_the_first_stays(home: MadeNetwork, view: NetworkMap) -> None:
    one, other = (home.membership("web", version=7, tags=(tag,)) for tag in ("one", "other"))
    put(view, one)
    assert reasons(put(view, other)) == ["another membership document has version 7 too; the first one stays"]
    assert view.envelopes() == (one.envelope,)


def test_an_update_of_an_earlier_revision_drops_nothing(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("web"), revision=9)
    newer = home.membership("db")
    applied = put(view, newer, revision=4, drop=(home.node("web").verify_key.raw,))
    assert reasons(applied) == ["revision 4 came after 9: nothing in it was dropped"]
    assert names(view) == ["db", "web"]
    assert view.revision == 9


def test_a_whole_map_sets_the_revision_also_back(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("web"), revision=9)
    assert put(view, home.membership("web"), revision=4, whole=True).refused == ()
    assert view.revision == 4


# Whole maps and parts


def test_a_whole_map_drops_what_it_does_not_name(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("a"), home.membership("b"), home.record("a"), home.record("b"))
    kept = home.membership("b")
    applied = put(view, kept, whole=True)
    node_a, node_b = (home.node(name).verify_key.raw for name in "ab")
    assert applied.dropped == {
        DocumentKey("membership", node_a),
        DocumentKey("node", node_a),
        DocumentKey("node", node_b),
    }
    assert view.envelopes() == (kept.envelope,)


def test_a_record_goes_with_its_membership(home: MadeNetwork, view: NetworkMap) -> None:
    record = home.record("web")
    put(view, home.membership("web"), record)
    applied = put(view, record, whole=True)
    assert {key.kind for key in applied.dropped} == {"membership", "node"}
    assert view.envelopes() == ()


def test_spec_and_revocation_are_never_forgotten(home: MadeNetwork, view: NetworkMap) -> None:
    spec, revocation, member = home.spec(), home.revocation("bad"), home.membership("bad")
    put(view, spec, revocation, member)
    put(view, member, whole=True)
    put(view, drop=(b"", bytes(32), home.node("web").verify_key.raw))
    assert view.spec == spec.document
    assert view.revocation == revocation.document
    assert view.live_members(NOW_S) == ()


def test_a_whole_map_with_old_versions_takes_nothing_away(home: MadeNetwork, view: NetworkMap) -> None:
    old = home.membership("web"), home.record("web")
    new = home.membership("web"), home.record("web")
    put(view, *new)
    applied = put(view, *old, whole=True)
    assert applied.dropped == frozenset()
    assert applied.refused_count == 2
    assert view.envelopes() == envelopes(*new)


def test_parts_do_not_count_until_the_last(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.spec(), home.membership("old"))
    before = view.envelopes()
    web, db = home.membership("web"), home.membership("db")
    parts: list[dict[str, Any]] = [
        {"put": envelopes(home.record("web"))},
        {"put": envelopes(web)},
        {"put": (), "drop": (home.node("old").verify_key.raw,)},
    ]
    for part in parts:
        applied = view.apply(**{"revision": 5, "whole": False, "more": True, "drop": (), **part})
        assert applied == Applied(complete=False)
        assert (view.envelopes(), view.revision, names(view)) == (before, 1, ["old"])
    applied = view.apply(revision=5, whole=False, more=False, put=envelopes(db), drop=())
    assert applied.complete
    assert applied.refused == ()
    assert names(view) == ["db", "web"]
    assert view.members()[home.node("web").verify_key.raw].record is not None
    assert view.revision == 5


@pytest.mark.parametrize("flags", [(True, True, True), (True, False, False), (False, False, True)])
def test_a_map_is_whole_when_any_part_says_so(
    home: MadeNetwork, view: NetworkMap, flags: tuple[bool, bool, bool]
) -> None:
    put(view, home.membership("gone"))
    members = [home.membership(name) for name in "abc"]
    for number, (member, whole) in enumerate(zip(members, flags, strict=True)):
        view.apply(revision=3, whole=whole, more=number < 2, put=envelopes(member), drop=())
    assert names(view) == ["a", "b", "c"]


def test_an_abandoned_update_leaves_no_trace(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("web"))
    node = home.node("web").verify_key.raw
    view.apply(revision=9, whole=True, more=True, put=envelopes(home.membership("ghost")), drop=(node,))
    view.abandon()
    assert put(view, home.membership("db")).complete
    assert names(view) == ["db", "web"]


def test_a_drop_in_a_later_part_counts_for_what_earlier_parts_put(home: MadeNetwork, view: NetworkMap) -> None:
    view.apply(revision=2, whole=True, more=True, put=envelopes(home.membership("a"), home.membership("b")), drop=())
    view.apply(revision=2, whole=True, more=False, put=(), drop=(home.node("a").verify_key.raw,))
    assert names(view) == ["b"]


# Trust


def test_what_is_not_to_be_trusted_is_refused_and_the_rest_is_taken(home: MadeNetwork, view: NetworkMap) -> None:
    work = MadeNetwork("work")
    good = home.membership("web")
    forged = seal("membership", home.membership("evil").envelope.payload, signing_key("evil"))
    bad = [
        (work.membership("web").envelope, "did not sign"),
        (work.spec().envelope, "did not sign"),
        (msgspec.structs.replace(forged, signer=home.key.raw), "did not sign"),
        (forged, "did not sign"),
        (home.ticket().envelope, "a ticket is a secret"),
        (home.record("stranger").envelope, "is not a member"),
        (work.record("web").envelope, "of another network"),
        (seal("membership", b"\x93", home.authority), "not a membership document"),
        (Envelope(kind="\x1b[2J", payload=b"", signer=b"", signature=b""), "an unusable kind"),
        (Envelope(kind="node", payload=b"", signer=b"", signature=b""), "the wrong length"),
    ]
    applied = view.apply(
        revision=1, whole=False, more=False, put=(*(envelope for envelope, _ in bad), good.envelope), drop=()
    )
    assert view.envelopes() == (good.envelope,)
    assert applied.refused_count == len(bad)
    expected = [reason for _, reason in bad if reason != "is not a member"] + ["is not a member"]
    for reason, part in zip(reasons(applied), expected, strict=True):
        assert part in reason


def test_a_signature_that_is_known_vouches_for_its_own_document_only(home: MadeNetwork, view: NetworkMap) -> None:
    known = home.membership("web")
    put(view, known)
    for change in ({"payload": b"\x80"}, {"kind": "later"}, {"signer": bytes(32)}):
        applied = apply_envelopes(view, msgspec.structs.replace(known.envelope, **change))
        assert applied.refused_count == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prefix6": "fd00::/48"}, "fd00::/48 is not the prefix of this network"),
        ({"prefix4": "8.8.8.0/24"}, "not private or shared"),
        ({"prefix4": "10.0.0.0/30"}, "wrong size"),
    ],
)
def test_a_spec_does_not_take_the_addresses_of_others(
    home: MadeNetwork, view: NetworkMap, change: dict[str, str], reason: str
) -> None:
    assert reason in reasons(put(view, home.spec(**change)))[0]
    assert view.spec is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prefix6": "fd00:1:2:3::/64"}, "is not the prefix of a node in"),
        ({"prefix6": "2001:db8::/64"}, "is not the prefix of a node in"),
        ({"prefix6": "network"}, "is not the prefix of a node in"),
        ({"address4": "8.8.8.8"}, "not in private or shared"),
        ({"address4": "127.0.0.1"}, "not in private or shared"),
        ({"routes": ("0.0.0.0/0",)}, "0.0.0.0/0 is everything"),
        ({"routes": ("::/0",)}, "::/0 is everything"),
        ({"routes": ("127.0.0.0/8",)}, "loopback"),
        ({"routes": ("192.168.1.0/24", "fe80::/64")}, "link-local"),
        ({"routes": ("within",)}, "addresses of the network itself"),
        ({"routes": ("around",)}, "addresses of the network itself"),
    ],
)
def test_a_membership_does_not_take_the_addresses_of_others(
    home: MadeNetwork, view: NetworkMap, change: dict[str, Any], reason: str
) -> None:
    places = {
        "network": f"{home.prefix6.network_address}/64",
        "within": f"{home.prefix6.network_address}/56",
        "around": str(home.prefix6.supernet(new_prefix=32)),
    }
    change = {
        name: tuple(places.get(text, text) for text in value) if isinstance(value, tuple) else places.get(value, value)
        for name, value in change.items()
    }
    assert reason in reasons(put(view, home.membership("web", **change)))[0]
    assert names(view) == []


ENVELOPES = st.builds(
    Envelope,
    kind=st.sampled_from(["network", "membership", "revocation", "node", "ticket", "other", ""]) | st.text(max_size=40),
    payload=st.binary(max_size=64),
    signer=st.sampled_from([MadeNetwork().key.raw, bytes(32)]) | st.binary(max_size=33),
    signature=st.binary(min_size=64, max_size=64) | st.binary(max_size=65),
)


@given(
    updates=st.lists(
        st.fixed_dictionaries(
            {
                "revision": st.integers(0, 2**40),
                "whole": st.booleans(),
                "more": st.booleans(),
                "put": st.lists(ENVELOPES, max_size=4),
                "drop": st.lists(st.binary(max_size=33), max_size=3),
            }
        ),
        max_size=6,
    )
)
@example(updates=[{"revision": 0, "whole": True, "more": False, "put": [], "drop": [b""]}])
def test_nothing_unsigned_gets_in_and_nothing_raises(updates: list[dict[str, Any]]) -> None:
    home = MadeNetwork()
    view = NetworkMap(home.key)
    spec = home.spec()
    put(view, spec)
    for update in updates:
        view.apply(**update)
    assert view.envelopes() == (spec.envelope,)


@given(kind=st.sampled_from(["network", "membership", "revocation", "later"]), payload=st.binary(max_size=100))
def test_whatever_the_authority_signs_nothing_raises(kind: str, payload: bytes) -> None:
    home = MadeNetwork()
    view = NetworkMap(home.key)
    envelope = seal(kind, payload, home.authority)
    assert view.apply(revision=1, whole=False, more=False, put=(envelope,), drop=()).refused_count == 1


def test_refusals_are_counted_but_only_some_are_told(home: MadeNetwork, view: NetworkMap) -> None:
    work = MadeNetwork("work")
    applied = put(view, *(work.membership(f"m{number}") for number in range(100)))
    assert (applied.refused_count, len(applied.refused)) == (100, intake.REFUSALS_MAX)


# Kinds that are not known yet


def later(home: MadeNetwork, kind: str = "service", **fields: Any) -> Envelope:
    content = {"network": home.key.raw, "version": home.next_version(), "port": 80, **fields}
    return seal(kind, msgspec.msgpack.encode(content), home.authority)


def apply_envelopes(view: NetworkMap, *carried: Envelope, **arguments: Any) -> Applied:
    values: dict[str, Any] = {"revision": view.revision + 1, "whole": False, "more": False, "put": carried, "drop": ()}
    return view.apply(**{**values, **arguments})


def test_unknown_kinds_are_kept_and_passed_on(home: MadeNetwork, view: NetworkMap) -> None:
    node = home.node("web").verify_key.raw
    kinds = (
        later(home, subject=b"one"),
        later(home, subject=b"two"),
        later(home, kind="zone"),
        later(home, node=node),
    )
    applied = apply_envelopes(view, *kinds)
    assert applied.refused == ()
    assert set(view.envelopes()) == set(kinds)
    assert {key.subject for key in applied.changed} == {b"one", b"two", b"", node}
    newer, older = later(home, subject=b"one"), later(home, subject=b"two", version=1)
    assert apply_envelopes(view, newer, older).refused_count == 1
    assert set(view.envelopes()) == {newer, *kinds[1:]}
    assert apply_envelopes(view, drop=(node,)).dropped == {DocumentKey("service", node)}
    copy = NetworkMap(home.key)
    apply_envelopes(copy, *view.envelopes(), whole=True)
    assert copy.envelopes() == view.envelopes()


def test_unknown_kinds_are_the_authoritys_of_this_network(home: MadeNetwork, view: NetworkMap) -> None:
    work = MadeNetwork("work")
    bad = (
        later(work),
        seal("service", later(home).payload, signing_key("stranger")),
        later(home, network=work.key.raw),
        later(home, version=0),
        later(home, subject=bytes(65)),
        later(home, node=b"short"),
        seal("service", b"\x90", home.authority),
    )
    assert apply_envelopes(view, *bad).refused_count == len(bad)
    assert view.envelopes() == ()


def test_unknown_kinds_have_a_ceiling(home: MadeNetwork, view: NetworkMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netmap, "UNKNOWN_MAX", 3)
    monkeypatch.setattr(netmap, "UNKNOWN_BYTES_MAX", 1000)
    applied = apply_envelopes(view, *(later(home, subject=b"%d" % number) for number in range(5)))
    assert (len(view.envelopes()), applied.refused_count) == (3, 2)
    assert apply_envelopes(view, later(home, subject=b"1", padding=bytes(1000))).refused_count == 1
    assert apply_envelopes(view, later(home, subject=b"1", padding=bytes(100))).refused_count == 0
    assert len(view.envelopes()) == 3


# Ceilings


def test_the_number_of_members_has_a_ceiling(
    home: MadeNetwork, view: NetworkMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(netmap, "MEMBERS_MAX", 2)
    applied = put(view, *(home.membership(name) for name in "abc"))
    assert len(view.members()) == 2
    assert reasons(applied) == ["the network has 2 members already"]
    present = names(view)
    assert put(view, home.membership(present[0])).refused == ()
    put(view, drop=(home.node(present[0]).verify_key.raw,))
    assert put(view, home.membership("d")).refused == ()


def test_an_update_has_a_ceiling(home: MadeNetwork, view: NetworkMap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "DOCUMENTS_MAX", 2)
    assert put(view, *(home.membership(name) for name in "abc")).refused_count == 1
    monkeypatch.undo()
    monkeypatch.setattr(intake, "STAGED_BYTES_MAX", 300)
    assert put(view, *(home.membership(name) for name in "def")).refused_count == 2
    assert put(view, home.membership("g")).refused_count == 0


# Leases and revocation


def test_who_is_live_follows_leases_and_revocation(home: MadeNetwork, view: NetworkMap) -> None:
    put(
        view,
        home.membership("now", not_before=100, not_after=200),
        home.membership("later", not_before=150, not_after=300),
        home.membership("never", not_before=180, not_after=170),
        home.membership("bad", not_before=100, not_after=1000),
        home.revocation("bad"),
    )
    assert view.is_revoked(home.node("bad").verify_key.raw)
    assert not view.is_revoked(home.node("now").verify_key.raw)
    seen = []
    moment: float | None = 0.0
    while moment is not None:
        seen.append((moment, sorted(member.name for member in view.live_members(moment))))
        moment = view.next_lease_change(moment)
    assert seen == [(0.0, []), (100, ["now"]), (150, ["later", "now"]), (200, ["later"]), (300, [])]
    assert "bad" in names(view)


def test_a_revocation_is_lifted_only_by_a_newer_one(home: MadeNetwork, view: NetworkMap) -> None:
    empty, revoking = home.revocation(), home.revocation("web")
    put(view, home.membership("web"), revoking)
    put(view, empty)
    assert view.live_members(NOW_S) == ()
    put(view, home.membership("web"))
    assert view.live_members(NOW_S) == ()
    put(view, home.revocation())
    assert len(view.live_members(NOW_S)) == 1


def test_a_renewed_lease_and_a_new_record_are_seen(home: MadeNetwork, view: NetworkMap) -> None:
    put(view, home.membership("web", not_after=NOW_S + 10), home.record("web"))
    node = home.node("web").verify_key.raw
    assert put(view, home.membership("web", not_after=NOW_S + 99)).changed == {DocumentKey("membership", node)}
    assert view.next_lease_change(NOW_S) == NOW_S + 99
    record = home.record("web", next_wireguard_key=bytes(range(32)))
    assert put(view, record).changed == {record.key}
    announced = view.members()[node].next_wireguard_key
    assert announced is not None
    assert announced.raw == bytes(range(32))


# Whatever comes


def random_changes(home: MadeNetwork, view: NetworkMap, draw: random.Random, steps: int) -> None:
    """Changes such as an authority makes."""
    for _ in range(steps):
        name = draw.choice("abcdef")
        node = home.node(name).verify_key.raw
        match draw.randrange(8):
            case 0:
                put(view, home.spec())
            case 1:
                put(view, home.revocation(*draw.sample("abcdef", draw.randrange(3))))
            case 2 | 3:
                put(view, home.membership(name))
            case 4 | 5:
                put(view, home.record(name))
            case 6:
                put(view, drop=(node,))
            case _:
                apply_envelopes(view, later(home, node=node) if draw.random() < 0.7 else later(home, subject=b"s"))


@given(seed=st.integers(0, 2**32))
def test_versions_never_go_back_whatever_is_replayed(seed: int) -> None:
    home, draw = MadeNetwork(), random.Random(seed)
    source, view = NetworkMap(home.key), NetworkMap(home.key)
    seen: set[Envelope] = set()
    highest: dict[DocumentKey, int] = {}
    nodes = [home.node(name).verify_key.raw for name in "abcdef"]
    for _ in range(15):
        random_changes(home, source, draw, 2)
        seen.update(source.envelopes())
        known = sorted(seen, key=lambda envelope: envelope.signature)
        apply_envelopes(
            view,
            *draw.sample(known, min(len(known), 6)),
            revision=draw.randrange(10),
            whole=draw.random() < 0.2,
            more=draw.random() < 0.3,
            drop=draw.sample(nodes, draw.randrange(2)),
        )
        for key, version in view.versions().items():
            assert version >= highest.get(key, 0)
            highest[key] = version
    view.abandon()
    apply_envelopes(view, *source.envelopes(), whole=True)
    assert view.envelopes() == source.envelopes()
