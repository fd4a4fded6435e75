from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

from tests.support.wireguard_pair import Wire
from warren.identity.keys import PrivateKey, PublicKey
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange
from warren.proto.wireguard.constants import INITIATION
from warren.proto.wireguard.counters import COUNTERS
from warren.proto.wireguard.device import EVENTS_MAX, TIMEOUTS_AT_ONCE, Device
from warren.proto.wireguard.events import TimestampUsed

KEY = PrivateKey(b"\x01" * 32)


def device() -> Device:
    made = Device(random=random.Random(1).randbytes, wall_clock_ns=lambda: 10**18)
    made.configure(TunnelChange(private_key=KEY), 0.0)
    return made


def unreachable_peers(count: int, keepalive_s: int = 0) -> TunnelChange:
    return TunnelChange(
        peers=tuple(
            PeerChange(
                PublicKey(random.Random(number).randbytes(32)),
                endpoint=TransportAddress(ip_address("192.0.2.1"), number),
                persistent_keepalive_s=keepalive_s,
                allowed_ips=(ip_network((number, 32)),),
            )
            for number in range(1000, 1000 + count)
        )
    )


def test_many_keepalives_due_at_once_are_served_a_few_at_a_time() -> None:
    busy = device()
    busy.configure(unreachable_peers(100, keepalive_s=25), 0.0)
    busy.up(0.0)
    sent = [len(busy.take_transmits())]
    while (deadline := busy.next_deadline()) is not None and deadline.at <= 0.0:
        busy.handle_timeout(0.0)
        sent.append(len(busy.take_transmits()))
    assert max(sent) <= TIMEOUTS_AT_ONCE
    assert sum(sent) == 100


def test_idle_peers_cost_no_timers() -> None:
    idle = device()
    idle.configure(unreachable_peers(1000), 0.0)
    idle.up(0.0)
    assert idle.next_deadline() is None


def test_events_are_bounded_but_the_timestamp_is_never_lost() -> None:
    told = device()
    own = PeerChange(PublicKey(KEY.public_key().raw))
    for _ in range(EVENTS_MAX + 10):
        told.configure(TunnelChange(peers=(own,)), 0.0)
    told.configure(unreachable_peers(1, keepalive_s=25), 0.0)
    told.up(0.0)
    events = told.take_events()
    assert len(events) == EVENTS_MAX + 1
    assert isinstance(events[-1], TimestampUsed)
    assert told.take_events() == []


def test_every_counter_has_a_name_and_a_sentence() -> None:
    assert set(device().counters) == set(COUNTERS)
    assert all(len(sentence.split()) > 2 for sentence in COUNTERS.values())


def test_events_say_what_happened_in_one_line_and_hold_no_secret() -> None:
    with Wire(seed=1, loss=0.0) as wire:
        a, b = wire.pair()
        a.send(a.packet_to(b))
        wire.settle()
        wire.loss = 1.0
        a.send(a.packet_to(b))
        wire.advance(1000)
        b.address = ("2001:db8::1", 5, 0, 0)
        told = [*a.events, *b.events, TimestampUsed(5)]
        assert len({type(event) for event in told}) >= 4
        for event in told:
            assert "\n" not in str(event)
            assert event.level in {"DEBUG", "INFO", "WARNING"}
            assert a.private_key.base64 not in str(event) + repr(event)


def test_the_same_seed_gives_the_same_bytes() -> None:
    def run() -> list[bytes]:
        with Wire(seed=5) as wire:
            a, b = wire.pair()
            a.send(a.packet_to(b))
            wire.advance(200)
            return [data for _, _, data in wire.captured]

    assert run() == run()
    assert run()[0][0] == INITIATION
