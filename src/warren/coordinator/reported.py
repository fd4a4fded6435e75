"""What members last said of what their network asks of them, for those who asked for it (R12)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from warren.coordinator.conditions import equal
from warren.coordinator.core import Core
from warren.coordinator.rows import ReportRow, SessionRow
from warren.coordinator.sessions import Sessions, living
from warren.coordinator.work import Work
from warren.model.members import Member
from warren.proto.control.administration import Hindrance
from warren.proto.control.messages import Task

SHOWN_MAX: Final = 32
"""Members of one entry; beyond them the count will do."""
_AWAY: Final = "it is not connected to the coordinator: is its agent running, and does it reach the coordinator?"
_SILENT: Final = "it has not said yet how it stands: look again in a moment"
_PENDING: Final = "it is still setting that up: look again in a moment"


class _Tasks(msgspec.Struct, frozen=True):
    """All of a report that is of interest here."""

    tasks: tuple[Task, ...] = ()


class Standing(NamedTuple):
    """How one task stands: how many members have done it, and who has not."""

    done: int
    hindered: tuple[Hindrance, ...]


class Reported:
    """Of one network, of one moment."""

    def __init__(self, connected: Collection[bytes], reports: Mapping[bytes, bytes]) -> None:
        """``reports`` are Report messages, by node."""
        self._connected = connected
        self._reports = reports
        self._tasks: dict[bytes, dict[str, Task]] = {}

    @classmethod
    async def of(cls, work: Work, core: Core, sessions: Sessions, network: bytes) -> Reported:
        reports = {row.node: row.report for row in await work.find(ReportRow, equal("network", network))}
        reports |= {node: row.report for (of, node), row in sessions.reports.items() if of == network}
        return cls(await _connected(work, core, network), reports)

    @classmethod
    async def of_what_is_new(cls, work: Work, core: Core, network: bytes) -> Reported:
        """Nobody has heard of it yet: what members said of something of its name was there before."""
        return cls(await _connected(work, core, network), {})

    def standing(self, task: str, members: Sequence[Member]) -> Standing:
        """Of the ``task`` of that name, which those ``members`` have."""
        found = [self._hindrance(task, member) for member in sorted(members, key=lambda one: one.name)]
        hindered = [one for one in found if one is not None]
        hindered.sort(key=lambda one: one.state != "failed")  # what there is to repair comes first
        return Standing(len(found) - len(hindered), tuple(hindered[:SHOWN_MAX]))

    def _hindrance(self, name: str, member: Member) -> Hindrance | None:
        node = member.membership.node
        if node not in self._connected:
            return Hindrance(member=member.name, state="away", reason=_AWAY)
        task = self._tasks_of(node).get(name)
        if task is None:
            return Hindrance(member=member.name, state="pending", reason=_SILENT)
        if task.state == "done":
            return None
        return Hindrance(member=member.name, state=task.state, reason=task.reason or _PENDING)

    def _tasks_of(self, node: bytes) -> dict[str, Task]:
        if node not in self._tasks:
            report = self._reports.get(node)
            tasks = () if report is None else msgspec.msgpack.decode(report, type=_Tasks).tasks
            self._tasks[node] = {task.name: task for task in tasks}
        return self._tasks[node]


async def _connected(work: Work, core: Core, network: bytes) -> frozenset[bytes]:
    alive = await living(work, core)
    rows = await work.find(SessionRow, equal("network", network))
    return frozenset(row.node for row in rows if row.replica in alive)
