"""What has happened at one entry, and the few lines that the log gets of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import structs

from warren import log
from warren.l4.config import EntryState
from warren.l4.kinds import Refused
from warren.model.tunnel import TransportAddress
from warren.paths.pacing import Bucket

_log = log.get("streams")

LINES_PER_S: Final = 2.0
LINES_BURST: Final = 10.0
"""Of refusals, for each entry: a flood of them must neither fill a disk nor hide what is said of other entries."""
_REFUSAL_CHARACTERS: Final = 300


class Counters:
    """One for each entry. ``clock`` is monotonic, in seconds."""

    __slots__ = (
        "_clock",
        "_entry_id",
        "_lines",
        "_unsaid",
        "bytes_in",
        "bytes_out",
        "last_refusal",
        "open",
        "open_by_name",
        "opened",
        "refused",
    )

    def __init__(self, entry_id: str, clock: Callable[[], float]) -> None:
        self._entry_id = entry_id
        self._clock = clock
        self._lines = Bucket(LINES_PER_S, LINES_BURST, clock())
        self._unsaid = 0
        self.open = 0
        self.open_by_name: dict[str, int] = {}
        self.opened = 0
        """That came in and were within the limits, also those that could not be carried then."""
        self.refused: dict[str, int] = {}
        self.last_refusal = ""
        self.bytes_in = 0
        self.bytes_out = 0

    def begin(self, name: str = "") -> Callable[[], None]:
        """One more is open, until what is returned is called; calling it again does nothing. With a ``name`` it is
        counted under that alone: it is part of one that is counted already.
        """
        if name:
            self.open_by_name[name] = self.open_by_name.get(name, 0) + 1
        else:
            self.open += 1
            self.opened += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if ended:
                return
            ended = True
            if name:
                self._end_of(name)
            else:
                self.open -= 1

        return end

    def open_of(self, name: str) -> int:
        """How many are open of a part of the entry, or of the whole for an empty name."""
        return self.open_by_name.get(name, 0) if name else self.open

    def refuse(self, why: Refused, client: TransportAddress | None) -> None:
        """Count it, and log it while lines are left; what was not logged is summed up in the next line."""
        self.refused[why.reason] = self.refused.get(why.reason, 0) + 1
        sentence = log.printable(str(why))[:_REFUSAL_CHARACTERS]
        self.last_refusal = sentence
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
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )

    def _end_of(self, name: str) -> None:
        left = self.open_by_name[name] - 1
        if left:
            self.open_by_name[name] = left
        else:
            del self.open_by_name[name]
