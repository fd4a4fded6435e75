"""What time it is in a network: the coordinator's, since that is whose clock leases are made by.

A host's own clock may stand anywhere (no battery, a wrong zone, a jump). Once a coordinator has told its time over the
authenticated channel, time goes on from there by a clock that only moves forward, and the host's does not matter.
Before that, and after a restart without a coordinator, the host's clock counts, but never from before the last time
known.
"""

from __future__ import annotations

from typing import Final

import msgspec

FAR_OFF_S: Final = 120.0
"""A difference of clocks worth a warning: more than NTP ever leaves, and handshakes begin to look odd in logs."""
KEPT_EVERY_S: Final = 600.0
"""How often the time is to be kept on disk: the most a restart with a dead clock can be set back."""


class KeptTime(msgspec.Struct, frozen=True, kw_only=True):
    """The time as it is kept across restarts. ``boot`` names the boot that ``steady_s`` counts from."""

    network_s: float = 0.0
    boot: str = ""
    steady_s: float = 0.0
    told: bool = False
    """The coordinator told it in the course of that boot."""


class NetworkClock:
    """Seconds since 1970 as the coordinator counts them. Times given to it: ``steady_s`` is a clock of this boot that
    never goes back and counts while the machine sleeps, ``wall_s`` the host's own.
    """

    def __init__(self, kept: KeptTime, boot: str) -> None:
        self._boot = boot
        self.offset_s: float | None = None
        """The coordinator's clock minus the host's when they last met; None: they have not since the start."""
        self._told = kept.told and kept.boot == boot
        self._anchor: tuple[float, float] | None = (kept.network_s, kept.steady_s) if self._told else None
        self._floor_s = kept.network_s

    def tell(self, network_s: float, wall_s: float, steady_s: float) -> None:
        """The coordinator says that it is ``network_s``."""
        self._anchor = (network_s, steady_s)
        self._told = True
        self.offset_s = network_s - wall_s

    def now(self, wall_s: float, steady_s: float) -> float:
        if self._anchor is not None:
            network_s, at = self._anchor
            return network_s + (steady_s - at)
        now = max(wall_s, self._floor_s)
        if now > wall_s:
            self._anchor = (now, steady_s)  # the host's clock is of no use: count from the last time known
        return now

    def keep(self, wall_s: float, steady_s: float) -> KeptTime:
        """What to keep on disk."""
        return KeptTime(network_s=self.now(wall_s, steady_s), boot=self._boot, steady_s=steady_s, told=self._told)

    def warning(self) -> str | None:
        """That the host's clock is far off, in a sentence; None: it is not, or nobody knows."""
        if self.offset_s is None or abs(self.offset_s) < FAR_OFF_S:
            return None
        side = "behind" if self.offset_s > 0 else "ahead of"
        return (
            f"this machine's clock is {_span(abs(self.offset_s))} {side} the coordinator's, by which leases are judged;"
            " set it (timedatectl set-ntp true)"
        )


def _span(seconds: float) -> str:
    for unit, name in ((365 * 86_400, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
