"""Where things are in a TOML document: the line of every key and of every element of an array.

:mod:`tomllib` says what a document holds, but of a document without syntax errors not where. The walk here is over
text that tomllib has read already, so it needs no rules but those that tell where a key, a value or a table begins
(TOML 1.0).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

Path = tuple[str | int, ...]
"""Keys of tables and indices of arrays, from the top."""

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BASIC: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_LITERAL: Final = re.compile(r"'[^']*'")
_MULTILINE: Final = {
    '"""': re.compile(r'"""(?:\\.|(?!""")[^\\])*"{3,5}', re.DOTALL),
    "'''": re.compile(r"'''(?:(?!''').)*'{3,5}", re.DOTALL),
}
_SCALAR: Final = re.compile(r"[^,\]}#\n]*")


def lines_of(text: str) -> Mapping[Path, int]:
    """The line (from 1) on which each key, table and array element of ``text`` begins; the first that names it counts.

    ``text`` is TOML without errors, with line feeds as :func:`tomllib.loads` takes them.
    """
    return _Walk(text).lines


def known_line(path: Path, lines: Mapping[Path, int]) -> int | None:
    """The line of ``path``, or of the nearest thing around it that is there; None: there is nothing of it."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), None)


def line_of(path: Path, lines: Mapping[Path, int]) -> int:
    """As :func:`known_line`; 1 where there is nothing."""
    return known_line(path, lines) or 1


def path_text(path: Path) -> str:
    """``policy[2].from``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


class _Walk:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._breaks = [index for index, character in enumerate(text) if character == "\n"]
        self._elements: dict[Path, int] = {}
        """How many tables each array of tables has so far."""
        self._document()

    def _document(self) -> None:
        table: Path = ()
        while self._skip_blank():
            start = self._at
            if self._text[start] != "[":
                self._pair(table)
                continue
            doubled = self._text.startswith("[[", start)
            self._at += 2 if doubled else 1
            table = self._table(self._key(), doubled, start)
            self._at += 2 if doubled else 1

    def _table(self, key: tuple[str, ...], doubled: bool, start: int) -> Path:
        """The path that a header opens; what passes through an array of tables means its last one."""
        path: Path = ()
        for number, part in enumerate(key, 1):
            path = (*path, part)
            self._note(path, start)
            if doubled and number == len(key):
                self._elements[path] = self._elements.get(path, 0) + 1
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
                self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, start)
        self._at += 1  # =
        self._skip_blank()
        self._value(path)

    def _key(self) -> tuple[str, ...]:
        """A dotted key; ends at what follows it."""
        parts = []
        while True:
            self._skip_blank()
            parts.append(self._key_part())
            self._skip_blank()
            if self._text[self._at] != ".":
                return tuple(parts)
            self._at += 1

    def _key_part(self) -> str:
        first = self._text[self._at]
        if first == '"':
            return next(iter(tomllib.loads(f"{self._take(_BASIC)} = 0")))
        return self._take(_LITERAL)[1:-1] if first == "'" else self._take(_BARE_KEY)

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        elif first in {'"', "'"}:
            multiline = _MULTILINE.get(self._text[self._at : self._at + 3])
            self._take(multiline or (_BASIC if first == '"' else _LITERAL))
        else:
            self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._text[self._at] != "]":
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1
            self._skip_comma()
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip_blank() and self._text[self._at] != "}":
            self._pair(path)
            self._skip_comma()
        self._at += 1

    def _skip_comma(self) -> None:
        if self._skip_blank() and self._text[self._at] == ",":
            self._at += 1

    def _skip_blank(self) -> bool:
        """Whether anything follows."""
        self._take(_BLANK)
        return self._at < len(self._text)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise ValueError(f"not TOML at character {self._at}")
        self._at = match.end()
        return match.group()

    def _note(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_right(self._breaks, at - 1) + 1)
