"""What has happened at one entry and at its parts, and the few lines that the log gets of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import structs

from warren import log
from warren.l4.config import EntryState, PartState
from warren.l4.kinds import Refused
from warren.l4.shares import Group, Shares, groups_of
from warren.model.tunnel import TransportAddress
from warren.paths.pacing import Bucket

_log = log.get("streams")

LINES_PER_S: Final = 2.0
LINES_BURST: Final = 10.0
"""Of refusals, for each entry: a flood of them must neither fill a disk nor hide what is said of other entries."""
PARTS_MAX: Final = 4096
"""Connectors that one place can have had: those of four whole networks. Beyond that, those without streams are counted
as the place's alone from then on.
"""
_REFUSAL_CHARACTERS: Final = 300


class Counts:
    """Of an entry, or of one connector among those that share it. ``last_refusal`` is a sentence."""

    __slots__ = ("bytes_in", "bytes_out", "last_refusal", "open", "opened", "refused", "shares")

    def __init__(self) -> None:
        self.open = 0
        self.opened = 0
        """That came in and were within the limits, also those that could not be carried then."""
        self.refused: dict[str, int] = {}
        self.last_refusal = ""
        self.bytes_in = 0
        self.bytes_out = 0
        self.shares = Shares()
        """Of those that are open."""

    def count_refusal(self, why: Refused, sentence: str) -> None:
        self.refused[why.reason] = self.refused.get(why.reason, 0) + 1
        self.last_refusal = sentence


class Open:
    """One that is open, until it is called; calling it again does nothing."""

    __slots__ = ("_counted", "_groups", "part")

    def __init__(self, counts: Counts, client: TransportAddress | None) -> None:
        self.part: Counts | None = None
        """Whose it is among those that share the entry."""
        self._counted: tuple[Counts, ...] = ()
        self._groups: tuple[Group, ...] = groups_of(None if client is None else client.ip)
        self._enter(counts)

    def belongs_to(self, client: TransportAddress | None) -> None:
        """Its client is another one than it looked like."""
        groups = groups_of(None if client is None else client.ip)
        for counts in self._counted:
            counts.shares.leave(self._groups)
            counts.shares.enter(groups)
        self._groups = groups

    def enter_part(self) -> None:
        """Count it as :attr:`part`'s too."""
        if self.part is not None:
            self._enter(self.part)

    def __call__(self) -> None:
        for counts in self._counted:
            counts.open -= 1
            counts.shares.leave(self._groups)
        self._counted = ()

    def _enter(self, counts: Counts) -> None:
        counts.open += 1
        counts.opened += 1
        counts.shares.enter(self._groups)
        self._counted = (*self._counted, counts)


class Counters(Counts):
    """One for each entry. ``clock`` is monotonic, in seconds. What moves for a part is counted there; :meth:`fill` adds
    it up.
    """

    __slots__ = ("_clock", "_entry_id", "_lines", "_parts", "_unsaid")

    def __init__(self, entry_id: str, clock: Callable[[], float]) -> None:
        super().__init__()
        self._entry_id = entry_id
        self._clock = clock
        self._lines = Bucket(LINES_PER_S, LINES_BURST, clock())
        self._unsaid = 0
        self._parts: dict[str, Counts] = {}

    def begin(self, client: TransportAddress | None = None) -> Open:
        """One more is open, until what is returned is called."""
        return Open(self, client)

    def part(self, name: str) -> Counts:
        """Of a part; for an empty name, of the whole."""
        if not name:
            return self
        found = self._parts.get(name)
        if found is None:
            if len(self._parts) >= PARTS_MAX:
                self._forget_idle()
            found = self._parts[name] = Counts()
        return found

    def refuse(self, why: Refused, client: TransportAddress | None, part: Counts | None = None) -> None:
        """Count it, and log it while lines are left; what was not logged is summed up in the next line."""
        sentence = log.printable(str(why))[:_REFUSAL_CHARACTERS]
        self.count_refusal(why, sentence)
        if part is not None:
            part.count_refusal(why, sentence)
        if not self._lines.take(self._clock()):
            self._unsaid += 1
            return
        who = "a program of this host" if client is None else str(client)
        more = f" ({self._unsaid} more were refused meanwhile)" if self._unsaid else ""
        self._unsaid = 0
        _log.info("%s: %s is refused (%s): %s%s", self._entry_id, who, why.reason, sentence, more)

    def fill(self, state: EntryState) -> EntryState:
        """``state`` with the counts."""
        return structs.replace(
            state,
            open=self.open,
            opened=self.opened,
            refused=dict(self.refused),
            last_refusal=self.last_refusal,
            bytes_in=self.bytes_in + sum(part.bytes_in for part in self._parts.values()),
            bytes_out=self.bytes_out + sum(part.bytes_out for part in self._parts.values()),
            parts={name: _state_of(part) for name, part in self._parts.items()},
        )

    def _forget_idle(self) -> None:
        for name in [name for name, part in self._parts.items() if not part.open]:
            part = self._parts.pop(name)
            self.bytes_in += part.bytes_in
            self.bytes_out += part.bytes_out


def _state_of(part: Counts) -> PartState:
    return PartState(
        open=part.open,
        opened=part.opened,
        refused=dict(part.refused),
        last_refusal=part.last_refusal,
        bytes_in=part.bytes_in,
        bytes_out=part.bytes_out,
    )
