"""Names, tags, suffixes and leases as an operator writes them, in files and on the command line.

Each function raises ValueError with a sentence that says what may be written.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from warren.proto.control.spans import exact_span, read_span

T = TypeVar("T")


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


def destination(text: str) -> str:
    """Of a rule."""
    from warren.model.parts import check_selector

    check_selector(text, services=True)
    return text


def selector(text: str) -> str:
    """Of members."""
    from warren.model.parts import check_selector

    check_selector(text)
    return text


def target(text: str) -> str:
    """Of a service."""
    from warren.model.stream_places import parse_target

    parse_target(text)
    return text


def listen(text: str) -> str:
    """Of a connector."""
    from warren.model.stream_places import parse_listen

    parse_listen(text)
    return text


def domain(text: str) -> str:
    """That a gateway answers for; upper case is the same as lower case."""
    from warren.model.stream_places import check_domain

    check_domain(text.lower())
    return text.lower()


def prefix(text: str) -> str:
    """Where streams come from; an address is the prefix that it alone is in."""
    from ipaddress import ip_network

    from warren.model.parts import canonical_address, canonical_network

    if "/" in text:
        try:
            canonical_network(text)
        except ValueError as error:
            if "host bits" not in str(error):
                raise
            raise ValueError(f"{error}: say {ip_network(text, strict=False)}") from None
        return text
    return f"{text}/{canonical_address(text).max_prefixlen}"


def connect_timeout(text: str) -> int:
    """In seconds."""
    from warren.model.services import CONNECT_TIMEOUT_S_MAX

    return _span_within(text, 1, CONNECT_TIMEOUT_S_MAX)


def idle(text: str) -> int:
    """In seconds."""
    from warren.model.services import IDLE_S_MAX

    return _span_within(text, 1, IDLE_S_MAX)


def health(text: str) -> int:
    """In seconds; 0: never."""
    from warren.model.services import HEALTH_S_MAX

    return 0 if text == "0" else _span_within(text, 0, HEALTH_S_MAX)


def wait(text: str) -> int:
    """In seconds; 0: not at all."""
    from warren.cli.entries import WAIT_S_MAX

    return 0 if text == "0" else _span_within(text, 0, WAIT_S_MAX)


def made_of(what: str, struct: type[T], /, **values: object) -> T:
    """A request as a ``struct``, whose own rules are the rest. Raises UsageError: ``what`` cannot be, and why."""
    import msgspec

    from warren.errors import UsageError
    from warren.toml.struct_words import in_a_line

    try:
        return msgspec.convert(values, struct)
    except msgspec.ValidationError as error:
        sentence, _, place = str(error).replace("`", "").partition(" - at $.")
        raise UsageError(f"{what}: {place + ': ' if place else ''}{in_a_line(sentence)}") from None


def _span_within(text: str, low: int, high: int) -> int:
    seconds = read_span(text)
    if not low <= seconds <= high:
        raise ValueError(f"{text} is not possible here: from {exact_span(low)} to {exact_span(high)}")
    return seconds


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
SELECTOR: Final = Checked(selector)
TARGET: Final = Checked(target)
LISTEN: Final = Checked(listen)
DOMAIN: Final = Checked(domain)
PREFIX: Final = Checked(prefix)
CONNECT_TIMEOUT: Final = Checked(connect_timeout)
IDLE: Final = Checked(idle)
HEALTH: Final = Checked(health)
WAIT: Final = Checked(wait)
COMMENT: Final = Checked(comment)
