"""Bytes of a control connection cut into lines, the way the strictest and the most lenient reader both would.

A line ends where a lenient server sees an end (at LF, with or without CR). What could be two lines to one reader and
one to another is marked ``broken``, so that nobody downstream has to guess.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from warren.errors import MalformedPacket

COMMAND_BYTES_MAX: Final = 8192
"""A path of PATH_MAX (4096), each byte of it doubled as telnet's IAC is, or the longest reply of known servers."""
DISCARDED_BYTES_MAX: Final = 1 << 20
"""Of a line that is too long, until patience ends."""

_IAC: Final = 255  # these are of RFC 854
_COMMANDS_FROM: Final = 240
_WILL, _WONT, _DO, _DONT = 251, 252, 253, 254
_WITH_OPTION: Final = frozenset({_WILL, _WONT, _DO, _DONT})
_REFUSALS: Final = {_DO: _WONT, _WILL: _DONT}


class Line(NamedTuple):
    """One line without its end."""

    text: bytes
    broken: bool = False
    """It has a CR or a NUL in it, or it was too long and ``text`` is only its beginning."""


class Lines:
    """Takes bytes, gives lines. Without ``telnet`` IAC is a byte like any other (replies: nobody negotiates there)."""

    def __init__(self, *, telnet: bool) -> None:
        self._telnet = telnet
        self._buffer = bytearray()
        self._command = b""
        self._discarded = 0
        self._refusals = bytearray()
        self._interrupted = False

    @property
    def is_midline(self) -> bool:
        """A line has begun and not ended."""
        return bool(self._buffer or self._discarded)

    def take_untrusted(self, data: bytes) -> list[Line]:
        """The lines that are complete now. Raises MalformedPacket when a line does not end at all; nothing more is to
        be expected then.
        """
        self._buffer += self._without_telnet(data) if self._telnet else data
        lines: list[Line] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            lines.append(self._line(bytes(self._buffer[start:end])))
            start = end + 1
        del self._buffer[:start]
        if len(self._buffer) > COMMAND_BYTES_MAX:
            self._discarded += len(self._buffer)
            self._buffer.clear()
            if self._discarded > DISCARDED_BYTES_MAX:
                raise MalformedPacket("a line without end")
        return lines

    def take_refusals(self) -> bytes:
        """What to answer to telnet options (RFC 1123 §4.1.2.12: all are refused)."""
        refusals = bytes(self._refusals)
        self._refusals.clear()
        return refusals

    def take_interruption(self) -> bool:
        """Whether a telnet command (Interrupt Process, Synch) has come since this was last asked."""
        interrupted, self._interrupted = self._interrupted, False
        return interrupted

    def _line(self, text: bytes) -> Line:
        text = text.removesuffix(b"\r")
        if self._discarded or len(text) > COMMAND_BYTES_MAX:
            self._discarded = 0
            return Line(b"", broken=True)
        return Line(text, broken=b"\r" in text or b"\0" in text)

    def _without_telnet(self, data: bytes) -> bytes:
        data, self._command = self._command + data, b""
        kept = bytearray()
        at = 0
        while (iac := data.find(_IAC, at)) >= 0:
            kept += data[at:iac]
            command = data[iac + 1 : iac + 3]
            if not command or (command[0] in _WITH_OPTION and len(command) == 1):
                self._command = data[iac:]
                return bytes(kept)
            at = iac + 2
            if command[0] == _IAC:
                kept += data[iac:at]  # the byte 255 itself, which the server wants doubled as well
            elif command[0] in _WITH_OPTION:
                at += 1
                if command[0] in _REFUSALS:
                    self._refusals += bytes((_IAC, _REFUSALS[command[0]], command[1]))
            elif command[0] < _COMMANDS_FROM:
                at = iac + 1
            else:
                self._interrupted = True
        return bytes(kept) + data[at:]
