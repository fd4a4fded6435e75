"""What an impaired link decides: shares from a seed, times from a hand-moved clock."""

from __future__ import annotations

import itertools

import pytest

from warren.lab.direction import IN_FLIGHT_MAX, Direction
from warren.lab.impairment import Impairment

COUNT = 20_000
GAP_S = 0.0001
SEED = "1 link 0 forth"


def numbered(count: int, size: int = 40) -> list[bytes]:
    """Distinct IPv4-looking packets: the number is behind the header."""
    return [b"\x45" + bytes(19) + number.to_bytes(4) + bytes(size - 24) for number in range(count)]


def number_of(packet: bytes) -> int:
    return int.from_bytes(packet[20:24])


def carry(direction: Direction, packets: list[bytes], gap_s: float = GAP_S) -> list[tuple[float, bytes]]:
    """Send packets ``gap_s`` apart and wait for the last; returns what comes out and when."""
    out: list[tuple[float, bytes]] = []
    for index, packet in enumerate(packets):
        now = index * gap_s
        out += drain(direction, now)
        direction.receive(packet, now)
    return out + drain(direction, 1e9)


def drain(direction: Direction, until: float) -> list[tuple[float, bytes]]:
    """Take everything due by ``until``, waking exactly when the direction asks for it."""
    out = []
    while (at := direction.next_deadline()) is not None and at <= until:
        taken = direction.take_transmits(at)
        assert taken, "woken for nothing"
        out += [(at, packet) for packet in taken]
    return out


def numbers(out: list[tuple[float, bytes]]) -> list[int]:
    return [number_of(packet) for _, packet in out]


def test_a_good_link_hands_every_packet_on_at_once_and_in_order() -> None:
    direction = Direction(Impairment(), SEED)
    assert direction.is_idle
    out = carry(direction, numbered(100))
    assert numbers(out) == list(range(100))
    assert [at for at, _ in out] == [index * GAP_S for index in range(100)]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_share_of_lost_packets_is_the_one_asked_for(share: float) -> None:
    direction = Direction(Impairment(loss=share), SEED)
    delivered = len(carry(direction, numbered(COUNT)))
    assert delivered + direction.counters.lost == COUNT
    # four standard deviations of a binomial distribution
    assert abs(direction.counters.lost - COUNT * share) < 4 * (COUNT * share * (1 - share)) ** 0.5


def test_a_loss_of_one_loses_all_and_of_zero_none() -> None:
    assert not carry(Direction(Impairment(loss=1), SEED), numbered(100))
    assert not carry(Direction(Impairment(loss=1, loss_burst=5), SEED), numbered(100))
    assert len(carry(Direction(Impairment(loss=0), SEED), numbered(100))) == 100


def test_bursts_have_the_mean_length_and_the_share_asked_for() -> None:
    direction = Direction(Impairment(loss=0.1, loss_burst=8), SEED)
    delivered = set(numbers(carry(direction, numbered(10 * COUNT))))
    runs = [len(list(run)) for lost, run in itertools.groupby(range(10 * COUNT), lambda n: n not in delivered) if lost]
    assert sum(runs) / len(runs) == pytest.approx(8, rel=0.08)
    assert sum(runs) / (10 * COUNT) == pytest.approx(0.1, rel=0.08)


def test_the_same_seed_decides_the_same_and_another_differently() -> None:
    impairment = Impairment(loss=0.1, duplicate=0.1, corrupt=0.1, reorder=0.1, jitter_s=0.001, delay_s=0.002)
    first, second = (carry(Direction(impairment, SEED), numbered(1000)) for _ in range(2))
    other = carry(Direction(impairment, "2 link 0 forth"), numbered(1000))
    assert first == second
    assert first != other


def test_the_decisions_do_not_depend_on_when_packets_come() -> None:
    slow = carry(Direction(Impairment(loss=0.3), SEED), numbered(1000), gap_s=0.5)
    fast = carry(Direction(Impairment(loss=0.3), SEED), numbered(1000), gap_s=0)
    assert numbers(slow) == numbers(fast)


def test_switching_one_fault_on_does_not_change_what_another_does() -> None:
    alone = carry(Direction(Impairment(loss=0.3), SEED), numbered(1000))
    together = carry(Direction(Impairment(loss=0.3, jitter_s=0.01, delay_s=0.01), SEED), numbered(1000))
    assert numbers(alone) == numbers(together)


def test_a_delay_is_exact() -> None:
    out = carry(Direction(Impairment(delay_s=0.02), SEED), numbered(50))
    assert [at for at, _ in out] == pytest.approx([index * GAP_S + 0.02 for index in range(50)])


def test_jitter_varies_the_delay_within_its_bounds_and_keeps_the_order() -> None:
    gap_s = 1.0  # so far apart that no packet waits for another
    out = carry(Direction(Impairment(delay_s=0.3, jitter_s=0.2), SEED), numbered(COUNT), gap_s)
    delays = [at - index * gap_s for index, (at, _) in enumerate(out)]
    assert 0.1 <= min(delays) < 0.101
    assert 0.499 < max(delays) <= 0.5
    assert sum(delays) / COUNT == pytest.approx(0.3, rel=0.01)
    close = carry(Direction(Impairment(delay_s=0.3, jitter_s=0.2), SEED), numbered(COUNT))
    assert numbers(close) == list(range(COUNT))


def test_jitter_greater_than_the_delay_never_delivers_before_the_packet_came() -> None:
    out = carry(Direction(Impairment(delay_s=0.001, jitter_s=0.01), SEED), numbered(1000), gap_s=1.0)
    assert all(at >= index for index, (at, _) in enumerate(out))


def test_a_packet_held_back_is_overtaken_by_at_most_the_depth() -> None:
    direction = Direction(Impairment(reorder=0.3, reorder_depth=7, reorder_hold_s=100), SEED)
    order = numbers(carry(direction, numbered(COUNT)))
    assert sorted(order) == list(range(COUNT)), "none is lost or doubled"
    assert direction.counters.reordered == pytest.approx(0.3 * COUNT, rel=0.05)
    overtaken_by = [position - number for position, number in enumerate(order[: COUNT - 100])]
    assert max(overtaken_by) == 7
    overtaken = sum(by > 0 for by in overtaken_by)
    assert 0.2 * COUNT < overtaken < 0.3 * COUNT, "most of those held back do leave behind a later one"


def test_a_packet_held_back_leaves_alone_when_nothing_follows() -> None:
    direction = Direction(Impairment(reorder=1, reorder_hold_s=0.05, delay_s=0.01), SEED)
    direction.receive(numbered(1)[0], 5.0)
    assert direction.next_deadline() == pytest.approx(5.06)
    assert direction.take_transmits(5.059) == []
    assert direction.take_transmits(5.061) == numbered(1)
    assert direction.next_deadline() is None


def test_a_copy_follows_right_behind_its_packet() -> None:
    direction = Direction(Impairment(duplicate=0.2), SEED)
    order = numbers(carry(direction, numbered(COUNT)))
    assert order == sorted(order)
    assert sorted(set(order)) == list(range(COUNT))
    assert len(order) == COUNT + direction.counters.duplicated
    assert direction.counters.duplicated == pytest.approx(0.2 * COUNT, rel=0.05)


def test_damage_touches_the_share_asked_for_and_one_bit_each() -> None:
    direction = Direction(Impairment(corrupt=0.1), SEED)
    packets = numbered(COUNT)
    differing = [
        int.from_bytes(sent) ^ int.from_bytes(got)
        for sent, (_, got) in zip(packets, carry(direction, packets), strict=True)
        if sent != got
    ]
    assert len(differing) == direction.counters.corrupted == pytest.approx(0.1 * COUNT, rel=0.08)
    assert all(bits.bit_count() == 1 for bits in differing)


def test_a_black_hole_swallows_exactly_the_larger_packets() -> None:
    direction = Direction(Impairment(mtu_drop=1400), SEED)
    out = carry(direction, [packet for size in (1399, 1400, 1401, 1500) for packet in numbered(1, size)])
    assert [len(packet) for _, packet in out] == [1399, 1400]
    assert direction.counters.too_big == 2


def test_a_rate_spaces_packets_and_a_full_queue_drops_the_newest() -> None:
    direction = Direction(Impairment(rate_bps=8000, queue_packets=3), SEED)  # 100 bytes take 0.1 s
    for packet in numbered(5, 100):
        direction.receive(packet, 0.0)
    out = drain(direction, 10.0)
    assert [at for at, _ in out] == pytest.approx([0.1, 0.2, 0.3])
    assert numbers(out) == [0, 1, 2]
    assert direction.counters.queue_full == 2
    direction.receive(numbered(1, 100)[0], 20.0)
    assert direction.next_deadline() == pytest.approx(20.1), "an idle line gathers no credit"


def test_a_change_acts_on_later_packets_and_keeps_the_order() -> None:
    first, second = numbered(2)
    direction = Direction(Impairment(delay_s=1.0), SEED)
    direction.receive(first, 0.0)
    direction.set(Impairment())
    assert not direction.is_idle
    direction.receive(second, 0.1)
    assert direction.take_transmits(0.9) == []
    assert direction.take_transmits(1.0) == [first, second]
    assert direction.is_idle


def test_what_is_on_its_way_has_a_ceiling() -> None:
    direction = Direction(Impairment(delay_s=1.0), SEED)
    for _ in range(IN_FLIGHT_MAX + 5):
        direction.receive(b"\x45", 0.0)
    assert direction.counters.queue_full == 5
    assert len(direction.take_transmits(1.0)) == IN_FLIGHT_MAX
