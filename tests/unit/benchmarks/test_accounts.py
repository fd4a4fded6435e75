"""The kernel's accounts, as text."""

from __future__ import annotations

import pytest

from benchmarks.accounts import CpuTime, Memory, machine_ticks, process_ticks, rollup_memory


@pytest.mark.parametrize("command", ["python", "two words", "a) S 1 (b"])
def test_process_time_is_user_plus_system_whatever_the_command_is_called(command: str) -> None:
    after_name = "S 1 100 100 0 -1 4194304 500 0 0 0 17 25 3 4 20 0 5 0 300 1000 200"
    assert process_ticks(f"42 ({command}) {after_name}") == 17 + 25


def test_machine_time_leaves_out_idle_waiting_and_stolen_time() -> None:
    text = "cpu  1 20 300 999999 888888 4000 50000 777777 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert machine_ticks(text) == 1 + 20 + 300 + 4000 + 50000


def test_memory_is_in_bytes() -> None:
    text = "55d0-7ffd ---p 00000000 00:00 0    [rollup]\nRss:     1000 kB\nPss:      400 kB\nPss_Dirty:   7 kB\n"
    assert rollup_memory(text) == Memory(rss=1_024_000, pss=409_600)


def test_cpu_time_is_told_since_a_moment() -> None:
    assert CpuTime(5.0, 9.0).since(CpuTime(4.0, 6.5)) == CpuTime(1.0, 2.5)
