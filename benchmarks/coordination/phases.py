"""The phases of a trial, one after another on the same coordinator and nodes. What is cut off is said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import msgspec

from benchmarks.coordination.crew import Crew, crew
from benchmarks.coordination.figures import Trial, percentile, spread
from benchmarks.coordination.server import NETWORK, Coordinator, coordinator
from warren.api.rest import AdminClient
from warren.errors import OperationFailed, WarrenError
from warren.model.documents import Rule
from warren.model.tickets import read_access, read_ticket
from warren.proto.control.administration import InviteRequest, MemberChange
from warren.proto.control.desired_state import ApplyRequest

QUIET_S = 3.0
"""Between a phase that was busy and the next."""
FRESH_MAPS = 10
RULES = 20
TAGS = ("database", "web")


@dataclass(frozen=True)
class Settings:
    processes: int
    at_once: int
    repeats: int
    idle_s: float
    within_s: float
    """What each phase may take at most; of changes, each of them."""


class Session:
    """One trial while it runs."""

    def __init__(
        self, trial: Trial, settings: Settings, server: Coordinator, workers: Crew, client: AdminClient
    ) -> None:
        self._trial = trial
        self._settings = settings
        self._server = server
        self._workers = workers
        self._client = client
        self._rss_before = 0
        self._renamed = ""
        self._idle_share = 0.0

    async def run(self) -> None:
        """All phases; a failure ends the trial, and what was measured before stays."""
        phases: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "join": self._join,
            "map": self._map,
            "idle": self._idle,
            "change_rename": partial(self._changes, "change_rename", self._rename),
            "change_policy": partial(self._changes, "change_policy", self._apply),
            "change_record": partial(self._changes, "change_record", self._publish),
            "restart": self._restart,
        }
        self._rss_before = self._server.rss_bytes()
        for name, phase in phases.items():
            print(f"  {name} …", end="", flush=True)
            began = time.monotonic()
            try:
                self._trial.figures[name] = await phase()
            except WarrenError as error:
                self._trial.unfinished[name] = str(error)
            print(f" {time.monotonic() - began:.1f} s {self._trial.unfinished.get(name, '')}", flush=True)
            if name == "join" and name in self._trial.unfinished:
                return  # the others would measure something else
            await asyncio.sleep(QUIET_S)

    # Phases

    async def _join(self) -> dict[str, Any]:
        settings, count = self._settings, self._workers.count
        cpu_before = self._server.cpu_s()
        at_once = max(1, settings.at_once // settings.processes)
        answers = await self._workers.all("join", settings.within_s, at_once=at_once)
        began = min(answer["began"] for answer in answers)
        mapped = [at for answer in answers for at in answer["mapped"]]
        latencies = [one for answer in answers for one in answer["latencies"]]
        failures = _sums(answers)
        figures = {
            "per_s": len(mapped) / (max(mapped, default=began + 1) - began),
            **spread(latencies),
            "failed_attempts": sum(failures.values()),
            "failures": failures,
        }
        if len(mapped) < count:
            self._trial.unfinished["join"] = f"{len(mapped):,} of {count:,} joined in {settings.within_s:.0f} s"
        published = sum(one["published"] for one in await self._workers.all("published", settings.within_s))
        revision = (await self._client.network(NETWORK)).revision
        reached = [
            at
            for one in await self._workers.all("settled", settings.within_s, revision=revision)
            for at in one["reached"]
        ]
        if len(reached) < count or published < count:
            self._trial.unfinished["join"] = (
                f"{published:,} records were stored and {len(reached):,} of {count:,} nodes had all of them in time"
            )
        else:
            figures["settled_s"] = max(reached) - began
        counts = await self._counts()
        return figures | {
            "cpu_ms_per_node": (self._server.cpu_s() - cpu_before) * 1e3 / count,
            "rss_bytes": self._server.rss_bytes(),
            "wire_bytes_per_node": counts["wire_bytes"] / count,
            "update_bytes_per_node": counts["update_bytes"] / count,
            "updates_per_node": counts["updates"] / count,
            "documents_per_node": counts["documents"] / count,
            "workers_cpu_s": counts["cpu_s"],
        }

    async def _map(self) -> dict[str, Any]:
        count = self._workers.count
        taken = []
        for number in range(min(FRESH_MAPS, count)):
            node = number * count // FRESH_MAPS if count >= FRESH_MAPS else number
            taken.append(await self._workers.one(node, "renew", self._settings.within_s))
        complete = [one for one in taken if one["mapped"]]
        if len(complete) < len(taken):
            raise OperationFailed(f"{len(complete)} of {len(taken)} nodes got a whole map in time")
        size = median(one["bytes"] for one in complete)
        return {
            "bytes": size,
            "bytes_per_member": size / count,
            "documents": median(one["documents"] for one in complete),
            "wire_bytes": median(one["wire_bytes"] for one in complete),
            **spread([one["took_s"] for one in complete]),
            "database_bytes": self._server.database_bytes(),
        }

    async def _idle(self) -> dict[str, Any]:
        cpu, before, began = self._server.cpu_s(), await self._counts(), time.monotonic()
        await asyncio.sleep(self._settings.idle_s)
        took = time.monotonic() - began
        self._idle_share = (self._server.cpu_s() - cpu) / took
        after = await self._counts()
        rss = self._server.rss_bytes()
        return {
            "rss_bytes": rss,
            "rss_bytes_without_nodes": self._rss_before,
            "rss_bytes_per_node": (rss - self._rss_before) / self._workers.count,
            "cpu_share": self._idle_share,
            "connected": after["open"],
            "connections_lost": after["connections"] - before["connections"],
            "wire_bytes_per_node_s": (after["wire_bytes"] - before["wire_bytes"]) / self._workers.count / took,
            "updates": after["updates"] - before["updates"],
        }

    async def _changes(self, name: str, change: Callable[[int], Awaitable[float]]) -> dict[str, Any]:
        """``change`` does it and tells when it began. CPU and bytes are without what idling takes in that time."""
        settings, count = self._settings, self._workers.count
        last: list[float] = []
        each: list[float] = []
        cpu: list[float] = []
        wire: list[float] = []
        payload: list[float] = []
        updates = 0.0
        for number in range(settings.repeats):
            before = await self._counts()
            revision = max(one["revision"] for one in await self._workers.all("settled", 0.0, revision=0))
            cpu_before, started = self._server.cpu_s(), time.monotonic()
            began = await change(number)
            answers = await self._workers.all("settled", settings.within_s, revision=revision + 1)
            cpu.append(self._server.cpu_s() - cpu_before - self._idle_share * (time.monotonic() - started))
            reached = [at for answer in answers for at in answer["reached"]]
            if len(reached) < count:
                self._trial.unfinished[name] = (
                    f"change {number + 1} reached {len(reached):,} of {count:,} nodes in time"
                )
                break
            after = await self._counts()
            wire.append((after["wire_bytes"] - before["wire_bytes"]) / count)
            payload.append((after["update_bytes"] - before["update_bytes"]) / count)
            updates += after["updates"] - before["updates"]
            last.append(max(reached) - began)
            each += [at - began for at in reached]
            await asyncio.sleep(0.2)
        if not last:
            raise OperationFailed("no change reached all nodes in time")
        return {
            "repeats": len(last),
            "last_p50_s": median(last),
            "last_p99_s": percentile(last, 0.99),
            "each_p50_s": median(each),
            "each_p99_s": percentile(each, 0.99),
            "wire_bytes_per_node": median(wire),
            "update_bytes_per_node": median(payload),
            "updates_per_node": updates / count / len(last),
            "cpu_ms": median(cpu) * 1e3,
            "cpu_us_per_node": median(cpu) * 1e6 / count,
        }

    async def _rename(self, number: int) -> float:
        members = await self._client.members(NETWORK) if not number else ()
        if members:
            self._renamed = members[0].id
        began = time.monotonic()
        await self._client.change_member(NETWORK, self._renamed, MemberChange(name=f"renamed-{number}"))
        return began

    async def _apply(self, number: int) -> float:
        state = await self._client.desired_state(NETWORK)
        policy = tuple(
            Rule(
                action="allow",
                sources=("tag:web",),
                destinations=("tag:database",),
                protocol="tcp",
                ports=(str(5000 + rule),),
                comment=f"change {number}, rule {rule}",
            )
            for rule in range(RULES)
        )
        began = time.monotonic()
        await self._client.apply(NETWORK, ApplyRequest(state=msgspec.structs.replace(state, policy=policy)))
        return began

    async def _publish(self, number: int) -> float:
        node = number * self._workers.count // max(1, self._settings.repeats)
        answer = await self._workers.one(node, "publish", self._settings.within_s)
        if not answer["stored"]:
            raise OperationFailed("a record was not stored in time")
        return float(answer["began"])

    async def _restart(self) -> dict[str, Any]:
        settings, count = self._settings, self._workers.count
        async with self._client:
            pass  # lets go of its connection, which the coordinator would wait for
        before = await self._counts()
        stopped = time.monotonic()
        await self._server.stop()
        down = time.monotonic()
        await self._server.start()
        serving, cpu_before = time.monotonic(), self._server.cpu_s()
        answers = await self._workers.all("back", settings.within_s, after=stopped)
        opened = sorted(at - serving for answer in answers for at in answer["opened"])
        if len(opened) < count:
            self._trial.unfinished["restart"] = f"{len(opened):,} of {count:,} were back in {settings.within_s:.0f} s"
        failures = _sums(answers)
        after = await self._counts()
        return {
            "stopping_s": down - stopped,
            "serving_s": serving - stopped,
            "half_s": median(opened) if opened else float("nan"),
            "all_s": max(opened) if len(opened) == count else float("nan"),
            "failed_attempts": sum(failures.values()),
            "failures": failures,
            "cpu_ms_per_node": (self._server.cpu_s() - cpu_before) * 1e3 / count,
            "documents": after["documents"] - before["documents"],
            "updates": after["updates"] - before["updates"],
            "wire_bytes_per_node": (after["wire_bytes"] - before["wire_bytes"]) / count,
            "rss_bytes": self._server.rss_bytes(),
        }

    async def _counts(self) -> dict[str, float]:
        answers = await self._workers.all("counts")
        return {name: sum(answer[name] for answer in answers) for name in answers[0]}


async def measure(trial: Trial, settings: Settings) -> None:
    """Run a trial; its figures go into ``trial`` as they come. Nothing is left behind."""
    async with coordinator(trial.database) as server:
        ready = await server.start()
        async with AdminClient(read_access(ready["access"])) as client:
            invite = await client.create_invite(NETWORK, InviteRequest(uses=trial.nodes, tags=TAGS))
            ticket = read_ticket(invite.ticket, time.time()).document
            setup = {
                "url": server.url,
                "coordinator": ready["key"],
                "network": (await client.network(NETWORK)).id,
                "secret": ticket.secret.hex(),
            }
            try:
                async with crew(trial.nodes, settings.processes, setup) as workers:
                    await Session(trial, settings, server, workers, client).run()
            except WarrenError as error:
                trial.unfinished["trial"] = str(error)
        loud = [line for line in server.log().splitlines() if '"level":"info"' not in line.replace(" ", "").lower()]
        if loud:
            trial.figures["log"] = {"lines": len(loud), "first": loud[0][:300]}


def _sums(answers: list[dict[str, Any]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for answer in answers:
        for why, count in answer["failures"].items():
            sums[why] = sums.get(why, 0) + count
    return sums
