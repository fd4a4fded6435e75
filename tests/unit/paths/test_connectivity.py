from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address, ip_network

import pytest

from tests.support.path_pair import KEY, PathPair, at, host
from warren.model.tunnel import TransportAddress
from warren.paths.checks import label_of, seal_answer, seal_request
from warren.paths.events import Check, Selected, SignalWanted
from warren.paths.values import Base, RemoteCandidate, Settings, Surroundings
from warren.proto.stun.message import Class, Method, decode_untrusted, encode

STRANGER = at("203.0.113.66", 666)


def sealed(pair: PathPair, **changes: object) -> bytes:
    """A request of b to a."""
    values: dict[str, object] = {
        "key": KEY,
        "transaction": b"transaction1",
        "receiver": label_of(pair.A),
        "sender": label_of(pair.B),
        "controlling": False,
        "nominates": False,
        "relayed": False,
        "epoch": 1,
        "order": 1,
    }
    return seal_request(**(values | changes))  # type: ignore[arg-type]


def connected() -> PathPair:
    pair = PathPair()
    pair.a.want(pair.B, pair.now)
    pair.run(10.0)
    assert pair.selected(pair.a) is not None
    assert pair.selected(pair.b) is not None
    return pair


def test_two_nodes_in_sight_of_each_other_select_the_same_path() -> None:
    pair = connected()
    for machine, other in ((pair.a, pair.b), (pair.b, pair.a)):
        path = pair.selected(machine)
        assert path is not None
        assert (path.base, path.remote) == (pair.bases[machine], pair.address(other))


def test_nothing_is_sent_before_somebody_wants_a_path() -> None:
    pair = PathPair()
    pair.run(1000.0)
    assert pair.wire == []
    assert pair.a.next_deadline() is None


# Who may make it answer


@pytest.mark.parametrize(
    "data",
    [
        encode(Method.BINDING, Class.REQUEST, b"transaction1", []),
        b"",
        bytes(20),
        b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12),
    ],
)
def test_a_message_without_credentials_is_not_answered(data: bytes) -> None:
    pair = connected()
    pair.collect()
    assert not pair.a.receive(data, STRANGER, pair.bases[pair.a], pair.now)
    assert pair.collect() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b"x" * 32},
        {"receiver": label_of(b"c" * 32)},
        {"sender": label_of(b"c" * 32)},
        {"receiver": label_of(PathPair.B), "sender": label_of(PathPair.A)},
    ],
)
def test_a_request_with_wrong_credentials_is_not_answered(changes: dict[str, object]) -> None:
    pair = connected()
    pair.collect()
    assert not pair.a.receive(sealed(pair, **changes), STRANGER, pair.bases[pair.a], pair.now)
    assert pair.collect() == []


def test_our_own_check_sent_back_to_us_is_not_answered() -> None:
    pair = PathPair()
    pair.a.want(pair.B, pair.now)
    pair.a.handle_timeout(pair.now)
    checks = pair.collect()
    assert checks
    for _, check in checks:
        assert not pair.a.receive(check.data, check.remote, pair.bases[pair.a], pair.now)
    assert pair.collect() == []


def test_an_authentic_request_is_answered_at_its_source_with_fewer_bytes() -> None:
    pair = PathPair()
    request = sealed(pair)
    assert pair.a.receive(request, STRANGER, pair.bases[pair.a], pair.now)
    answer = pair.collect()[0][1]
    assert (answer.remote, answer.base) == (STRANGER, pair.bases[pair.a])
    assert len(answer.data) < len(request)


# What a request may bring about


def test_a_request_alone_selects_nothing_whatever_it_says() -> None:
    pair = PathPair()
    pair.passes = lambda machine, check: False
    for order in range(1, 50):
        request = sealed(pair, nominates=True, order=order, transaction=order.to_bytes(12))
        pair.a.receive(request, STRANGER, pair.bases[pair.a], pair.now)
        pair.run(1.0)
    assert pair.selected(pair.a) is None


def test_a_check_that_came_through_a_tunnel_leads_to_no_path() -> None:
    """A path inside the overlay would lead into itself."""
    for overlays, checked in (((), True), ((ip_network("100.64.0.0/10"),), False)):
        pair = PathPair()
        pair.a.set_bases((pair.bases[pair.a],), pair.now, Surroundings(overlays=overlays))
        inside = at("100.64.0.7")
        pair.a.receive(sealed(pair), inside, pair.bases[pair.a], pair.now)
        pair.a.heard(pair.B, inside, pair.bases[pair.a], pair.now)
        pair.run(1.0)
        requests = [check for _, machine, check in pair.wire if machine is pair.a and check.remote == inside]
        assert any(decode_untrusted(one.data).cls == Class.REQUEST for one in requests) == checked


def test_a_replay_from_elsewhere_brings_nothing_but_an_answer_there() -> None:
    pair = connected()
    request = next(
        check.data
        for _, machine, check in reversed(pair.wire)
        if machine is pair.b and decode_untrusted(check.data).cls is Class.REQUEST
    )
    pair.collect()
    before = pair.a.explain(pair.B, pair.now)
    assert pair.a.receive(request, STRANGER, pair.bases[pair.a], pair.now)
    ((_, answer),) = pair.collect()
    assert answer.remote == STRANGER
    assert decode_untrusted(answer.data).cls is Class.SUCCESS
    after = pair.a.explain(pair.B, pair.now)
    assert before is not None
    assert after is not None
    assert {one.path for one in after.pairs} == {one.path for one in before.pairs}
    pair.run(30.0)
    assert not any(check.remote == STRANGER for _, _, check in pair.wire[-50:] if check is not answer)


def test_a_very_old_replay_can_make_us_check_a_few_times_and_no_more() -> None:
    """Of another run of the peer's machine: that it is old cannot be told."""
    pair = connected()
    sent = len(pair.wire)
    for number in range(2000):
        source = TransportAddress(IPv4Address(0xCB007100 + number % 200), 1 + number)
        request = sealed(pair, epoch=77, order=number, transaction=number.to_bytes(12))
        pair.a.receive(request, source, pair.bases[pair.a], pair.now)
    pair.run(60.0)
    strange = [
        check
        for _, machine, check in pair.wire[sent:]
        if check.remote != pair.address(pair.b)
        and machine is pair.a
        and decode_untrusted(check.data).cls is Class.REQUEST
    ]
    assert len(strange) < 16 * 10
    assert pair.selected(pair.a) is not None


# Which answers count


def one_check(pair: PathPair) -> Check:
    pair.passes = lambda machine, check: False
    pair.a.want(pair.B, pair.now)
    pair.a.handle_timeout(pair.now)
    return next(check for machine, check in pair.collect() if machine is pair.a)


@pytest.mark.parametrize("case", ["right", "elsewhere", "other base", "other transaction", "other key", "twice"])
def test_an_answer_counts_if_it_comes_by_the_way_of_the_request(case: str) -> None:
    pair = PathPair()
    second = host("198.51.100.1", 2)
    pair.a.set_bases((pair.bases[pair.a], second), pair.now)
    check = one_check(pair)
    transaction = decode_untrusted(check.data).transaction
    key = b"x" * 32 if case == "other key" else KEY
    answer = seal_answer(key, bytes(12) if case == "other transaction" else transaction, pair.address(pair.a), 1)
    source = STRANGER if case == "elsewhere" else check.remote
    base = second if case == "other base" else check.base
    right = case in {"right", "twice"}
    assert pair.a.receive(answer, source, base, pair.now) == right
    pair.collect()
    assert (pair.selected(pair.a) is not None) == right
    if case == "twice":
        assert not pair.a.receive(answer, source, base, pair.now)


def test_an_answer_of_another_peer_does_not_count() -> None:
    """An insider who has a key of his own, and saw our check to somebody else."""
    pair = PathPair()
    pair.a.set_peer(b"c" * 32, (b"c" * 32,), (), "", pair.now)
    check = one_check(pair)
    forged = seal_answer(b"c" * 32, decode_untrusted(check.data).transaction, pair.address(pair.a), 1)
    assert not pair.a.receive(forged, check.remote, check.base, pair.now)
    pair.collect()
    assert pair.selected(pair.a) is None


def test_a_base_may_come_back_without_its_interface() -> None:
    pair = PathPair()
    check = one_check(pair)
    answer = seal_answer(KEY, decode_untrusted(check.data).transaction, pair.address(pair.a), 1)
    assert pair.a.receive(answer, check.remote, dataclasses.replace(check.base, interface=0), pair.now)


def test_both_keys_are_accepted_and_the_first_is_used() -> None:
    pair = PathPair()
    new = b"n" * 32
    pair.a.set_peer(pair.B, (new, KEY), (RemoteCandidate("host", at("192.0.2.2")),), "", pair.now)
    pair.b.set_peer(pair.A, (KEY, new), (RemoteCandidate("host", at("192.0.2.1")),), "", pair.now)
    pair.a.want(pair.B, pair.now)
    pair.run(5.0)
    assert pair.selected(pair.a) is not None
    assert pair.selected(pair.b) is not None


# Ceilings


def test_many_requests_of_one_source_get_the_last_answered() -> None:
    pair = PathPair()
    for order in range(1, 60):
        pair.a.receive(
            sealed(pair, order=order, transaction=order.to_bytes(12)), STRANGER, pair.bases[pair.a], pair.now
        )
    answers = [
        decode_untrusted(check.data) for _, check in pair.collect() if decode_untrusted(check.data).cls is Class.SUCCESS
    ]
    assert [answer.transaction for answer in answers] == [(59).to_bytes(12)]


def test_a_flood_of_an_insider_costs_bounded_memory_and_packets() -> None:
    pair = connected()
    context = pair.a._context
    sent = len(pair.wire)
    order = 1_000_000
    pair.a._peers[pair.B].freshness.proven(5)
    sizes = set()
    for step in range(200):
        for number in range(100):
            order += 1
            source = TransportAddress(IPv4Address(0x0A000000 + order), 1 + number)
            request = sealed(pair, epoch=5, order=order, transaction=order.to_bytes(12))
            pair.a.receive(request, source, pair.bases[pair.a], pair.now)
        pair.run(0.05)
        if step > 50:
            sizes.add(len(context.transactions) // 100)
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert len(report.pairs) <= 64
    assert len(context.transactions) < 400
    assert len(context.transmits) < 100
    assert len(pair.a._due) < 200
    packets = [check for _, machine, check in pair.wire[sent:] if machine is pair.a]
    requests = [check for check in packets if decode_untrusted(check.data).cls is Class.REQUEST]
    assert len(packets) - len(requests) <= 100 * 11 + 10  # answers: 100 a second
    assert len(requests) <= 40 * 11 + 60  # checks: 40 a second
    assert pair.selected(pair.a) is not None


def test_candidates_aimed_at_somebody_else_bring_him_little() -> None:
    pair = PathPair()
    victim = IPv4Address("203.0.113.9")
    aimed = tuple(RemoteCandidate("host", TransportAddress(victim, port)) for port in range(1, 400))
    pair.passes = lambda machine, check: False
    pair.a.set_peer(pair.B, (KEY,), aimed, "", pair.now)
    for _ in range(60):
        pair.a.want(pair.B, pair.now)
        pair.run(1.0)
    hits = [when for when, _, check in pair.wire if check.remote.ip == victim]
    assert len(hits) <= 40 * 60 + 40
    assert len({check.remote for _, _, check in pair.wire}) <= 64 + 1


def test_all_peers_together_keep_to_the_pace_of_the_node() -> None:
    pair = PathPair(settings=Settings(node_checks_per_s=50.0))
    for number in range(100):
        node = bytes([number]) * 32
        pair.a.set_peer(node, (KEY,), (RemoteCandidate("host", at("203.0.113.9", 1000 + number)),), "", pair.now)
        pair.a.want(node, pair.now)
    pair.run(10.0)
    assert len([one for one in pair.wire if one[1] is pair.a]) <= 50 * 10 + 10


def test_only_so_many_idle_paths_are_kept_open() -> None:
    pair = PathPair(settings=Settings(kept_alive_max=1))
    pair.a.want(pair.B, pair.now)
    pair.run(10.0)
    pair.a._context.keep(b"somebody else")
    pair.run(60.0)
    sent = len([one for one in pair.wire if one[1] is pair.a and decode_untrusted(one[2].data).cls is Class.REQUEST])
    pair.b.remove_peer(pair.A)
    pair.run(600.0)
    again = len([one for one in pair.wire if one[1] is pair.a and decode_untrusted(one[2].data).cls is Class.REQUEST])
    assert again == sent
    assert pair.selected(pair.a) is not None
    pair.a.want(pair.B, pair.now)  # and now it is seen that nobody is there
    pair.run(20.0)
    assert pair.selected(pair.a) is None


def test_a_removed_peer_leaves_nothing() -> None:
    pair = connected()
    pair.a.remove_peer(pair.B)
    assert pair.a.next_deadline() is None
    assert pair.a.explain(pair.B, pair.now) is None
    assert pair.a._context.transactions == {}
    assert pair.a._context.kept == {}
    pair.a.want(pair.B, pair.now)
    pair.a.signal_received(pair.B, b"", pair.now)
    assert [check for machine, check in pair.collect() if machine is pair.a] == []


def test_where_pairs_send_to_is_known_by_base() -> None:
    pair = connected()
    assert pair.a.remotes(pair.bases[pair.a]) == {at("192.0.2.2")}
    assert pair.a.remotes(host("192.0.2.77")) == set()


def test_a_peer_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="check key"):
        PathPair().a.set_peer(b"c" * 32, (), (), "", 0.0)


# Signals


def signal(pair: PathPair) -> bytes:
    pair.passes = lambda machine, check: False
    pair.a.want(pair.B, pair.now)
    pair.collect()
    return next(one.data for one in pair.events[pair.a] if isinstance(one, SignalWanted))


def test_a_signal_makes_the_other_check_at_once_and_answer() -> None:
    pair = PathPair()
    pair.a.set_self(record=b"record", candidates=(RemoteCandidate("srflx", at("198.51.100.5")),), nat="v4:open")
    data = signal(pair)
    pair.b.signal_received(pair.A, data, pair.now)
    checks = [check for machine, check in pair.collect() if machine is pair.b]
    pair.run(0.5)
    remotes = {check.remote for _, machine, check in pair.wire if machine is pair.b} | {one.remote for one in checks}
    assert at("198.51.100.5") in remotes
    assert any(type(one).__name__ == "Learned" for one in pair.events[pair.b])


@pytest.mark.parametrize("change", ["bit", "sender", "not a signal"])
def test_a_signal_that_is_not_authentic_has_no_effect(change: str) -> None:
    pair = PathPair()
    data = signal(pair)
    node = pair.A
    if change == "bit":
        data = data[:-1] + bytes([data[-1] ^ 1])
    elif change == "sender":
        node = b"c" * 32
        pair.b.set_peer(node, (b"c" * 32,), (), "", pair.now)
    else:
        data = sealed(pair)
    pair.b.signal_received(node, data, pair.now)
    assert [check for machine, check in pair.collect() if machine is pair.b] == []
    assert not any(isinstance(one, SignalWanted) for one in pair.events[pair.b])


def test_a_flood_of_signals_is_cut() -> None:
    pair = PathPair()
    data = signal(pair)
    for _ in range(1000):
        pair.b.signal_received(pair.A, data, pair.now)
    pair.collect()
    assert sum(isinstance(one, SignalWanted) for one in pair.events[pair.b]) <= 7


# Whoever carries checks only


RELAYS = ("203.0.113.1", "203.0.113.2")


def behind_relays(*addresses: str) -> PathPair:
    """a reaches b by these relayed addresses only; all its checks are answered, the first ones fastest."""
    pair = PathPair()
    pair.a.set_peer(pair.B, (KEY,), tuple(RemoteCandidate("relay", at(text)) for text in addresses), "", pair.now)
    pair.a.want(pair.B, pair.now)
    answering(pair, 5.0, data=True)
    assert pair.selected(pair.a) is not None
    return pair


def answering(pair: PathPair, seconds: float, *, data: bool) -> None:
    """So long a sends; its checks are answered, and with ``data`` data comes in."""
    end = pair.now + seconds
    while pair.now < end:
        for machine, check in pair.collect():
            message = decode_untrusted(check.data)
            if machine is pair.a and message.cls == Class.REQUEST:
                answer = seal_answer(KEY, message.transaction, at("192.0.2.1"), 7)
                assert pair.a.receive(answer, check.remote, check.base, pair.now + 0.001)
        pair.now += 0.05
        pair.count(100, 100 * data)
        pair.a.handle_timeout(pair.now)


def test_a_relay_that_carries_checks_and_no_data_is_left_and_not_taken_back() -> None:
    pair = behind_relays(*RELAYS)
    first = pair.selected(pair.a)
    answering(pair, 11.0, data=False)
    assert pair.selected(pair.a) == first, "the other side may have nothing to say but a keepalive"
    answering(pair, 3.0, data=False)
    second = pair.selected(pair.a)
    assert second is not None
    assert first is not None
    assert second.remote != first.remote
    answering(pair, 50.0, data=True)
    assert pair.selected(pair.a) == second


def test_where_there_is_no_other_way_a_silent_one_is_kept() -> None:
    pair = behind_relays(RELAYS[0])
    first = pair.selected(pair.a)
    answering(pair, 60.0, data=False)
    assert pair.selected(pair.a) == first


def test_a_silent_path_is_not_replaced_by_another_through_the_same_relay_if_there_is_one_elsewhere() -> None:
    pair = behind_relays(RELAYS[0], "2001:db8::1", RELAYS[1])
    own = (("one", at(RELAYS[0], 50_000)), ("one", at("2001:db8::1", 50_000)), ("two", at(RELAYS[1], 50_000)))
    bases = (pair.bases[pair.a], host("2001:db8::99"))
    pair.a.set_bases(bases, pair.now, Surroundings(relayed=own))
    answering(pair, 10.0, data=True)
    first = pair.selected(pair.a)
    answering(pair, 13.0, data=False)
    second = pair.selected(pair.a)
    assert first is not None
    assert second is not None
    assert (str(first.remote.ip) == RELAYS[1]) != (str(second.remote.ip) == RELAYS[1])


@pytest.mark.parametrize("settled_s", [1.0, 8.0])
def test_who_proposes_goes_along_when_the_peer_keeps_to_another_path(settled_s: float) -> None:
    pair = behind_relays(*RELAYS)
    first = pair.selected(pair.a)
    assert first is not None
    other = next(one for one in RELAYS if one != str(first.remote.ip))
    answering(pair, 10.0, data=True)
    pair.a._peers[pair.B].choice.since = pair.now - settled_s
    pair.a.heard(pair.B, at(other), pair.bases[pair.a], pair.now)
    pair.collect()
    now = pair.selected(pair.a)
    assert now is not None
    assert (str(now.remote.ip) == other) == (settled_s > 5.0)


# Reports


def test_a_report_says_in_words_what_was_tried() -> None:
    pair = PathPair()
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert report.state == "idle"
    pair.passes = lambda machine, check: False
    pair.a.want(pair.B, pair.now)
    pair.run(1.0)
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert report.state == "checking"
    assert report.pairs[0].sent > 0
    pair.run(60.0)
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert (report.state, report.path) == ("none", None)
    assert report.why == "The one way that was tried was not answered."


def test_a_report_of_a_path_has_its_round_trip_and_mtu() -> None:
    pair = connected()
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert report.state == "direct"
    assert report.rtt_s is not None
    assert report.mtu == 1440
    assert report.pairs[0].path == report.path
    assert "192.0.2.2" in report.why


def test_without_a_base_the_report_says_so() -> None:
    pair = PathPair()
    pair.a.set_bases((), pair.now)
    pair.a.want(pair.B, pair.now)
    pair.run(10.0)
    report = pair.a.explain(pair.B, pair.now)
    assert report is not None
    assert report.why == "This host has no address to send from."


def test_a_base_that_is_gone_takes_its_path_with_it() -> None:
    pair = connected()
    pair.a.set_bases((Base(address=IPv4Address("192.0.2.77"), interface=2),), pair.now)
    pair.collect()
    last = [one for one in pair.events[pair.a] if isinstance(one, Selected)][-1]
    assert last.path is None
    assert "gone" in last.why
