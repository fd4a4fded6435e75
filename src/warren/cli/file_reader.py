"""Taking a parsed TOML document apart: every mistake becomes a problem with its line and key, and reading goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from warren.model.parts import port_range
from warren.toml.lines import Path, line_of, path_text
from warren.toml.struct_words import in_a_line

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing wrong in a file."""

    line: int
    key: str
    """Empty: the file as a whole."""
    what: str


class Reader:
    """Checks of what is in a document; ``problems`` collects what is wrong."""

    def __init__(self, lines: Mapping[Path, int], path_of: Callable[[str], Path]) -> None:
        """``path_of``: where in the file a field of a struct is, said as ``policy[2].sources``."""
        self.problems: list[FileProblem] = []
        self._lines = lines
        self._path_of = path_of

    def texts(self, path: Path, value: object, check: Callable[[str], object]) -> list[str]:
        """A list of texts (or one alone; of numbers too where ports are meant), each of them checked."""
        texts = []
        for index, element in enumerate(value if isinstance(value, list) else [value]):
            place = (*path, index) if isinstance(value, list) else path
            text = str(element) if check is port_range and type(element) is int else element
            self.checked(place, text, check)
            texts.append(str(text))
        return texts

    def checked(self, path: Path, value: Any, check: Callable[[Any], T]) -> T | None:
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise ValueError("this must be a text in quotes")  # noqa: TRY004 - a problem of the file, not a bug
            return check(value)
        except ValueError as error:
            self.problem(path, str(error))
            return None

    def choice(self, table: dict[str, Any], path: Path, key: str, known: tuple[str, ...]) -> None:
        if key in table and table[key] not in known:
            self.problem((*path, key), f"{table[key]!r} is none of {', '.join(known)}")

    def required(self, table: dict[str, Any], path: Path, keys: tuple[str, ...]) -> None:
        for key in keys:
            if key not in table:
                self.problem((*path, key), "this key is missing")

    def no_strangers(self, table: Mapping[str, Any], path: Path, known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self.problem((*path, key), f"there is no such key ({hint})")

    def table(self, path: Path, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self.problem(path, f"this must be a table: [{path_text(path)}]")
        return {}

    def tables(self, path: Path, value: object) -> list[dict[str, Any]]:
        if isinstance(value, list) and all(isinstance(element, dict) for element in value):
            return value
        self.problem(path, f"this must be a list of tables, each under [[{path_text(path)}]]")
        return []

    def converted(self, path: Path, value: object, kind: type[T]) -> T | None:
        """``value`` as ``kind``, whose own rules are the rest: types and limits."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            what, _, inner = str(error).partition(" - at `$")
            place = ".".join(part for part in (path_text(path), inner.removesuffix("`").lstrip(".")) if part)
            self.problem(self._path_of(place), in_a_line(what))
            return None

    def problem(self, path: Path, what: str) -> None:
        self.problems.append(FileProblem(line_of(path, self._lines), path_text(path), what))
