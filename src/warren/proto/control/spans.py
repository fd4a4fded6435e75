"""Durations as a person writes them: ``90s``, ``30m``, ``1h30m``, ``7d``, ``2w``."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

UNITS: Final = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400})
"""Letter → seconds."""
INVITE_S_MAX: Final = 366 * UNITS["d"]
TOKEN_S_MAX: Final = 10 * 366 * UNITS["d"]
_SPAN: Final = re.compile(r"(?:[0-9]{1,9}[smhdw])+")


def read_span(text: str) -> int:
    """Seconds of ``90s``, ``30m``, ``1h30m``, ``2d`` or ``1w``. Raises ValueError."""
    if not _SPAN.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: say 90s, 30m, 24h, 7d or 1h30m")
    return sum(int(part[:-1]) * UNITS[part[-1]] for part in re.findall(r"[0-9]+[smhdw]", text))


def exact_span(seconds: int) -> str:
    """The shortest text that :func:`read_span` reads as ``seconds``."""
    parts = []
    for unit, length in reversed(tuple(UNITS.items())):
        if seconds >= length and (unit != "w" or seconds % length == 0):
            parts.append(f"{seconds // length}{unit}")
            seconds %= length
    return "".join(parts) or "0s"
