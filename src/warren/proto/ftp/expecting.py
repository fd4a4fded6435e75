"""Which replies of the server are still to come, and to what each belongs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from warren.proto.ftp.commands import Command, Kind
from warren.proto.ftp.features import Features
from warren.proto.ftp.replies import Part

EXPECTED_MAX: Final = 8
"""At once: of a transfer, and of what overtook it. Clients say ABOR once."""

_STATUS: Final = frozenset({211, 212, 213})
_ABORTED: Final = frozenset({225, 226, 426})
_BEGUN: Final = frozenset({125, 150})


class Purpose(Enum):
    """What a reply is for."""

    GREETING = "the client: the server speaks first"
    COMMAND = "the client"
    FEATURES = "the client, corrected"
    TRANSFER = "the client; the data connection is used up then"
    OVERTAKER = "the client, while a transfer runs"
    PORT = "the helper, which asked for a port"


_OVERTAKEN: Final = frozenset({Purpose.TRANSFER, Purpose.OVERTAKER})


@dataclass(slots=True)
class Expected:
    """One reply to come. ``answered``: the client has been told something else already. ``over``: it has come."""

    purpose: Purpose
    is_status: bool = False
    is_abort: bool = False
    answered: bool = False
    features: Features | None = None
    begun: bool = False
    over: bool = False


class Expectations:
    """All replies to come, in the order of what they are replies to; at first the greeting."""

    def __init__(self) -> None:
        self._all = [Expected(Purpose.GREETING)]
        self._current: Expected | None = None
        self._may_stray = False

    @property
    def is_free(self) -> bool:
        """Nothing is to come that what comes next would have to wait for. To ABOR after the end of a transfer
        pure-ftpd says nothing, if it was said as RFC 959 §4.1.3 has it.
        """
        return len(self._all) < EXPECTED_MAX and all(one.is_abort for one in self._all)

    def add(self, purpose: Purpose, command: Command | None = None) -> None:
        kind = None if command is None else command.kind
        features = Features() if purpose is Purpose.FEATURES else None
        self._all.append(Expected(purpose, kind is Kind.ASK, kind is Kind.ABORT, features=features))

    def of(self, part: Part) -> Expected | None:
        """To what a part of a reply belongs; None: to nothing. It is ``over`` when the last part is there, unless that
        says that another reply follows.
        """
        expected = self._current or self._whose(part)
        self._current = None if part.final else expected
        if expected is not None and part.final:
            is_second = expected.begun and part.code in _BEGUN
            expected.begun = part.code in _BEGUN and expected.purpose is Purpose.TRANSFER
            expected.over = is_second or not part.is_preliminary
            if expected.over:
                self._may_stray = is_second
                self._all.remove(expected)
        return expected

    def forgive(self, part: Part) -> bool:
        """Whether a reply to nothing may be one after all: pure-ftpd ends a transfer that the client has given up with
        a second 150 and nothing else, but where that was meant as it is written the end still comes.
        """
        if not self._may_stray or part.is_preliminary:
            return False
        self._may_stray = not part.final
        return True

    def transfer(self) -> Expected | None:
        """That of the transfer that is going on."""
        return next((one for one in self._all if one.purpose is Purpose.TRANSFER), None)

    def may_be_overtaken_by(self, queue: Iterable[Command]) -> bool:
        """Only a transfer may: by STAT, and by ABOR together with the plain commands before it."""
        if len(self._all) >= EXPECTED_MAX or any(one.purpose not in _OVERTAKEN for one in self._all):
            return False
        is_first = True
        for command in queue:
            if command.kind is Kind.ABORT or (is_first and command.kind is Kind.ASK):
                return True
            if command.kind is not Kind.PLAIN:
                return False
            is_first = False
        return False

    def _whose(self, part: Part) -> Expected | None:
        """The reply to STAT may come before that to the transfer (RFC 959 §4.1.3); else they come in order."""
        if part.code in _STATUS:
            status = next((one for one in self._all if one.is_status), None)
            if status is not None:
                return status
        while len(self._all) > 1 and self._all[0].is_abort and part.code not in _ABORTED:
            del self._all[0]
        return self._all[0] if self._all else None
