"""What processes cost: CPU time and memory as the kernel's ``/proc`` accounts them.

The text formats are those of proc(5). Parsing is apart from reading, so that it can be tested without processes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Columns of /proc/stat's "cpu" line that are work: user nice system irq softirq. Idle, iowait and stolen time are not,
# and guest time is already in user.
_BUSY_COLUMNS = (0, 1, 2, 5, 6)


class Memory(NamedTuple):
    """Resident memory of one process in bytes; ``pss`` counts a page shared by n processes as 1/n."""

    rss: int
    pss: int


class CpuTime(NamedTuple):
    """CPU seconds used so far: by some processes with all their threads, and by the whole machine."""

    processes_s: float
    machine_s: float

    def since(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.processes_s - earlier.processes_s, self.machine_s - earlier.machine_s)


def read_cpu(pids: Sequence[int]) -> CpuTime:
    """Raises FileNotFoundError when one of the processes is gone: a dead tunnel must not look cheap."""
    ticks = sum(process_ticks(Path(f"/proc/{pid}/stat").read_text()) for pid in pids)
    return CpuTime(ticks / TICKS_PER_S, machine_ticks(Path("/proc/stat").read_text()) / TICKS_PER_S)


def read_memory(pid: int) -> Memory:
    """Raises FileNotFoundError when the process is gone."""
    return rollup_memory(Path(f"/proc/{pid}/smaps_rollup").read_text())


def process_ticks(stat: str) -> int:
    """User and system time from the text of ``/proc/PID/stat``, in clock ticks.

    The command name that precedes them there may hold spaces and parentheses.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def machine_ticks(stat: str) -> int:
    """Busy time of all cores together from the text of ``/proc/stat``, in clock ticks."""
    columns = stat.partition("\n")[0].split()[1:]
    return sum(int(columns[index]) for index in _BUSY_COLUMNS)


def rollup_memory(rollup: str) -> Memory:
    """Parse ``/proc/PID/smaps_rollup``. Raises KeyError when it lacks Rss or Pss."""
    sizes: dict[str, int] = {}
    for line in rollup.splitlines()[1:]:
        name, _, size = line.partition(":")
        sizes[name] = int(size.split()[0]) * 1024
    return Memory(sizes["Rss"], sizes["Pss"])
