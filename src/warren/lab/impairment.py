"""What a bad link does to packets: the values a caller gives."""

from __future__ import annotations

from dataclasses import dataclass, fields

from warren.errors import UsageError

_PROBABILITIES = ("loss", "reorder", "duplicate", "corrupt")
_TIMES = ("delay_s", "jitter_s", "reorder_hold_s")
_COUNTS = ("reorder_depth", "queue_packets", "mtu_drop")


@dataclass(frozen=True, slots=True)
class Impairment:
    """The faults of one direction of a link; the default has none. Probabilities are between 0 and 1, per packet.

    Faults act in this order: size, loss, queue and rate, corruption, delay with jitter, reordering, duplication.
    Raises UsageError for values that make no sense.
    """

    loss: float = 0.0
    loss_burst: float | None = None
    """Mean number of packets lost in a row (a Gilbert model; ``loss`` is still the share of all); None: independent."""
    delay_s: float = 0.0
    jitter_s: float = 0.0
    """The delay varies evenly by this much to both sides. The order stays: a packet waits for those before it."""
    reorder: float = 0.0
    """How many packets are held back, so that later ones overtake them."""
    reorder_depth: int = 10
    """A packet held back lets 1 to so many later ones come, and leaves behind the last of them, …"""
    reorder_hold_s: float = 0.05
    """… or this long after it would have left, if fewer come until then."""
    duplicate: float = 0.0
    """How many packets are followed by a copy."""
    corrupt: float = 0.0
    """How many packets have one bit behind their IP header flipped."""
    corrupt_passes_udp: bool = False
    """Flip the bit in the payload of UDP datagrams and correct the checksum, so that the receiving program gets it."""
    rate_bps: float | None = None
    """Bits of IP packets per second; None: as fast as can be."""
    queue_packets: int = 1000
    """With ``rate_bps``: how many packets may wait to be sent; more are dropped."""
    mtu_drop: int | None = None
    """Black hole: packets larger than this many bytes vanish without an ICMP message."""

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            self._demand(name, 0 <= getattr(self, name) <= 1, "is a probability from 0 to 1")
        for name in _TIMES:
            self._demand(name, getattr(self, name) >= 0, "is a time in seconds, not negative")
        for name in _COUNTS:
            self._demand(name, getattr(self, name) is None or getattr(self, name) >= 1, "is at least 1")
        self._demand("rate_bps", self.rate_bps is None or self.rate_bps > 0, "is more than 0")
        if self.loss_burst is not None and self.loss < 1:
            self._demand("loss_burst", self.loss_burst >= 1, "is at least 1")
            # The good state would have to be left more often than every packet.
            feasible = self.loss <= self.loss_burst * (1 - self.loss)
            self._demand("loss_burst", feasible, f"is too short for a loss of {self.loss:g}")

    def _demand(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise UsageError(f"impairment {name}={getattr(self, name)!r}: {name} {rule}")

    def __str__(self) -> str:
        """Only what is not as in a good link."""
        changed = (field for field in fields(self) if getattr(self, field.name) != field.default)
        return ", ".join(f"{field.name}={getattr(self, field.name)}" for field in changed) or "none"
