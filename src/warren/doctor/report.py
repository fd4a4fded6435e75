"""What a diagnosis says: findings, each with what it means and what to change."""

from __future__ import annotations

from typing import Literal

import msgspec

from warren.doctor.observed import Observed

Level = Literal["good", "note", "warning", "bad", "unknown"]
"""``note``: so it is, and there is no harm. ``warning``: something is worse than it could be. ``bad``: it keeps members
from being reached. ``unknown``: it could not be looked at.
"""
Kind = Literal["public", "hidden", "hidden-dual-stack", "unknown"]


class Finding(msgspec.Struct, frozen=True):
    """One fact about this host's place in the network."""

    topic: str
    level: Level
    what: str
    """A sentence: what was found."""
    meaning: str = ""
    """A sentence: what follows from it."""
    remedy: str = ""
    """What to change; empty where there is nothing to."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole diagnosis."""

    kind: Kind
    """How this node is connected."""
    two_nics: bool
    """A public segment and another one are on interfaces apart."""
    words: str
    """The same for a person."""
    findings: tuple[Finding, ...]
    observed: Observed

    @property
    def healthy(self) -> bool:
        """Nothing keeps members from being reached."""
        return all(finding.level != "bad" for finding in self.findings)
