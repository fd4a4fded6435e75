"""Lines of a server put together to replies (RFC 959 §4.2)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.proto.ftp.lines import Line

_START: Final = re.compile(rb"([1-5][0-9][0-9])([ -]|\Z)")
_LIKE_START: Final = re.compile(rb"[0-9]{3}[ -]")


class Part(NamedTuple):
    """A line of a reply."""

    code: int
    text: bytes
    """The line as it is to be passed on, without its end."""
    final: bool
    """The reply ends with it."""

    @property
    def is_preliminary(self) -> bool:
        """1xx: another reply follows (RFC 959 §4.2.1)."""
        return self.code < 200


class Replies:
    """Takes lines, gives parts of replies. Bodies of replies with several lines are made so that every reader sees the
    same end: clients differ in whether another code ends it, and names of files stand in there.
    """

    def __init__(self) -> None:
        self._open: bytes | None = None

    @property
    def is_midreply(self) -> bool:
        return self._open is not None

    def part_untrusted(self, line: Line) -> Part:
        """Raises MalformedPacket for what is not FTP."""
        text = line.text.replace(b"\r", b"?").replace(b"\0", b"?") if line.broken else line.text
        start = _START.match(text)
        if self._open is None:
            if start is None:
                raise MalformedPacket("not a reply")
            if start[2] == b"-":
                self._open = start[1]
            return Part(int(start[1]), text, final=start[2] != b"-")
        code = int(self._open)
        if start is not None and start[1] == self._open:
            if start[2] == b"-":
                return Part(code, text, final=False)
            self._open = None
            return Part(code, text, final=True)
        if _LIKE_START.match(text):
            text = b" " + text
        return Part(code, text, final=False)
