"""What is counted, and how much of it the log gets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.l4 import counters as module
from warren.l4.config import REASONS, EntryState, PartState
from warren.l4.counters import LINES_BURST, Counters
from warren.l4.kinds import Refused
from warren.model.tunnel import TransportAddress

CLIENT = TransportAddress(ip_address("192.0.2.1"), 1234)


def test_a_state_has_the_counts() -> None:
    counters = Counters("forward x", lambda: 0.0)
    end = counters.begin()
    counters.begin()
    end()
    counters.bytes_in, counters.bytes_out = 3, 4
    counters.refuse(Refused("policy", "the policy forbids it"), CLIENT)
    counters.refuse(Refused("policy", "the policy forbids it still"), CLIENT)
    state = counters.fill(EntryState(id="forward x", state="listening", places=("127.0.0.1:1",)))
    assert state == EntryState(
        id="forward x",
        state="listening",
        places=("127.0.0.1:1",),
        open=1,
        opened=2,
        refused={"policy": 2},
        last_refusal="the policy forbids it still",
        bytes_in=3,
        bytes_out=4,
    )
    assert set(state.refused) <= set(REASONS)


def test_a_part_has_counts_of_its_own_and_the_whole_is_their_sum() -> None:
    counters = Counters("gateway *:443", lambda: 0.0)
    counters.bytes_in = 1
    ends = [counters.begin(CLIENT) for _ in range(3)]
    for end, name in zip(ends, ("shop", "shop", "blog"), strict=False):
        end.part = counters.part(name)
        end.enter_part()
        end.part.bytes_in += 10
    counters.refuse(Refused("rate", "too fast"), CLIENT, counters.part("blog"))
    counters.refuse(Refused("protocol", "no TLS"), CLIENT)
    ends[0]()
    ends[0]()
    state = counters.fill(EntryState(id="gateway *:443", state="listening"))
    assert state.parts == {
        "shop": PartState(open=1, opened=2, bytes_in=20),
        "blog": PartState(open=1, opened=1, refused={"rate": 1}, last_refusal="too fast", bytes_in=10),
    }
    assert (state.open, state.opened, state.bytes_in) == (2, 3, 31)
    assert (state.refused, state.last_refusal) == ({"rate": 1, "protocol": 1}, "no TLS")


def test_parts_that_were_forgotten_stay_in_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARTS_MAX", 2)
    counters = Counters("gateway *:443", lambda: 0.0)
    end = counters.begin(CLIENT)
    end.part = counters.part("open")
    end.enter_part()
    for number in range(10):
        counters.part(str(number)).bytes_out += 1
    state = counters.fill(EntryState(id="gateway *:443", state="listening"))
    assert set(state.parts) == {"open", "9"}
    assert state.bytes_out == 10


def test_a_flood_of_refusals_makes_few_lines_and_a_sum(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    counters = Counters("connector shop", lambda: now)
    caplog.set_level("INFO", "warren.streams")
    for _ in range(1000):
        counters.refuse(Refused("rate", "too fast"), CLIENT)
    assert len(caplog.messages) == LINES_BURST
    assert caplog.messages[0] == "connector shop: 192.0.2.1:1234 is refused (rate): too fast"
    now = 1.0
    counters.refuse(Refused("rate", "too fast"), None)
    assert caplog.messages[-1].endswith("too fast (990 more were refused meanwhile)")
    assert "a program of this host" in caplog.messages[-1]
    assert counters.refused == {"rate": 1001}


def test_what_a_client_sent_cannot_drive_a_terminal_and_is_short() -> None:
    counters = Counters("x", lambda: 0.0)
    counters.refuse(Refused("protocol", "no connector is for \x1b[2J\n" + "a" * 1000), CLIENT)
    assert counters.last_refusal.isprintable()
    assert len(counters.last_refusal) <= 300
