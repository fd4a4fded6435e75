"""Values of a scene's document: whether each is of the kind that is meant, and what a person is told if not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from warren.errors import UsageError
from warren.lab.scene import MistakeList
from warren.toml.lines import Path

T = TypeVar("T")

_TYPES: Final[Mapping[str, tuple[tuple[type, ...], str]]] = {
    "float": ((int, float), "a number"),
    "float | None": ((int, float), "a number"),
    "int": ((int,), "a whole number"),
    "int | None": ((int,), "a whole number"),
    "bool": ((bool,), "true or false"),
    "tuple[int, ...] | None": ((list,), "a list of whole numbers"),
    "NatMapping": ((str,), "a text in quotes"),
    "NatFiltering": ((str,), "a text in quotes"),
    "NatAllocation": ((str,), "a text in quotes"),
    "Udp": ((str,), "a text in quotes"),
}
"""By the annotation of a field: what is taken, and how a person calls it."""


class SceneValues:
    """What is wrong goes to ``mistakes``; then the answer is None, or as little as if nothing had been said."""

    def __init__(self, mistakes: MistakeList) -> None:
        self.mistakes = mistakes

    def record(self, path: Path, value: object, kind: type[T]) -> T | None:
        """A table whose keys are the fields of the dataclass ``kind``, and which has its rules."""
        if not isinstance(value, dict):
            self.mistakes.add(path, "this is a table: { … }")
            return None
        before = len(self.mistakes.found)
        known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
        self.no_strangers(value, path, tuple(known))
        given: dict[str, object] = {}
        for key in value.keys() & known.keys():
            wanted, words = _TYPES[str(known[key].type)]
            if not _is_one(value[key], wanted):
                self.mistakes.add((*path, key), f"this is {words}")
            else:
                given[key] = tuple(value[key]) if isinstance(value[key], list) else value[key]
        if len(self.mistakes.found) > before:
            return None
        try:
            return kind(**given)
        except UsageError as error:
            named = [key for key in given if key in str(error).split("=")[0].split() or f" {key} " in f"{error} "]
            self.mistakes.add((*path, *named[:1]), str(error))
            return None

    def made(self, path: Path, value: Any, make: Callable[[Any], T]) -> T | None:
        if value is None:
            return None
        try:
            return make(value)
        except (UsageError, ValueError) as error:
            self.mistakes.add(path, str(error))
            return None

    def text(self, table: Mapping[str, Any], path: Path, key: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self.mistakes.add((*path, key), "this is a text in quotes")
        return None

    def number(self, table: Mapping[str, Any], path: Path, key: str, least: int, most: int, default: int) -> int:
        value = table.get(key, default)
        if type(value) is int and least <= value <= most:
            return value
        self.mistakes.add((*path, key), f"this is a whole number, {least} to {most}")
        return default

    def choice(self, table: Mapping[str, Any], path: Path, key: str, known: tuple[T, ...]) -> T | None:
        value = table.get(key)
        if value is None:
            return None
        if value not in known:
            words = [str(one) for one in known]
            self.mistakes.add((*path, key), f"{value!r} is none of {', '.join(words)}{hint(value, words)}")
            return None
        return known[known.index(value)]

    def texts(
        self, table: Mapping[str, Any], path: Path, key: str, known: tuple[str, ...] | None = None
    ) -> tuple[str, ...]:
        values = table.get(key, [])
        if not isinstance(values, list):
            self.mistakes.add((*path, key), 'this is a list of texts: ["…"]')
            return ()
        for number, value in enumerate(values):
            if not isinstance(value, str):
                self.mistakes.add((*path, key, number), "this is a text in quotes")
            elif known is not None and value not in known:
                self.mistakes.add((*path, key, number), f"{value!r} is none of {', '.join(known)}")
        return tuple(value for value in values if isinstance(value, str))

    def table(self, path: Path, value: object) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self.mistakes.add(path, f"this is a table: [{'.'.join(map(str, path))}]")
        return {}

    def no_strangers(self, table: Mapping[str, Any], path: Path, known: tuple[str, ...]) -> None:
        for key in table:
            if key not in known:
                self.mistakes.add((*path, key), f"there is no such key{hint(key, known) or ': ' + ', '.join(known)}")


def _is_one(value: object, wanted: tuple[type, ...]) -> bool:
    if isinstance(value, list) and list in wanted:
        return all(type(element) is int for element in value)
    return isinstance(value, wanted) and (not isinstance(value, bool) or bool in wanted)


def hint(word: object, known: Iterable[str]) -> str:
    near = get_close_matches(str(word), list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
