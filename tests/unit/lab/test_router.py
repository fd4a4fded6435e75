from __future__ import annotations

from warren.lab.router import Masquerade, masquerade_ruleset


def test_one_document_replaces_the_table_and_names_each_interface_once() -> None:
    lines = masquerade_ruleset([Masquerade("wan0"), Masquerade("wan1", symmetric=True)]).splitlines()
    assert lines[:2] == ["add table ip lab_nat", "delete table ip lab_nat"]
    assert [line for line in lines if "masquerade" in line] == [
        'oifname "wan0" masquerade',
        'oifname "wan1" masquerade random',
    ]
    assert not any("timeout" in line for line in lines if "oifname" in line)


def test_a_timeout_belongs_to_its_interface() -> None:
    ruleset = masquerade_ruleset([Masquerade("wan0"), Masquerade("wan1", udp_timeout_s=2)])
    assert "policy = { unreplied : 2, replied : 2 }" in ruleset
    assert [line for line in ruleset.splitlines() if "timeout set" in line] == [
        'oifname "wan1" meta l4proto udp ct timeout set "udp1"'
    ]
