"""A member that carries signals of others: b, which has paths to a and to c."""

from __future__ import annotations

import pytest

from tests.support.path_pair import KEY, PathPair, at
from warren.paths.checks import key_of, label_of, names, seal_answer
from warren.paths.events import Check, SignalWanted
from warren.paths.signalling import BROUGHT_BURST
from warren.paths.signals import (
    CARRIED_BYTES_MAX,
    CARRIED_FROM,
    CARRY_TO,
    SIGNAL_BYTES_MAX,
    Signal,
    read_signal_untrusted,
    seal_carried,
    seal_signal,
)
from warren.paths.values import RemoteCandidate
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode

C = b"c" * 32
KEY_BC = b"bc" * 16
KEY_AC = b"ac" * 16


def carrier() -> PathPair:
    pair = PathPair()
    pair.a.want(pair.B, pair.now)
    pair.run(5.0)
    pair.b.set_peer(C, (KEY_BC,), (RemoteCandidate("host", at("192.0.2.3")),), "", pair.now)
    pair.b.want(C, pair.now)
    pair.b.handle_timeout(pair.now)
    for _, check in pair.collect():
        if check.remote == at("192.0.2.3"):
            answer = seal_answer(KEY_BC, decode_untrusted(check.data).transaction, pair.address(pair.b), 3)
            assert pair.b.receive(answer, check.remote, check.base, pair.now)
    pair.collect()
    assert pair.selected(pair.b) is not None
    return pair


def signal_of_a(data: bytes | None = None) -> bytes:
    return data or seal_signal(
        Signal(True), key=KEY_AC, transaction=b"inner message"[:12], receiver=label_of(C), sender=label_of(PathPair.A)
    )


def ask(pair: PathPair, data: bytes, *, key: bytes = KEY, to: bytes = C) -> list[Check]:
    """a asks b to carry it; what b sends to c then."""
    message = seal_carried(
        data,
        to,
        onward=True,
        key=key,
        transaction=b"outer message"[:12],
        receiver=label_of(pair.B),
        sender=label_of(pair.A),
    )
    pair.b.receive(message, pair.address(pair.a), pair.bases[pair.b], pair.now)
    return [check for machine, check in pair.collect() if machine is pair.b and check.remote == at("192.0.2.3")]


def test_it_brings_a_signal_as_it_is_and_says_whose_it_is() -> None:
    pair = carrier()
    (check,) = ask(pair, signal_of_a())
    message = decode_untrusted(check.data)
    assert names(message) == (label_of(C), label_of(pair.B))
    assert key_of(message, (KEY_BC,)) is not None
    assert message.get(CARRIED_FROM) == pair.A
    assert message.get(CARRY_TO) is None
    assert message.get(Attribute.DATA) == signal_of_a()


def test_it_carries_only_for_who_is_authentic_and_to_whom_it_has_a_path() -> None:
    pair = carrier()
    assert ask(pair, signal_of_a(), key=b"x" * 32) == []
    assert ask(pair, signal_of_a(), to=b"d" * 32) == []
    assert ask(pair, signal_of_a(), to=pair.A) == []
    assert ask(pair, bytes(CARRIED_BYTES_MAX + 4)) == []


def test_it_carries_no_flood() -> None:
    pair = carrier()
    assert sum(len(ask(pair, signal_of_a())) for _ in range(1000)) <= 7


def test_what_was_carried_is_never_carried_further() -> None:
    """c brings b something of a's that asks b to bring it to c."""
    pair = carrier()
    onward = encode(
        Method.CARRY,
        Class.INDICATION,
        bytes(12),
        [
            (int(Attribute.USERNAME), f"{label_of(pair.B)}:{label_of(pair.A)}".encode()),
            (CARRY_TO, C),
            (int(Attribute.DATA), signal_of_a()),
        ],
        key=KEY,
    )
    brought = seal_carried(
        onward, pair.A, onward=False, key=KEY_BC, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(C)
    )
    pair.b.receive(brought, at("192.0.2.3"), pair.bases[pair.b], pair.now)
    assert [check for machine, check in pair.collect() if machine is pair.b and check.remote == at("192.0.2.3")] == []


def test_what_is_brought_counts_only_if_the_sender_signed_it() -> None:
    pair = carrier()
    pair.b.remove_peer(pair.A)
    pair.b.set_peer(pair.A, (KEY,), (), "", pair.now)
    for key, counts in ((b"x" * 32, False), (KEY, True)):
        signal = Signal(True, nat="v4:open")
        data = seal_signal(signal, key=key, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(pair.A))
        brought = seal_carried(
            data, pair.A, onward=False, key=KEY_BC, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(C)
        )
        pair.b.receive(brought, at("192.0.2.3"), pair.bases[pair.b], pair.now)
        assert (pair.b._peers[pair.A].whereabouts.nat == "v4:open") == counts


def test_who_brings_rubbish_uses_up_nobody_elses_signals() -> None:
    pair = carrier()
    forged = seal_signal(
        Signal(True), key=b"x" * 32, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(pair.A)
    )
    brought = seal_carried(
        forged, pair.A, onward=False, key=KEY_BC, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(C)
    )
    for _ in range(1000):
        pair.b.receive(brought, at("192.0.2.3"), pair.bases[pair.b], pair.now)
        pair.b.signal_received(pair.A, forged, pair.now)
    real = seal_signal(
        Signal(False, nat="v4:open", epoch=7, order=1),
        key=KEY,
        transaction=bytes(12),
        receiver=label_of(pair.B),
        sender=label_of(pair.A),
    )
    pair.b.signal_received(pair.A, real, pair.now)
    assert pair.b._peers[pair.A].whereabouts.nat == "v4:open"


def test_what_one_member_brings_is_looked_at_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = carrier()
    looked = 0

    def count(*_: object) -> None:
        nonlocal looked
        looked += 1

    monkeypatch.setattr(pair.b._signalling, "received", count)
    for _ in range(1000):
        brought = seal_carried(
            b"", pair.A, onward=False, key=KEY_BC, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(C)
        )
        pair.b.receive(brought, at("192.0.2.3"), pair.bases[pair.b], pair.now)
    assert looked == BROUGHT_BURST


def told(pair: PathPair, nat: str, epoch: int, order: int) -> str:
    """a's signal comes to b; what b then knows of a's NAT."""
    signal = Signal(False, nat=nat, epoch=epoch, order=order)
    data = seal_signal(signal, key=KEY, transaction=bytes(12), receiver=label_of(pair.B), sender=label_of(pair.A))
    pair.now += 10.0
    pair.b.signal_received(pair.A, data, pair.now)
    return pair.b._peers[pair.A].whereabouts.nat


def test_an_old_signal_never_takes_the_place_of_a_newer_one() -> None:
    pair = PathPair()
    assert told(pair, "v4:open", 7, 2) == "v4:open"
    for order in (1, 2):
        assert told(pair, "no-udp", 7, order) == "v4:open"
    assert told(pair, "no-udp", 0, 0) == "v4:open"
    assert told(pair, "no-udp", 7, 3) == "no-udp"


def test_when_a_peer_was_started_again_nothing_of_before_counts() -> None:
    pair = carrier()
    epoch = pair.a._context.epoch
    assert told(pair, "v4:open", epoch, 1000) == "v4:open"
    pair.a._context.epoch = epoch ^ 1
    pair.run(60.0)
    assert told(pair, "no-udp", epoch, 2000) == "v4:open"
    assert told(pair, "no-udp", epoch ^ 1, 3000) == "no-udp"


def test_each_signal_has_a_higher_number_than_the_one_before() -> None:
    pair = PathPair()
    seen = []
    for _ in range(3):
        pair.now += 60.0
        pair.a.want(pair.B, pair.now)
        pair.a.handle_timeout(pair.now)
        pair.collect()
        seen += [one.data for one in pair.events[pair.a] if isinstance(one, SignalWanted)]
        pair.events[pair.a].clear()
    signals = [read_signal_untrusted(decode_untrusted(data, SIGNAL_BYTES_MAX)) for data in seen]
    orders = [signal.order for signal in signals]
    assert len(orders) >= 3
    assert orders == sorted(set(orders))
    assert {signal.epoch for signal in signals} == {pair.a._context.epoch}
