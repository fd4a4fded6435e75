"""With and without the speedups a device does the same, byte for byte."""

from __future__ import annotations

import pytest

from tests.sim.conftest import PURE
from tests.support.packets import udp_packet
from tests.support.wireguard_pair import Wire
from warren.proto import datapath
from warren.proto.wireguard.datapaths import DataPath


def story(seed: int, twin: DataPath) -> tuple[list[object], list[bytes], list[bytes], dict[str, int]]:
    """Ten minutes of traffic on a bad network with spoofed and replayed messages: what was sent, delivered, counted."""
    with Wire(seed, loss=0.1, duplicate=0.1, jitter_s=0.3, datapath=twin) as wire:
        a, b = wire.pair()
        for turn in range(200):
            sizes = [wire.random.randrange(1, 1392) for _ in range(wire.random.randrange(8))]
            a.send(*(a.packet_to(b, wire.random.randbytes(size), turn % 2) for size in sizes))
            if turn % 3 == 0:
                b.send(b.packet_to(a, b"%d" % turn), udp_packet("10.9.9.9", "10.0.0.1", b"spoofed"))
            if turn % 5 == 0:
                for source, _, data in wire.captured[-5:]:
                    wire.inject(b, data, source)
            wire.advance(3.0)
        counters = {f"{host.name} {name}": count for host in (a, b) for name, count in host.device.counters.items()}
        return list(wire.captured), a.delivered, b.delivered, counters


@pytest.mark.skipif(not datapath.COMPILED, reason="the speedups are not built, or WARREN_PURE is set")
@pytest.mark.parametrize("seed", range(3))
def test_both_twins_tell_the_same_story(seed: int) -> None:
    pure = story(seed, PURE)
    assert pure == story(seed, DataPath())
    assert len(pure[2]) > 100
    assert pure[3]["b data_replayed"] > 0
    assert pure[3]["a inner_spoofed"] > 0
