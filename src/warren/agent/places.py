"""Where the agent keeps things."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

STATE: Final = Path("/var/lib/warren")
RUN: Final = Path("/run/warren")
SOCKET_NAME: Final = "agent.sock"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the agent keeps what must last (``state``), and where its socket is (``run``)."""

    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / SOCKET_NAME


def places(state: str | None = None, run: str | None = None) -> Places:
    """What the command line says, else the environment, else the usual places."""
    return Places(
        Path(state or os.environ.get("WARREN_STATE") or STATE).absolute(),
        Path(run or os.environ.get("WARREN_RUN") or RUN).absolute(),
    )
