"""A policy and the exact document that it becomes. What the kernel makes of it is tested in tests/lab."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.policy_node import address, member, network
from warren.l3.firewall import Own, removal, ruleset
from warren.l3.refusals import refusals
from warren.linux.nft import Command, Table
from warren.model.documents import Rule
from warren.model.policy import ResolvedRule, resolve

GOLDEN = Path(__file__).parents[2] / "vectors" / "policy"
MEMBERS = (
    member(1, "me", ["router"], ["192.168.5.0/24"]),
    member(2, "laptop", ["people"]),
    member(3, "printer", ["things"]),
    member(5, "phone", ["people"]),
)
OWN = Own(
    (IPv6Address(address(1, 6)),),
    IPv4Address(address(1, 4)),
    (ip_network("192.168.5.0/24"),),
    (IPv6Network("fd11:2233:4455::/48"),),
)
POLICY = (
    Rule(action="deny", sources=("tag:things",), destinations=("0.0.0.0/0", "::/0")),
    Rule(action="allow", sources=("tag:people",), destinations=("members",), protocol="tcp", ports=("22", "8000-8100")),
    Rule(action="allow", sources=("members",), destinations=("members",), protocol="icmp"),
    Rule(action="allow", sources=("tag:people",), destinations=("192.168.5.0/25",), protocol="udp"),
    Rule(action="allow", sources=("192.168.5.0/24",), destinations=("tag:people",)),
    Rule(action="allow", sources=("members",), destinations=("member:phone",), comment="somebody else's business"),
)
DOCUMENTS = {
    "rules": lambda: ruleset("home", OWN, resolve(network(POLICY), MEMBERS)),
    "none": lambda: ruleset("home", OWN, None),
    "refusals": lambda: refusals("home", OWN, resolve(network(POLICY), MEMBERS)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_policy_becomes_exactly_this_document(name: str) -> None:
    """Changed on purpose: write the new one with ``python -m tests.unit.l3.test_firewall``, and read the difference."""
    assert DOCUMENTS[name]() == json.loads((GOLDEN / f"{name}.json").read_text())["nftables"]


def _rules(document: list[Command], chain: str) -> list[list[dict[str, Any]]]:
    added = [command["add"]["rule"] for command in document if "rule" in command.get("add", {})]
    return [rule["expr"] for rule in added if rule["chain"] == chain]


def test_no_rule_and_no_policy_are_the_same() -> None:
    assert ruleset("home", OWN, ()) == ruleset("home", OWN, None)
    assert _rules(ruleset("home", OWN, None), "inbound") == [[{"drop": None}]]


def test_rules_about_others_cost_nothing() -> None:
    others = tuple(
        ResolvedRule(
            index,
            "allow",
            (ip_network("fd11:2233:4455:2::/64"),),
            (ip_network(f"fd11:2233:4455:{index + 16:x}::/64"),),
            "any",
            (),
        )
        for index in range(500)
    )
    mine = resolve(network(POLICY), MEMBERS)
    assert ruleset("home", OWN, (*mine, *others)) == ruleset("home", OWN, mine)


def test_many_members_with_many_rules_share_few_elements() -> None:
    members = [member(number, f"n{number}", ["even"] if number % 2 else ["odd"]) for number in range(1, 251)]
    policy = tuple(
        Rule(
            action="allow", sources=("members", "tag:even"), destinations=("members",), protocol="tcp", ports=(str(n),)
        )
        for n in range(1, 101)
    )
    document = ruleset("home", OWN, resolve(network(policy), members))
    assert len(_rules(document, "inbound")) == 2 * 100 + 8
    assert not [command for command in document if "set" in command.get("add", {})][2:]
    assert len(json.dumps(document)) < 300_000


def test_every_part_is_in_the_one_table() -> None:
    """One transaction: made if missing, deleted, made anew. What refuses goes with what it was made of."""
    document = ruleset("home", OWN, resolve(network(POLICY), MEMBERS))
    first = {"table": {"family": "inet", "name": "warren-home"}}
    other = {"table": {"family": "inet", "name": "warren-home/refusals"}}
    assert document[:5] == [{"add": first}, {"delete": first}, {"add": other}, {"delete": other}, {"add": first}]
    assert removal("home") == document[:4]
    for command in document[5:]:
        ((verb, element),) = command.items()
        ((_, value),) = element.items()
        assert verb == "add"
        assert Table(value["family"], value["table"]) == Table("inet", "warren-home")


@pytest.mark.parametrize("name", ["", "a" * 16, 'x"', "a b", "a\n"])
def test_what_is_no_interface_name_gets_no_rules(name: str) -> None:
    with pytest.raises(ValueError, match="is no interface name"):
        ruleset(name, OWN, None)


if __name__ == "__main__":
    for golden, document in DOCUMENTS.items():
        lines = ",\n".join(json.dumps(command) for command in document())
        (GOLDEN / f"{golden}.json").write_text(f'{{"nftables": [\n{lines}\n]}}\n')
