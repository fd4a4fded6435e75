"""Writing a table of nftables (libnftables-json(5)): its parts, and the expressions that rules are made of; pure."""

from __future__ import annotations

from typing import Any, Final

from warren.l3.ranges import Ranges, elements
from warren.linux.nft import Command, Table

IP: Final = {6: "ip6", 4: "ip"}

Expression = dict[str, Any]


def removal_of(table: Table) -> list[Command]:
    """Whether it is there or not."""
    named = {"table": table._asdict()}
    return [{"add": named}, {"delete": named}]  # nft 1.0.6 has no `destroy`


class Document:
    """Collects the table's parts. Ranges that occur more than once share a set."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._place = {"family": table.family, "table": table.name}
        self._sets: dict[tuple[int, Ranges], str] = {}
        self._chains: list[Command] = []
        self._rules: list[Command] = []

    def commands(self) -> list[Command]:
        """What adds the table, which is not there."""
        sets = [
            self._add(
                "set",
                name=name,
                type=f"ipv{version}_addr",
                flags=["interval"],
                elem=elements(ranges, version),
            )
            for (version, ranges), name in self._sets.items()
        ]
        return [{"add": {"table": self._table._asdict()}}, *sets, *self._chains, *self._rules]

    def chain(self, name: str, *, hook: str | None = None, priority: int = 0) -> None:
        base = {"type": "filter", "hook": hook, "prio": priority, "policy": "accept"} if hook else {}
        self._chains.append(self._add("chain", name=name, **base))

    def rule(self, chain: str, *expressions: Expression, comment: str = "") -> None:
        said = {"comment": comment} if comment else {}
        self._rules.append(self._add("rule", chain=chain, expr=list(expressions), **said))

    def within(self, field: str, ranges: Ranges, version: int) -> tuple[Expression, ...]:
        return (is_equal(payload(version, field), self._right(ranges, version)),)

    def outside(self, field: str, ranges: Ranges, version: int) -> tuple[Expression, ...]:
        """None at all (``ranges`` empty) leaves every packet of that IP version outside."""
        if not ranges:
            return (is_equal(meta("nfproto"), f"ipv{version}"),)
        return (differs(payload(version, field), self._right(ranges, version)),)

    def _right(self, ranges: Ranges, version: int) -> Any:
        if len(ranges) == 1:
            return elements(ranges, version)[0]
        name = self._sets.setdefault((version, ranges), f"s{len(self._sets)}")
        return f"@{name}"

    def _add(self, kind: str, **what: object) -> Command:
        return {"add": {kind: {**self._place, **what}}}


WAY_BACK: Final[Expression] = {"fib": {"result": "oif", "flags": ["saddr", "iif"]}}
"""The interface by which the source would be answered, if that is the one it came by; else 0."""
ACCEPT: Final[Expression] = {"accept": None}
DROP: Final[Expression] = {"drop": None}
RETURN: Final[Expression] = {"return": None}


def payload(version: int, field: str) -> Expression:
    return {"payload": {"protocol": IP[version], "field": field}}


def meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def ct(key: str) -> Expression:
    return {"ct": {"key": key}}


def is_(key: str, value: object) -> Expression:
    return is_equal(meta(key), value)


def is_equal(left: Expression, right: object) -> Expression:
    return {"match": {"op": "==", "left": left, "right": right}}


def among(left: Expression, right: object) -> Expression:
    return {"match": {"op": "in", "left": left, "right": right}}


def differs(left: Expression, right: object) -> Expression:
    return {"match": {"op": "!=", "left": left, "right": right}}


def goto(chain: str) -> Expression:
    return {"goto": {"target": chain}}


def jump(chain: str) -> Expression:
    return {"jump": {"target": chain}}


ANSWER: Final[tuple[Expression, ...]] = (
    among(ct("state"), "established"),
    is_equal(ct("direction"), "reply"),
)
"""A packet of whoever did not open the flow."""
