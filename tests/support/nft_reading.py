"""Reads rules of libnftables-json(5) as the kernel would, for the first packet of a flow: what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from warren.linux.nft import Command
from warren.model.policy import Flow

_NUMBERS = {"tcp": 6, "udp": 17}
_ICMP = {4: 1, 6: 58}


@dataclass(frozen=True, slots=True)
class Chains:
    """The chains and sets of one document."""

    rules: Mapping[str, list[list[dict[str, Any]]]]
    sets: Mapping[str, list[Any]]

    @staticmethod
    def of(document: list[Command]) -> Chains:
        rules: dict[str, list[list[dict[str, Any]]]] = {}
        sets: dict[str, list[Any]] = {}
        for command in document:
            added = command.get("add", {})
            if "rule" in added:
                rules.setdefault(added["rule"]["chain"], []).append(added["rule"]["expr"])
            if "set" in added:
                sets[added["set"]["name"]] = added["set"]["elem"]
        return Chains(rules, sets)

    def verdict(self, chain: str, flow: Flow) -> Literal["accept", "drop"]:
        """Of the first rule of ``chain`` that matches and ends in one; there has to be one."""
        for expressions in self.rules[chain]:
            *matches, last = expressions
            if all(self._matches(one["match"], flow) for one in matches):
                (verdict,) = last
                assert verdict in {"accept", "drop"}, last
                return "accept" if verdict == "accept" else "drop"
        raise AssertionError(f"{chain} ends without a verdict")

    def _matches(self, match: dict[str, Any], flow: Flow) -> bool:
        value = _value(match["left"], flow)
        if value is None:  # there is no such header: the rule does not match, whatever it compares with
            return False
        found = self._is_in(value, match["right"])
        return not found if match["op"] == "!=" else found

    def _is_in(self, value: Any, right: Any) -> bool:
        if isinstance(right, str) and right.startswith("@"):
            return any(self._is_in(value, element) for element in self.sets[right[1:]])
        if isinstance(right, dict) and "set" in right:
            return any(self._is_in(value, element) for element in right["set"])
        if isinstance(right, dict) and "prefix" in right:
            return value in ip_network((right["prefix"]["addr"], right["prefix"]["len"]))
        if isinstance(right, dict) and "range" in right:
            first, last = right["range"]
            return bool(type(value)(first) <= value <= type(value)(last))
        return str(value) == str(right)


def _value(left: dict[str, Any], flow: Flow) -> Any:
    """What the packet has there; None: nothing, or it is the first of its flow and whole."""
    version = flow.source.version
    match left:
        case {"payload": {"protocol": "ip" | "ip6" as protocol, "field": "saddr" | "daddr" as field}}:
            if (protocol == "ip") != (version == 4):
                return None
            return ip_address(flow.source if field == "saddr" else flow.destination)
        case {"payload": {"protocol": "tcp" | "udp" as protocol, "field": "dport"}}:
            return flow.port if protocol == flow.protocol else None
        case {"meta": {"key": "l4proto"}}:
            return _ICMP[version] if flow.protocol == "icmp" else _NUMBERS[flow.protocol]
        case {"meta": {"key": "nfproto"}}:
            return f"ipv{version}"
        case {"ct": {"key": "state"}}:
            return "new"
        case {"&": [{"payload": {"protocol": "ip", "field": "frag-off"}}, _]}:
            return 0 if version == 4 else None
        case {"exthdr": _}:
            return None
    raise AssertionError(f"this test cannot read {left}")
