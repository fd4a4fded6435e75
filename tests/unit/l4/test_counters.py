"""What is counted, and how much of it the log gets."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.l4.config import REASONS, EntryState
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
