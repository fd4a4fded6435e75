"""The nftables rules of the default-route method, as wg-quick(8) sets them; pure.

Two things: packets for the tunnel's own addresses that do not come out of the tunnel are dropped (CVE-2019-14899), and
the mark of our encrypted packets is kept in conntrack and given back to their answers, so that the reverse path filter
looks those up where they left.
"""

from __future__ import annotations

from typing import Any

from warren.linux.nft import Command, Table
from warren.model.tunnel import IPAddress

_PREROUTING_RAW, _MANGLE = -300, -150  # nft(8), standard priorities
FAMILIES = {4: "ip", 6: "ip6"}


def table_of(interface: str, version: int) -> Table:
    """The table that holds the rules of a tunnel for IPv4 or IPv6."""
    return Table(FAMILIES[version], f"warren-{interface}")


def protect(interface: str, version: int, mark: int, addresses: tuple[IPAddress, ...]) -> list[Command]:
    """The document that puts the table in place, replacing an earlier one in the same transaction.

    ``addresses`` are the tunnel's own of that IP version, ``mark`` is that of its encrypted packets.
    """
    table = table_of(interface, version)
    udp = _equals({"meta": {"key": "l4proto"}}, "udp")
    return [
        *forget(table),
        {"add": {"table": table._asdict()}},
        _chain(table, "preraw", "prerouting", _PREROUTING_RAW),
        _chain(table, "premangle", "prerouting", _MANGLE),
        _chain(table, "postmangle", "postrouting", _MANGLE),
        *(_rule(table, "preraw", *_foreign(interface, table.family, address)) for address in addresses),
        _rule(table, "postmangle", udp, _equals(_MARK, mark), _set(_CONNECTION_MARK, _MARK)),
        _rule(table, "premangle", udp, _set(_MARK, _CONNECTION_MARK)),
    ]


def forget(table: Table) -> list[Command]:
    """The document that removes the table whether it is there or not (nft 1.0.6 has no ``destroy``)."""
    return [{"add": {"table": table._asdict()}}, {"delete": {"table": table._asdict()}}]


_MARK = {"meta": {"key": "mark"}}
_CONNECTION_MARK = {"ct": {"key": "mark"}}


def _foreign(interface: str, family: str, address: IPAddress) -> tuple[dict[str, Any], ...]:
    return (
        {"match": {"op": "!=", "left": {"meta": {"key": "iifname"}}, "right": interface}},
        _equals({"payload": {"protocol": family, "field": "daddr"}}, str(address)),
        {"match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["saddr"]}}, "right": "local"}},
        {"drop": None},
    )


def _equals(left: dict[str, Any], right: str | int) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def _set(key: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    return {"mangle": {"key": key, "value": value}}


def _chain(table: Table, name: str, hook: str, priority: int) -> Command:
    place = {"family": table.family, "table": table.name, "name": name}
    return {"add": {"chain": {**place, "type": "filter", "hook": hook, "prio": priority, "policy": "accept"}}}


def _rule(table: Table, chain: str, *expressions: dict[str, Any]) -> Command:
    return {"add": {"rule": {"family": table.family, "table": table.name, "chain": chain, "expr": list(expressions)}}}
