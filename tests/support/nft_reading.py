"""Reads rules of libnftables-json(5) as the kernel would, for the first packet of a flow, or the answer to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from warren.linux.nft import Command
from warren.model.policy import Flow

_NUMBERS = {"tcp": 6, "udp": 17}
_ICMP = {4: 1, 6: 58}
OPENERS_PORT = 40_123


@dataclass(frozen=True, slots=True)
class _Packet:
    flow: Flow
    answer: bool


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

    def verdict(self, chain: str, flow: Flow, *, answer: bool = False) -> Literal["accept", "drop"]:
        """What ``chain`` does with a packet of ``flow``, or with an ``answer`` to one; it has to end in a verdict."""
        found = self._walk(chain, _Packet(flow, answer))
        assert found in {"accept", "drop"}, f"{chain} ends without a verdict"
        return "accept" if found == "accept" else "drop"

    def _walk(self, chain: str, packet: _Packet) -> str:
        for expressions in self.rules.get(chain, ()):
            *matches, last = expressions
            if all(self._matches(one["match"], packet) for one in matches):
                ((verdict, target),) = last.items()
                if verdict in {"jump", "goto"}:
                    found = self._walk(target["target"], packet)
                    if verdict == "goto" or found != "return":
                        return found
                    continue
                return str(verdict)
        return "return"

    def _matches(self, match: dict[str, Any], packet: _Packet) -> bool:
        value = _value(match["left"], packet)
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


def _value(left: dict[str, Any], packet: _Packet) -> Any:
    """What the packet has there; None: nothing, or it is the first of its flow and whole."""
    flow = packet.flow
    version = flow.source.version
    match left:
        case {"payload": {"protocol": "ip" | "ip6" as protocol, "field": "saddr" | "daddr" as field}}:
            if (protocol == "ip") != (version == 4):
                return None
            return ip_address(flow.source if (field == "saddr") != packet.answer else flow.destination)
        case {"payload": {"protocol": "tcp" | "udp" as protocol, "field": "sport" | "dport" as field}}:
            near = flow.port if (field == "dport") != packet.answer else OPENERS_PORT
            return near if protocol == flow.protocol else None
        case {"meta": {"key": "l4proto"}}:
            return _ICMP[version] if flow.protocol == "icmp" else _NUMBERS[flow.protocol]
        case {"meta": {"key": "nfproto"}}:
            return f"ipv{version}"
        case {"ct": {"key": "state"}}:
            return "established" if packet.answer else "new"
        case {"ct": {"key": "direction"}}:
            return "reply" if packet.answer else "original"
        case {"&": [{"payload": {"protocol": "ip", "field": "frag-off"}}, _]}:
            return 0 if version == 4 else None
        case {"exthdr": _}:
            return None
    raise AssertionError(f"this test cannot read {left}")
