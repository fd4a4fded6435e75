"""From bytes to a document, and to the line of the first thing that keeps them from being one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, Final

from warren.errors import OperationFailed, UsageError
from warren.toml.lines import Path, lines_of

_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class NotToml(Exception):
    """``what`` is wrong in ``line``, from 1; without a capital and a full stop, for any sentence."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


@dataclass(frozen=True)
class Document:
    """``content`` as tomllib gives it."""

    content: dict[str, Any]
    text: str

    @cached_property
    def lines(self) -> Mapping[Path, int]:
        """See :func:`~warren.toml.lines.lines_of`."""
        return lines_of(self.text)


def read_bytes(path: FilePath, bytes_max: int) -> bytes:
    """Raises OperationFailed for a file that cannot be read, UsageError for one that is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        raise OperationFailed(f"{what}; run as its owner, or name another file") from None
    if len(data) > bytes_max:
        raise UsageError(f"{path}: larger than {bytes_max} bytes")
    return data


def document_of(data: bytes) -> Document:
    """Raises NotToml."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        return Document(tomllib.loads(text), text)
    except UnicodeDecodeError as error:
        raise NotToml(data.count(b"\n", 0, error.start) + 1, "this is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise NotToml(*_syntax_error(str(error), text)) from None
    except RecursionError:
        raise NotToml(1, "it is nested too deeply") from None


def _syntax_error(message: str, text: str) -> tuple[int, str]:
    place = _PLACE.search(message)
    what = message[: place.start()] if place else message
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    return line, f"this is not TOML ({what[:1].lower()}{what[1:]})"
