"""What is to be done in a network's next turn, and what later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

RETRY_S: Final = 5.0
"""Before what failed is tried again."""


@dataclass
class Due:
    """Moments are of a clock that never goes back, in seconds."""

    host: bool = True
    """Look at the host, and make it as wanted."""
    names: bool = True
    """See whether other names are to be answered."""
    at: dict[str, float] = field(default_factory=dict)
    """When something is to be done anyway, by its name."""

    def again(self, what: str, at: float) -> None:
        self.at[what] = at

    def take(self, what: str, now: float) -> bool:
        """Whether it is due now; it is then not any more."""
        if what in self.at and now >= self.at[what]:
            del self.at[what]
            return True
        return False
