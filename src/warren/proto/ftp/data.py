"""The data connection that a client has asked for, from the helper's side."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from warren.proto.ftp.asking import Asked


class Step(Enum):
    """OPENING → READY → JOINING → OPEN, and FAILED from all but the last; PORT and EPRT begin with READY."""

    OPENING = "the driver is to listen"
    READY = "the client may come, or be gone to"
    JOINING = "the driver is connecting"
    OPEN = "bytes may flow"
    FAILED = "there was no connection"


@dataclass(slots=True)
class Data:
    """The one that was asked for last; there is one at a time. ``why``: of FAILED, a clause for the client."""

    number: int
    asked: Asked
    server_port: int
    step: Step
    why: str = ""
