"""When a node's WireGuard key is due: pure.

::

    in use ── rotate_s minus announce_s ──▶ the next one is announced ── announce_s, and everybody was told ──▶ taken
      ▲                                                                                                         │
      └─────────────────────────────────────────────────────────────────────────────────────────────────────────┘

The announcement is in the NodeRecord. A key is taken into use only while a coordinator is connected, so that all who
are connected too learn of it at once; one who is not finds out by trying the announced key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = Literal["keep", "announce", "take"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node's keys stand; network time in seconds."""

    key_since_s: float
    next_since_s: float
    """0: there is no next key."""
    told: bool
    """A coordinator is connected, and has the record that announces the next key."""


def step(standing: Standing, rotate_s: float, announce_s: float, now_s: float) -> Step:
    """What is to be done now. ``rotate_s`` 0: keys are kept for ever, but one that was announced is still taken."""
    if standing.next_since_s:
        return "take" if standing.told and now_s >= standing.next_since_s + announce_s else "keep"
    if rotate_s and now_s >= standing.key_since_s + rotate_s - announce_s:
        return "announce"
    return "keep"


def next_step_at(standing: Standing, rotate_s: float, announce_s: float) -> float | None:
    """When :func:`step` may give another answer by time alone; None: never."""
    if standing.next_since_s:
        return standing.next_since_s + announce_s
    return standing.key_since_s + rotate_s - announce_s if rotate_s else None
