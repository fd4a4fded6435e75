from __future__ import annotations

import pytest

from warren.errors import UsageError
from warren.lab.firewall import Firewall, firewall_ruleset


def rules(firewall: Firewall) -> list[str]:
    lines = firewall_ruleset("wan", firewall).splitlines()
    return lines[lines.index(next(line for line in lines if line.startswith("chain"))) + 1 : -2]


def test_a_firewall_without_rules_lets_everything_through_and_replaces_the_one_before() -> None:
    assert rules(Firewall()) == []
    assert firewall_ruleset("wan", Firewall()).splitlines()[:2] == [
        "add table inet lab_firewall",
        "delete table inet lab_firewall",
    ]


def test_each_setting_is_a_rule() -> None:
    assert rules(Firewall(udp="dropped")) == ["meta l4proto udp drop"]
    assert rules(Firewall(udp="rejected")) == ["meta l4proto udp reject with icmpx admin-prohibited"]
    (only,) = rules(Firewall(tcp_ports=(443, 853)))
    assert "tcp dport != { 443, 853 }" in only
    (none,) = rules(Firewall(tcp_ports=()))
    assert "dport" not in none
    assert len(rules(Firewall(stateful=True))) == 2


def test_a_firewall_says_what_it_does() -> None:
    assert str(Firewall(udp="dropped", tcp_ports=(443,), stateful=True)) == (
        "UDP dropped, TCP to 443 only, IPv6 stateful"
    )
    assert str(Firewall(tcp_ports=())) == "no TCP"


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="say open, dropped, rejected"):
        Firewall(udp="maybe")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a port is 1 to 65535"):
        Firewall(tcp_ports=(0,))
