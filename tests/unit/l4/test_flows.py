"""The table of flows: its ceiling, who goes when it is full, who is idle."""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from warren.l4.flows import LOOKED_AT, FlowTable
from warren.l4.shares import Group, groups_of

HOST, NEIGHBOUR, OTHER, FAR = (
    groups_of(ip_address(text)) for text in ("2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:1::", "192.0.2.1")
)


class Flow:
    def __init__(self, key: Hashable, groups: tuple[Group, ...] = ()) -> None:
        self.key = key
        self.groups = groups
        self.used = 0.0
        self.proven = False


def table_of(ceiling: int, *keys: str) -> tuple[FlowTable[Flow], dict[str, Flow]]:
    """Flows added at 0, 1, 2 …"""
    table: FlowTable[Flow] = FlowTable(ceiling)
    flows = {key: Flow(key) for key in keys}
    for now, flow in enumerate(flows.values()):
        assert table.add(flow, now) == []
    return table, flows


def test_when_it_is_full_the_longest_idle_goes() -> None:
    table, flows = table_of(3, "a", "b", "c")
    table.touch(flows["a"], 5)
    assert table.add(Flow("d"), 6) == [flows["b"]]
    assert table.get("b") is None
    assert table.get("a") is flows["a"]
    assert len(table) == 3


def test_a_flood_of_new_flows_does_not_drive_out_proven_ones() -> None:
    table, flows = table_of(3, "a", "b")
    table.prove(flows["a"])
    table.touch(flows["a"], 2)
    for number in range(100):
        table.add(Flow(number), 3 + number)
    assert table.get("a") is flows["a"]
    assert len(table) == 3


def test_among_proven_flows_alone_the_longest_idle_goes() -> None:
    table, flows = table_of(2, "a", "b")
    for key in "ba":
        table.prove(flows[key])
    assert table.add(Flow("c"), 3) == [flows["b"]]


def test_a_lower_ceiling_holds_from_the_next_flow_on() -> None:
    table, flows = table_of(4, "a", "b", "c", "d")
    table.ceiling = 2
    assert table.add(Flow("e"), 9) == [flows["a"], flows["b"], flows["c"]]
    assert len(table) == 2


def test_those_that_are_idle_are_removed_and_the_others_stay() -> None:
    table, flows = table_of(9, "a", "b", "c")
    table.prove(flows["c"])
    table.touch(flows["a"], 7)
    assert table.longest_idle() == 1
    assert table.expire(2) == [flows["b"], flows["c"]]
    assert table.longest_idle() == 7
    assert table.expire(6.9) == []
    assert table.expire(7) == [flows["a"]]
    assert table.longest_idle() is None


def test_a_flow_is_removed_once_and_another_of_its_key_is_left_alone() -> None:
    table, flows = table_of(9, "a")
    assert table.remove(flows["a"])
    assert not table.remove(flows["a"])
    again = Flow("a")
    table.add(again, 3)
    assert not table.remove(flows["a"])
    assert table.get("a") is again
    assert list(table) == [again]


def test_a_source_with_its_share_makes_room_by_its_own_flows_and_nobody_else_does() -> None:
    table: FlowTable[Flow] = FlowTable(10)
    visitor = Flow("visitor", FAR)
    table.add(visitor, 0)
    gone = [one.key for number in range(30) for one in table.add(Flow(number, HOST), 1 + number)]
    assert gone == list(range(23))  # it has seven, two places are free
    assert table.get("visitor") is visitor
    assert table.add(Flow("other", OTHER), 40) == []


def test_of_a_source_those_go_first_that_are_unproven_and_then_those_that_are_idle() -> None:
    table: FlowTable[Flow] = FlowTable(10)
    flows = [Flow(number, FAR) for number in range(8)]
    for flow in flows:
        assert table.add(flow, 0) == []
    for flow in flows[:7]:
        table.prove(flow)
        table.touch(flow, 5 if flow.key == 3 else 6)
    table.touch(flows[7], 9)
    assert table.add(Flow("a", FAR), 10) == [flows[7]]
    table.remove(table.get("a") or flows[0])
    table.add(Flow("b", FAR), 11)
    table.prove(table.get("b") or flows[0])
    assert table.add(Flow("c", FAR), 12) == [flows[3]]


def test_a_source_with_more_flows_than_are_looked_at_at_once_loses_each_that_is_idle() -> None:
    table: FlowTable[Flow] = FlowTable(100)
    flows = [Flow(number, FAR) for number in range(80)]
    for flow in flows:
        assert table.add(flow, 0) == []
    for flow in flows[: 2 * LOOKED_AT]:
        table.touch(flow, 5)
    gone = {one.key for number in range(20) for one in table.add(Flow(-1 - number, FAR), 6)}
    assert len(gone) == 20
    # One of each eight that were all in use when they were looked at, and they were looked at twice.
    assert len(gone & {flow.key for flow in flows[: 2 * LOOKED_AT]}) == 4


def test_all_sources_of_a_48_together_leave_places_for_others() -> None:
    table: FlowTable[Flow] = FlowTable(50)
    for number in range(1000):
        table.add(Flow(number, groups_of(ip_address((0x20010DB8_0000 << 80) | (number << 64)))), number)
    assert len(table) == 47
    assert table.add(Flow("other", OTHER), 1000) == []


@given(
    st.lists(
        st.tuples(st.sampled_from("aatpre"), st.integers(0, 19), st.sampled_from([(), HOST, NEIGHBOUR, OTHER, FAR])),
        max_size=80,
    ),
    st.integers(1, 12),
)
def test_it_never_exceeds_its_ceiling_and_loses_no_flow(
    steps: list[tuple[str, int, tuple[Group, ...]]], ceiling: int
) -> None:
    table: FlowTable[Flow] = FlowTable(ceiling)
    there: dict[Hashable, Flow] = {}
    for now, (step, key, groups) in enumerate(steps):
        flow = there.get(key)
        if step == "a" and flow is None:
            flow = Flow(key, groups)
            newcomer = not any(set(groups) & set(other.groups) for other in there.values())
            full = len(table) == ceiling
            for gone in table.add(flow, now):
                assert full or not newcomer
                del there[gone.key]
            there[key] = flow
        elif flow is not None and step == "t":
            table.touch(flow, now)
        elif flow is not None and step == "p":
            table.prove(flow)
            table.touch(flow, now)
        elif flow is not None and step == "r":
            assert table.remove(flow)
            del there[key]
        elif step == "e":
            for gone in table.expire(now - 5):
                assert gone.used <= now - 5
                del there[gone.key]
            assert all(flow.used > now - 5 for flow in there.values())
        assert len(table) == len(there) <= ceiling
        assert {flow.key for flow in table} == set(there)
        assert all(table.get(key) is flow for key, flow in there.items())
        assert table.longest_idle() == min((flow.used for flow in there.values()), default=None)
    for flow in list(there.values()):
        table.remove(flow)
    assert table._of == {}
