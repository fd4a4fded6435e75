"""The table of flows: its ceiling, who goes when it is full, who is idle."""

from __future__ import annotations

from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from warren.l4.flows import FlowTable


class Flow:
    def __init__(self, key: Hashable) -> None:
        self.key = key
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


@given(st.lists(st.tuples(st.sampled_from("atpre"), st.integers(0, 9)), max_size=60), st.integers(1, 4))
def test_it_never_exceeds_its_ceiling_and_loses_no_flow(steps: list[tuple[str, int]], ceiling: int) -> None:
    table: FlowTable[Flow] = FlowTable(ceiling)
    there: dict[Hashable, Flow] = {}
    for now, (step, key) in enumerate(steps):
        flow = there.get(key)
        if step == "a" and flow is None:
            flow = Flow(key)
            for gone in table.add(flow, now):
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
