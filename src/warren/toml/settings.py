"""A file of settings: a document that is one struct of msgspec, then a value with rules of its own.

Of such a file nothing is used when anything in it is wrong; the sentence about that names the file, the line and the
key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from warren.errors import UsageError
from warren.toml.document import Document, NotToml, document_of
from warren.toml.lines import Path, known_line
from warren.toml.struct_words import in_a_line

T = TypeVar("T")
R = TypeVar("R")

_PLACE: Final = re.compile(r" - at `(?:key` in `)?\$([^`]*)`$")
_STEP: Final = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_STRANGER: Final = re.compile(r"unknown field `([^`]*)`")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")


class Unusable(Exception):
    """The value at ``key``, as ``limits.rate``, breaks a rule; ``reason`` completes "FILE, line N: KEY: "."""

    def __init__(self, key: str, reason: object) -> None:
        super().__init__(str(reason))
        self.path: Path = tuple(key.split("."))


def read(data: bytes, name: str, kind: type[T], convert: Callable[[T], R]) -> R:
    """``data`` as ``kind``, and that converted. ``convert`` may raise :class:`Unusable`.

    Raises UsageError, in which the file is called ``name``; what else ``convert`` raises passes.
    """
    try:
        document = document_of(data)
    except NotToml as error:
        raise UsageError(f"{name}, line {error.line}: {error.what}") from None
    try:
        return convert(msgspec.convert(document.content, kind))
    except msgspec.ValidationError as error:
        path, reason = _mistake(str(error), document.content, kind)
    except Unusable as error:
        path, reason = error.path, str(error)
    raise UsageError(_sentence(name, document, path, reason))


def _mistake(message: str, content: dict[str, Any], kind: type[object]) -> tuple[Path, str]:
    """Where and what, out of msgspec's message. It does not say which key of a table it means (``$.users[...]``)."""
    place = _PLACE.search(message)
    reason = message[: place.start()] if place else message
    where = place[1] if place else ""
    path: Path = ()
    for key, index in _STEP.findall(where):
        path = (*path, key or (int(index) if index != "..." else _culprit(message, content, path, kind)))
    if place and place[0].startswith(" - at `key`"):
        path = (*path, _culprit(message, content, path, kind))
    missing = _MISSING.search(reason)
    if missing:
        return (*path, missing[1]), "this key is missing"
    stranger = _STRANGER.search(reason)
    return ((*path, stranger[1]), "there is no such key") if stranger else (path, reason)


def _culprit(message: str, content: dict[str, Any], path: Path, kind: type[object]) -> str:
    """The key of the table at ``path`` that has the document refused even if it were alone there."""
    table: Any = content
    for part in path:
        table = table[part]
    for key, value in table.items():
        try:
            msgspec.convert(_with(content, path, {key: value}), kind)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return str(key)
    return ""


def _with(content: Any, path: Path, value: object) -> Any:
    """A copy that has ``value`` at ``path``, which is one of keys alone."""
    return {**content, path[0]: _with(content[path[0]], path[1:], value)} if path else value


def _sentence(name: str, document: Document, path: Path, reason: str) -> str:
    line = known_line(path, document.lines)
    place = f", line {line}" if line else ""
    key = ".".join(part for part in path if isinstance(part, str))
    return f"{name}{place}: {f'{key}: ' if key else ''}{in_a_line(reason)}"
