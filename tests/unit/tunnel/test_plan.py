"""The plan: what is added, what is removed, what is left alone, and in which order."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from warren.linux.netlink_values import Address, Route, Rule
from warren.tunnel.items import Dns, Firewall, Item, Mtu, Sysctl, Up, pack, unpack
from warren.tunnel.plan import Add, Change, Remove, plan

A = Address("home", ip_interface("10.0.0.1/24"))
B = Address("home", ip_interface("fd00::1/64"))
R = Route(ip_network("10.2.0.0/16"), "home")
DEFAULT = Route(ip_network("0.0.0.0/0"), "home", 51820)
RULE = Rule(4, 32765, 51820, fwmark=51820, inverted=True)
EXCEPTION = Rule(4, 32764, 254, suppress_prefixlength=0)
WALL = Firewall("home", 4, 51820, (ip_address("10.0.0.1"),))
WALL_OF_TWO = Firewall("home", 4, 51820, (ip_address("10.0.0.1"), ip_address("10.0.0.9")))
MARKS = Sysctl("net/ipv4/conf/all/src_valid_mark", "1", previous="0")
DNS = Dns("home", (ip_address("10.0.0.53"),), ("lan",))
OTHER_DNS = Dns("home", (ip_address("10.0.0.54"),), ())
M1, M2, UP = Mtu("home", 1420), Mtu("home", 1380), Up("home")
FOREIGN_RULE = Rule(4, 100, 7, foreign=True)

CASES: dict[str, tuple[list[Item], list[Item], list[Item], list[Change]]] = {
    # desired, observed, made, changes
    "nothing wanted, nothing there": ([], [], [], []),
    "a first start adds in an order that works": (
        [DNS, RULE, EXCEPTION, WALL, MARKS, DEFAULT, R, UP, M1, B, A],
        [FOREIGN_RULE, M2],
        [],
        [Add(x) for x in (B, A, M1, UP, DEFAULT, R, MARKS, WALL, EXCEPTION, RULE, DNS)],
    ),
    "a stop removes in the opposite order, and not what goes with the interface": (
        [],
        [A, M1, UP, DEFAULT, MARKS, WALL, RULE, EXCEPTION, DNS, FOREIGN_RULE],
        [A, DEFAULT, MARKS, WALL, RULE, EXCEPTION, DNS],
        [Remove(x) for x in (DNS, RULE, EXCEPTION, WALL, MARKS, DEFAULT, A)],
    ),
    "all is as wanted": ([A, M1, UP, R], [A, M1, UP, R], [A, R], []),
    "what somebody else added stays": ([A], [A, B, R, FOREIGN_RULE], [A], []),
    "what we made and is gone is not removed again": ([], [], [A, R, RULE], []),
    "what went away is put back": ([A, R], [A], [A, R], [Add(R)]),
    "new comes before old goes": ([B], [A], [A], [Add(B), Remove(A)]),
    "an MTU is replaced, never removed": ([M2], [M1], [M1], [Add(M2)]),
    "a firewall is replaced in one transaction": ([WALL_OF_TWO], [WALL], [WALL], [Add(WALL_OF_TWO)]),
    "name servers are replaced": ([OTHER_DNS], [DNS], [DNS], [Add(OTHER_DNS)]),
    "what is wanted twice is made once": ([A, A], [], [], [Add(A)]),
}


@pytest.mark.parametrize("case", CASES)
def test_plan(case: str) -> None:
    desired, observed, made, changes = CASES[case]
    assert plan(desired, observed, made) == changes


def test_every_item_survives_the_journal() -> None:
    items: frozenset[Item] = frozenset({A, B, R, DEFAULT, RULE, EXCEPTION, WALL, MARKS, DNS})
    again = unpack(pack(items))
    assert again == items
    assert [item.previous for item in again if isinstance(item, Sysctl)] == ["0"]
    assert pack([M1, UP]) == [], "these end with the interface"


@pytest.mark.parametrize("packed", [{}, {"kind": "x"}, {"kind": "route", "network": "x"}, {"kind": "rule", "bad": 1}])
def test_a_journal_of_something_else_is_refused(packed: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        unpack([packed])
