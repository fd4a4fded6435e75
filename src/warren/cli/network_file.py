"""The desired-state file: what an operator decides of a network, as TOML.

::

    network = "home"
    suffix = "internal"            # optional: as it is
    lease = "24h"                  # optional: as it is
    relay_members = ["tag:relay"]  # optional: as it is; who may relay for others, if public and willing

    [members.web1]                 # members that are not named keep what they have
    tags = ["web"]
    routes = ["192.168.7.0/24"]

    [[policy]]                     # the first rule that matches decides; without one nothing passes
    action = "allow"
    from = ["tag:admin"]
    to = ["members"]
    protocol = "tcp"
    ports = [22, "8000-8100"]
    comment = "administration"

    [[test]]                       # an apply that would break one is refused
    from = "alice"
    to = "web1"
    protocol = "tcp"
    port = 22
    expect = "allow"

Reading says of everything wrong in which line and at which key it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeVar

import msgspec

from warren.cli import network_values
from warren.model.documents import Rule
from warren.model.parts import canonical_network, check_selector, port_range
from warren.proto.control.administration import DesiredState, PolicyTest, Problem
from warren.toml.document import NotToml, document_of
from warren.toml.lines import Path, line_of, path_text

T = TypeVar("T")

BYTES_MAX: Final = 4 << 20
"""The most that a coordinator takes."""

_TOP: Final = ("network", "suffix", "lease", "relay_members", "members", "policy", "test")
_MEMBERS: Final[dict[str, Callable[[str], object]]] = {"tags": network_values.tag, "routes": canonical_network}
_RULE: Final = {
    "action": "action",
    "from": "sources",
    "to": "destinations",
    "protocol": "protocol",
    "ports": "ports",
    "comment": "comment",
}
_TEST: Final = {
    "from": "source",
    "to": "destination",
    "protocol": "protocol",
    "port": "port",
    "expect": "expect",
}
_KEYS: Final = {field: key for table in (_RULE, _TEST) for key, field in table.items()}
_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing wrong in a file."""

    line: int
    key: str
    """Empty: the file as a whole."""
    what: str


@dataclass(slots=True)
class StateFile:
    """What was read. ``state`` is whole only when there are no ``problems``."""

    network: str = ""
    state: DesiredState = field(default_factory=lambda: DesiredState(policy=()))
    problems: list[FileProblem] = field(default_factory=list)
    lines: Mapping[Path, int] = field(default_factory=dict)
    parsed: Mapping[str, Any] = field(default_factory=dict)

    def locate(self, problem: Problem) -> FileProblem:
        """A problem that a coordinator found, where it is in this file."""
        path = _path_of(problem.where)
        element = self._element(path, problem.what)
        return FileProblem(line_of((*path, *element), self.lines), path_text(path), problem.what)

    def _element(self, path: Path, what: str) -> Path:
        """The index of the only element of the array at ``path`` that the sentence ``what`` speaks of."""
        value: Any = self.parsed
        for part in path:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return ()
        words = set(re.split(r"[\s,;()]+", what))
        named = [index for index, text in enumerate(value) if text in words] if isinstance(value, list) else []
        return (named[0],) if len(named) == 1 else ()


def read(data: bytes) -> StateFile:
    """Read a desired-state file; whatever is wrong with it is in ``problems``."""
    if len(data) > BYTES_MAX:
        return _hopeless(1, f"the file has {len(data)} bytes; {BYTES_MAX} are the most")
    try:
        document = document_of(data)
    except NotToml as error:
        return _hopeless(error.line, error.what)
    return _Reader(document.content, document.lines).file


def _hopeless(line: int, what: str) -> StateFile:
    return StateFile(problems=[FileProblem(line, "", what)])


def _path_of(where: str) -> Path:
    """``policy[2].sources`` of a coordinator as the path in a file."""
    parts: list[str | int] = [int(index) if index else name for index, name in _PART.findall(where)]
    if parts:
        parts[0] = {"tests": "test", "lease_s": "lease"}.get(str(parts[0]), parts[0])
    if len(parts) > 2 and parts[0] in {"policy", "test"}:
        parts[2] = _KEYS.get(str(parts[2]), parts[2])
    return tuple(parts)


class _Reader:
    """Takes a parsed document apart; every mistake becomes a problem, and reading goes on."""

    def __init__(self, parsed: dict[str, Any], lines: Mapping[Path, int]) -> None:
        self.file = StateFile(lines=lines, parsed=parsed)
        self._lines = lines
        self._no_strangers(parsed, (), _TOP)
        if "network" not in parsed:
            self._problem(("network",), 'the network is not said; write network = "NAME" above everything else')
        self.file.network = self._checked(("network",), parsed.get("network"), network_values.name) or ""
        if "policy" not in parsed:
            self._problem(
                ("policy",), "no [[policy]] is there, so nothing would pass; say so with policy = [] if you mean it"
            )
        members = self._table(("members",), parsed.get("members", {}))
        policy = self._tables(("policy",), parsed.get("policy", []))
        tests = self._tables(("test",), parsed.get("test", []))
        whole = {
            "suffix": self._checked(("suffix",), parsed.get("suffix"), network_values.suffix),
            "lease_s": self._checked(("lease",), parsed.get("lease"), network_values.lease),
            "relay_members": self._relay_members(parsed.get("relay_members")),
            "members": {name: self._member(name, value) for name, value in members.items()},
            "policy": [self._rule(number, value) for number, value in enumerate(policy)],
            "tests": [self._test(number, value) for number, value in enumerate(tests)],
        }
        if not self.file.problems:
            self.file.state = self._converted((), whole, DesiredState) or self.file.state

    # Parts

    def _relay_members(self, value: object) -> list[str] | None:
        return None if value is None else self._texts(("relay_members",), value, check_selector)

    def _member(self, name: str, value: object) -> dict[str, Any]:
        path = ("members", name)
        self._checked(path, name, network_values.name)
        member = self._table(path, value)
        self._no_strangers(member, path, _MEMBERS)
        return {key: self._texts((*path, key), member.get(key, []), check) for key, check in _MEMBERS.items()}

    def _rule(self, number: int, table: dict[str, Any]) -> dict[str, Any]:
        path = ("policy", number)
        before = len(self.file.problems)
        self._no_strangers(table, path, _RULE)
        self._required(table, path, ("action", "from", "to"))
        self._choice(table, path, "action", ("allow", "deny"))
        self._choice(table, path, "protocol", ("any", "tcp", "udp", "icmp"))
        rule = {_RULE[key]: value for key, value in table.items() if key in _RULE}
        for key, check in (("from", check_selector), ("to", check_selector), ("ports", port_range)):
            if key in table:
                rule[_RULE[key]] = self._texts((*path, key), table[key], check)
        self._checked((*path, "comment"), table.get("comment"), network_values.comment)
        if rule.get("ports") and rule.get("protocol", "any") in {"any", "icmp"}:
            self._problem((*path, "ports"), 'only tcp and udp have ports; write protocol = "tcp"')
        if len(self.file.problems) == before:
            self._converted(path, rule, Rule)
        return rule

    def _test(self, number: int, table: dict[str, Any]) -> dict[str, Any]:
        path = ("test", number)
        before = len(self.file.problems)
        self._no_strangers(table, path, _TEST)
        self._required(table, path, ("from", "to", "expect"))
        self._choice(table, path, "protocol", ("tcp", "udp", "icmp"))
        self._choice(table, path, "expect", ("allow", "deny"))
        test = {_TEST[key]: value for key, value in table.items() if key in _TEST}
        if len(self.file.problems) == before:
            self._converted(path, test, PolicyTest)
        return test

    # Checks

    def _texts(self, path: Path, value: object, check: Callable[[str], object]) -> list[str]:
        """A list of texts (or one alone; of numbers too where ports are meant), each of them checked."""
        texts = []
        for index, element in enumerate(value if isinstance(value, list) else [value]):
            place = (*path, index) if isinstance(value, list) else path
            text = str(element) if check is port_range and type(element) is int else element
            self._checked(place, text, check)
            texts.append(str(text))
        return texts

    def _checked(self, path: Path, value: Any, check: Callable[[Any], T]) -> T | None:
        if value is None:
            return None
        try:
            if not isinstance(value, str):
                raise ValueError("this must be a text in quotes")  # noqa: TRY004 - a problem of the file, not a bug
            return check(value)
        except ValueError as error:
            self._problem(path, str(error))
            return None

    def _choice(self, table: dict[str, Any], path: Path, key: str, known: tuple[str, ...]) -> None:
        if key in table and table[key] not in known:
            self._problem((*path, key), f"{table[key]!r} is none of {', '.join(known)}")

    def _required(self, table: dict[str, Any], path: Path, keys: tuple[str, ...]) -> None:
        for key in keys:
            if key not in table:
                self._problem((*path, key), "this key is missing")

    def _no_strangers(self, table: Mapping[str, Any], path: Path, known: Iterable[str]) -> None:
        for key in table:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self._problem((*path, key), f"there is no such key ({hint})")

    def _table(self, path: Path, value: object) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        self._problem(path, f"this must be a table: [{path_text(path)}]")
        return {}

    def _tables(self, path: Path, value: object) -> list[dict[str, Any]]:
        if isinstance(value, list) and all(isinstance(element, dict) for element in value):
            return value
        self._problem(path, f"this must be a list of tables, each under [[{path_text(path)}]]")
        return []

    def _converted(self, path: Path, value: object, kind: type[T]) -> T | None:
        """``value`` as ``kind``, whose own rules are the rest: types and limits."""
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            what, _, inner = str(error).partition(" - at `$")
            found = _path_of(inner.removesuffix("`"))
            below = tuple(_KEYS.get(part, part) if isinstance(part, str) else part for part in found)
            self._problem((*path, *below), f"{what[:1].lower()}{what[1:]}".replace("`", ""))
            return None

    def _problem(self, path: Path, what: str) -> None:
        self.file.problems.append(FileProblem(line_of(path, self._lines), path_text(path), what))
