"""The reply to FEAT (RFC 2389 §3.2), made to say what is true of a helper before the server."""

from __future__ import annotations

from typing import Final

from warren.proto.ftp.commands import REFUSALS
from warren.proto.ftp.replies import Part

_OURS: Final = (b"EPRT", b"EPSV")
_HIDDEN: Final = frozenset(verb.encode("ascii") for verb in REFUSALS)


class Features:
    """Takes the parts of one reply, gives those that the client gets."""

    def __init__(self) -> None:
        self._missing = list(_OURS)
        self._has_begun = False

    def correct(self, part: Part) -> list[bytes]:
        """The lines instead of this one."""
        lead = b"%d-" % part.code
        if part.code != 211:
            return [part.text]
        if part.final:
            return [b" " + name for name in self._missing if self._has_begun] + [part.text]
        self._has_begun = True
        if part.text.startswith(lead) and not part.text.startswith(lead + b" "):
            return [part.text]
        word = part.text.removeprefix(lead).strip().partition(b" ")[0].upper()
        if word in _HIDDEN:
            return []
        if word in self._missing:
            self._missing.remove(word)
        return [part.text]
