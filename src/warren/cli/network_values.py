"""Names, tags, suffixes and leases as an operator writes them, in files and on the command line.

Each function raises ValueError with a sentence that says what may be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import click

from warren.proto.control.spans import exact_span, read_span


def name(text: str) -> str:
    """A network's or a member's."""
    from warren.model.parts import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(f"{text!r} is no name: a-z, 0-9 and inner hyphens, 63 characters at most")
    return text


def suffix(text: str) -> str:
    """Under which names are."""
    from warren.model.parts import SUFFIX_CHARACTERS_MAX, SUFFIX_PATTERN

    if len(text) > SUFFIX_CHARACTERS_MAX or not re.fullmatch(SUFFIX_PATTERN, text):
        raise ValueError(f"{text!r} is no suffix of names; write one like internal or vpn.example.com")
    return text


def lease(text: str) -> int:
    """In seconds."""
    from warren.proto.control.administration import LEASE_S_MAX, LEASE_S_MIN

    seconds = read_span(text)
    if not LEASE_S_MIN <= seconds <= LEASE_S_MAX:
        raise ValueError(
            f"a lease of {text} is not possible: from {exact_span(LEASE_S_MIN)} to {LEASE_S_MAX // 86_400}d"
        )
    return seconds


def tag(text: str) -> str:
    """What rules speak of."""
    from warren.model.parts import TAG_PATTERN

    if not re.fullmatch(TAG_PATTERN, text):
        raise ValueError(f"{text!r} is no tag: a-z, 0-9, _ and -, beginning with a letter, 63 characters at most")
    return text


def comment(text: str) -> str:
    """On a rule."""
    import msgspec

    from warren.model.parts import Comment

    try:
        return msgspec.convert(text, Comment)
    except msgspec.ValidationError:
        raise ValueError("a comment is one line of 256 characters at most") from None


class Checked(click.ParamType[Any]):
    """An argument or option that one of these functions reads."""

    def __init__(self, check: Callable[[str], object]) -> None:
        self.name = check.__name__
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


NAME: Final = Checked(name)
SUFFIX: Final = Checked(suffix)
LEASE: Final = Checked(lease)
TAG: Final = Checked(tag)
