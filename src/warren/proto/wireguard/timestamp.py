"""TAI64N timestamps that only ever rise (WireGuard §5.4.4; https://cr.yp.to/libtai/tai64.html).

A responder accepts an initiation only with a greater timestamp than any before. Were they taken from the clock alone,
a clock that was once set too far ahead would lock its owner out for as long (CVE-2021-46873). So each is the greater
of the clock and the one before plus one step, and the first lies above a floor that the owner stored.
"""

from __future__ import annotations

from collections.abc import Callable

from warren.proto.wireguard.constants import TIMESTAMP_BYTES

_TAI64_EPOCH = (
    0x4000_0000_0000_000A  # 1970-01-01 00:00:00 TAI as a TAI64 label, plus 10 s: as the reference implementations count
)
_NS_PER_S = 10**9

STEP_NS = 1 << 24
"""Timestamps are rounded down to this (17 ms), so that they tell little of the clock and nothing of the time a
handshake takes.
"""


def pack_tai64n(timestamp_ns: int) -> bytes:
    """``timestamp_ns`` (ns since 1970) as 12 bytes, whose order as bytes is the order in time."""
    seconds, ns = divmod(timestamp_ns, _NS_PER_S)
    return (_TAI64_EPOCH + seconds).to_bytes(8, "big") + ns.to_bytes(TIMESTAMP_BYTES - 8, "big")


class TimestampSource:
    """Makes the timestamps of one device. ``used_ns`` is the greatest so far, or the floor given."""

    __slots__ = ("used_ns", "wall_clock_ns")

    def __init__(self, wall_clock_ns: Callable[[], int], floor_ns: int) -> None:
        self.wall_clock_ns = wall_clock_ns
        self.used_ns = floor_ns

    def after(self, last_ns: int) -> int:
        """A timestamp greater than ``last_ns``, which is the last one used with the same peer, or :attr:`used_ns` for
        a new one.
        """
        now_ns = max(0, self.wall_clock_ns())
        timestamp_ns = max(now_ns - now_ns % STEP_NS, last_ns + STEP_NS)
        self.used_ns = max(self.used_ns, timestamp_ns)
        return timestamp_ns
