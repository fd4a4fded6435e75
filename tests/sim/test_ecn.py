"""Congestion marks pass through the tunnel as RFC 6040 says."""

from __future__ import annotations

import pytest

from tests.sim.sessions import connected
from tests.support.packets import rfc1071, udp_packet
from tests.support.wireguard_pair import Host, Wire
from warren.proto.wireguard.constants import DATA
from warren.proto.wireguard.datapaths import DataPath

NOT_ECT, ECT_1, ECT_0, CE = range(4)
DSCP = 46 << 2


def marked(sender: Host, receiver: Host, family: int, ecn: int) -> bytes:
    packet = bytearray(udp_packet(sender.inner[family], receiver.inner[family], b"payload"))
    if family:
        packet[0] |= DSCP >> 4
        packet[1] = (DSCP & 15) << 4 | ecn << 4
    else:
        packet[1] = DSCP | ecn
        packet[10:12] = bytes(2)
        packet[10:12] = rfc1071(bytes(packet[:20])).to_bytes(2, "big")
    return bytes(packet)


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize("ecn", [NOT_ECT, ECT_1, ECT_0, CE])
def test_the_outer_header_shows_the_inner_mark_and_not_its_dscp(twin: DataPath, family: int, ecn: int) -> None:
    with Wire(seed=100, datapath=twin) as wire:
        a, b = connected(wire)
        frame = bytearray(bytes(10) + marked(a, b, family, ecn))
        a.device.send(memoryview(frame), len(frame), wire.now)
        a.device.flush(wire.now)
        (transmit,) = a.device.take_transmits()
        assert transmit.ecn == ecn


@pytest.mark.parametrize("family", [0, 1])
@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (NOT_ECT, NOT_ECT, NOT_ECT),
        (NOT_ECT, ECT_1, NOT_ECT),
        (NOT_ECT, ECT_0, NOT_ECT),
        (NOT_ECT, CE, None),  # the sender cannot be told, so the packet is lost as it would have been
        (ECT_0, NOT_ECT, ECT_0),
        (ECT_0, ECT_1, ECT_1),
        (ECT_0, ECT_0, ECT_0),
        (ECT_0, CE, CE),
        (ECT_1, NOT_ECT, ECT_1),
        (ECT_1, ECT_0, ECT_1),
        (ECT_1, CE, CE),
        (CE, NOT_ECT, CE),
        (CE, CE, CE),
    ],
)
def test_marks_set_on_the_way_reach_the_inner_packet(
    twin: DataPath, family: int, inner: int, outer: int, expected: int | None
) -> None:
    with Wire(seed=101, datapath=twin) as wire:
        a, b = connected(wire)
        wire.loss = 1.0
        before = len(b.delivered)
        a.send(marked(a, b, family, inner))
        wire.inject(b, wire.messages(DATA, a)[-1], a.address, ecn=outer)
        assert b.delivered[before:] == ([] if expected is None else [marked(a, b, family, expected)])
        assert b.device.counters["inner_congested"] == (expected is None)
