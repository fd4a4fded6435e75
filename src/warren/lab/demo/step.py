"""One step of a demonstration, and what several of them measure."""

from __future__ import annotations

from dataclasses import dataclass

from warren.lab.host import Host
from warren.lab.traffic import tcp_transfer

_FLOW_S = 1.5  # about how long one measured flow lasts
_PROBE_BYTES = 48 << 20  # sent first, to know how much that is


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was shown: a title, lines for a person, and the figures behind them."""

    title: str
    lines: tuple[str, ...]
    figures: dict[str, object]


def flow_bits_per_s(sender: Host, receiver: Host, address: str) -> float:
    """The speed of one TCP flow."""
    probe = tcp_transfer(sender, receiver, address, _PROBE_BYTES, verify=False)
    size = max(_PROBE_BYTES, int(_PROBE_BYTES / probe.seconds * _FLOW_S))
    return size * 8 / tcp_transfer(sender, receiver, address, size, verify=False).seconds


def speeds(title: str, measured: dict[str, float]) -> Step:
    """A table of speeds in bits per second."""
    width = max(len(name) for name in measured)
    lines = tuple(f"{name:{width}}  {rate / 1e9:6.2f} Gbit/s" for name, rate in measured.items())
    return Step(title, lines, {"gbit_per_s": {name: round(rate / 1e9, 3) for name, rate in measured.items()}})
