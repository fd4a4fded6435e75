"""The desired-state file: what an operator decides of a network, as TOML.

::

    network = "home"
    suffix = "internal"            # optional: as it is
    lease = "24h"                  # optional: as it is
    relay_members = ["tag:relay"]  # optional: as it is; who may relay for others, if public and willing

    [members.web1]                 # members that are not named keep what they have
    tags = ["web"]
    routes = ["192.168.7.0/24"]

    [service.shop]                 # services and connectors are all there are to be; without any: as they are
    at = ["member:web1"]           # who serves it
    target = "localhost:8080"      # as web1 reaches it
    # protocol, port, connect_timeout, idle, health, proxy_protocol, helper, comment

    [connector.shop]
    at = ["tag:gateway"]           # where streams come in
    service = "shop"
    kind = "http"                  # or port (that is where none is said), tls
    domains = ["shop.example.com"]
    # listen, certificate, sources, rate, streams_max, accepts_proxy_protocol, comment

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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from warren.cli import network_values
from warren.cli.file_reader import FileProblem, Reader
from warren.cli.network_file_services import CONNECTOR, SERVICE, read_connector, read_service
from warren.model.documents import Rule
from warren.model.parts import canonical_network, check_selector, port_range
from warren.proto.control.desired_state import DesiredState, PolicyTest, Problem
from warren.toml.document import NotToml, document_of
from warren.toml.lines import Path, line_of, path_text

__all__ = ["BYTES_MAX", "FileProblem", "StateFile", "read"]

BYTES_MAX: Final = 4 << 20
"""The most that a coordinator takes."""

_TOP: Final = ("network", "suffix", "lease", "relay_members", "members", "service", "connector", "policy", "test")
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
_KEYS: Final = {
    section: {field: key for key, field in table.items()}
    for section, table in {"policy": _RULE, "test": _TEST, "service": SERVICE, "connector": CONNECTOR}.items()
}
_TABLES: Final = {"tests": "test", "lease_s": "lease", "services": "service", "connectors": "connector"}
_PART: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


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
        what = problem.what
        if len(path) > 1 and path[0] in {"service", "connector"} and path[0] not in self.parsed:
            what = f"{what}; the file has no [{path[0]}.{path[1]}], and where it has no {path[0]} at all those stay"
        return FileProblem(line_of((*path, *element), self.lines), path_text(path), what)

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
        parts[0] = _TABLES.get(str(parts[0]), parts[0])
    if len(parts) > 2:
        parts[2] = _KEYS.get(str(parts[0]), {}).get(str(parts[2]), parts[2])
    return tuple(parts)


class _Reader(Reader):
    """Reads the whole file."""

    def __init__(self, parsed: dict[str, Any], lines: Mapping[Path, int]) -> None:
        super().__init__(lines, _path_of)
        self.file = StateFile(problems=self.problems, lines=lines, parsed=parsed)
        self.no_strangers(parsed, (), _TOP)
        if "network" not in parsed:
            self.problem(("network",), 'the network is not said; write network = "NAME" above everything else')
        self.file.network = self.checked(("network",), parsed.get("network"), network_values.name) or ""
        if "policy" not in parsed:
            self.problem(
                ("policy",), "no [[policy]] is there, so nothing would pass; say so with policy = [] if you mean it"
            )
        members = self.table(("members",), parsed.get("members", {}))
        policy = self.tables(("policy",), parsed.get("policy", []))
        tests = self.tables(("test",), parsed.get("test", []))
        whole = {
            "suffix": self.checked(("suffix",), parsed.get("suffix"), network_values.suffix),
            "lease_s": self.checked(("lease",), parsed.get("lease"), network_values.lease),
            "relay_members": self._relay_members(parsed.get("relay_members")),
            "members": {name: self._member(name, value) for name, value in members.items()},
            "services": self._named("service", parsed.get("service"), read_service),
            "connectors": self._named("connector", parsed.get("connector"), read_connector),
            "policy": [self._rule(number, value) for number, value in enumerate(policy)],
            "tests": [self._test(number, value) for number, value in enumerate(tests)],
        }
        if not self.problems:
            self.file.state = self.converted((), whole, DesiredState) or self.file.state

    # Parts

    def _relay_members(self, value: object) -> list[str] | None:
        return None if value is None else self.texts(("relay_members",), value, check_selector)

    def _member(self, name: str, value: object) -> dict[str, Any]:
        path = ("members", name)
        self.checked(path, name, network_values.name)
        member = self.table(path, value)
        self.no_strangers(member, path, _MEMBERS)
        return {key: self.texts((*path, key), member.get(key, []), check) for key, check in _MEMBERS.items()}

    def _named(
        self, what: str, value: object, read_one: Callable[[Reader, Path, dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            self.problem((what,), f"this must be tables, each with a name: [{what}.NAME]")
            return None
        found = {}
        for name, table in value.items():
            path = (what, name)
            self.checked(path, name, network_values.name)
            found[name] = read_one(self, path, self.table(path, table))
        return found

    def _rule(self, number: int, table: dict[str, Any]) -> dict[str, Any]:
        path = ("policy", number)
        before = len(self.problems)
        self.no_strangers(table, path, _RULE)
        self.required(table, path, ("action", "from", "to"))
        self.choice(table, path, "action", ("allow", "deny"))
        self.choice(table, path, "protocol", ("any", "tcp", "udp", "icmp"))
        rule = {_RULE[key]: value for key, value in table.items() if key in _RULE}
        for key, check in (("from", check_selector), ("to", network_values.destination), ("ports", port_range)):
            if key in table:
                rule[_RULE[key]] = self.texts((*path, key), table[key], check)
        self.checked((*path, "comment"), table.get("comment"), network_values.comment)
        if rule.get("ports") and rule.get("protocol", "any") in {"any", "icmp"}:
            self.problem((*path, "ports"), 'only tcp and udp have ports; write protocol = "tcp"')
        if len(self.problems) == before:
            self.converted(path, rule, Rule)
        return rule

    def _test(self, number: int, table: dict[str, Any]) -> dict[str, Any]:
        path = ("test", number)
        before = len(self.problems)
        self.no_strangers(table, path, _TEST)
        self.required(table, path, ("from", "to", "expect"))
        self.choice(table, path, "protocol", ("tcp", "udp", "icmp"))
        self.choice(table, path, "expect", ("allow", "deny"))
        test = {_TEST[key]: value for key, value in table.items() if key in _TEST}
        if len(self.problems) == before:
            self.converted(path, test, PolicyTest)
        return test
