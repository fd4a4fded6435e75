"""``python -m benchmarks.coordinator``: one coordinator and thousands of nodes, all on this machine, over loopback.

The coordinator is the real program; nodes are real TLS and WebSocket connections that sign real proofs, many to a
process (:mod:`benchmarks.coordinator_swarm`). Ends with status 0, or 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from benchmarks.coordinator_report import load, page, table
from benchmarks.coordinator_server import CoordinatorProcess, coordinator
from benchmarks.machine import describe_machine
from benchmarks.tables import aligned
from warren.api.rest import AdminClient
from warren.errors import WarrenError
from warren.model.documents import Rule
from warren.model.tickets import read_access, read_ticket
from warren.proto.control.administration import ApplyRequest, DesiredState, InviteRequest, MemberChange, NetworkRequest

REPEATS: Final = 20
PROCESSES: Final = 2
CONCURRENCY: Final = 64
"""Joins under way at once, of each process: the next begins when one is done."""
IDLE_S: Final = 10.0
WHOLE_NODES_MAX: Final = 1000
"""All nodes fetching the whole map at once is measured up to here: it is N copies of N documents."""
ORDER_WITHIN_S: Final = 600.0
_ANSWER_BYTES_MAX = 16 << 20
_NETWORK = "bench"
_DOCS = Path(__file__).resolve().parent.parent / "docs"


class Swarms:
    """The processes that hold the nodes."""

    def __init__(self, nodes: int, setup: dict[str, Any]) -> None:
        self.cpu_s = 0.0
        """Of all processes, when it was last asked for."""
        edges = [nodes * n // PROCESSES for n in range(PROCESSES + 1)]
        self._shares = [{**setup, "first": first, "nodes": last - first} for first, last in pairwise(edges)]
        self._processes: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        for share in self._shares:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "benchmarks.coordinator_swarm",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_ANSWER_BYTES_MAX,
            )
            self._processes.append(process)
            await self._tell(process, share)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            await process.wait()

    async def order(self, do: str, **arguments: Any) -> list[dict[str, Any]]:
        """Have all processes do it at once; their answers."""
        orders = [self._tell(process, {"do": do, **arguments}) for process in self._processes]
        answers = await asyncio.wait_for(asyncio.gather(*orders), ORDER_WITHIN_S)
        for answer in answers:
            if "failed" in answer:
                raise WarrenError(f"{do}: {answer['failed']} ({answer['errors']})")
        return answers

    async def received(self) -> list[int]:
        """Bytes that each node received since the last time. Notes :attr:`cpu_s`, too."""
        answers = await self.order("count")
        self.cpu_s = sum(answer["cpu_s"] for answer in answers)
        return [count for answer in answers for count in answer["received"]]

    @staticmethod
    async def _tell(process: asyncio.subprocess.Process, order: dict[str, Any]) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("asked for pipes")
        process.stdin.write(json.dumps(order).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise WarrenError("a process of nodes has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Measurement:
    """One network of ``nodes`` on ``database``, from the first join to the restart. ``figures`` have their units in
    their names.
    """

    def __init__(self, nodes: int, database: str, repeats: int) -> None:
        self.figures: dict[str, float] = {}
        self._nodes = nodes
        self._database = database
        self._repeats = repeats

    async def run(self) -> dict[str, Any]:
        with coordinator(self._database) as server:
            ready = server.start()
            access = read_access(ready["access"])
            self.figures["rss_empty_bytes"] = server.rss_bytes()
            async with AdminClient(access) as admin:
                network = await admin.create_network(NetworkRequest(name=_NETWORK))
                invite = await admin.create_invite(_NETWORK, InviteRequest(uses=self._nodes))
                setup = {
                    "url": server.url,
                    "coordinator": str(access.key),
                    "network": network.id,
                    "secret": read_ticket(invite.ticket, time.time()).document.secret.hex(),
                }
                async with Swarms(self._nodes, setup) as swarms:
                    await self._join(server, admin, swarms)
                    await self._idle(server, swarms)
                    await self._map_size(swarms)
                    await self._changes(server, admin, swarms)
                    await self._restart(server, swarms)
                    if self._nodes <= WHOLE_NODES_MAX:
                        await self._whole(server, swarms)
            errors = [line for line in server.log().splitlines() if " error " in line or '"level": "error"' in line]
        return {
            "nodes": self._nodes,
            "database": self._database,
            "repeats": self._repeats,
            "figures": {name: round(value, 6) for name, value in self.figures.items()},
            "errors": errors[:10],
        }

    async def _join(self, server: CoordinatorProcess, admin: AdminClient, swarms: Swarms) -> None:
        cpu_s = server.cpu_s()
        answers = await swarms.order("connect", concurrency=CONCURRENCY, whole=False)
        self._note_storm("join", answers)
        began = min(answer["began"] for answer in answers)
        published = max(answer["ended"] for answer in await swarms.order("publish"))
        revision = (await admin.network(_NETWORK)).revision
        times = await self._reached(swarms, revision)
        received = await swarms.received()
        self.figures["join_published_s"] = published - began
        self.figures["join_converged_s"] = max(times) - began
        self.figures["join_cpu_s"] = server.cpu_s() - cpu_s
        self.figures["join_swarm_cpu_s"] = swarms.cpu_s
        self.figures["join_bytes_per_node"] = statistics.mean(received)

    async def _idle(self, server: CoordinatorProcess, swarms: Swarms) -> None:
        await asyncio.sleep(IDLE_S / 2)
        cpu_s, began = server.cpu_s(), time.monotonic()
        await swarms.received()
        await asyncio.sleep(IDLE_S)
        self.figures["idle_cpu_percent"] = 100 * (server.cpu_s() - cpu_s) / (time.monotonic() - began)
        self.figures["idle_bytes_per_node"] = statistics.mean(await swarms.received())
        self.figures["rss_idle_bytes"] = server.rss_bytes()

    async def _map_size(self, swarms: Swarms) -> None:
        """One node of each process fetches the whole map."""
        await swarms.order("drop", most=1)
        await swarms.received()
        await swarms.order("connect", concurrency=1, whole=True)
        await self._settle()
        self.figures["map_bytes"] = max(await swarms.received())

    async def _changes(self, server: CoordinatorProcess, admin: AdminClient, swarms: Swarms) -> None:
        members = await admin.members(_NETWORK)
        member = members[len(members) // 2]

        async def rename(number: int) -> None:
            await admin.change_member(_NETWORK, member.id, MemberChange(name=f"renamed-{number}"))

        state = await admin.desired_state(_NETWORK)

        async def apply(number: int) -> None:
            rule = Rule(action="deny", sources=("members",), destinations=("members",), protocol="tcp", ports=("22",))
            policy = (rule,) * (1 + number % 2) + state.policy
            await admin.apply(_NETWORK, ApplyRequest(state=DesiredState(policy=policy)))

        for name, change in (("rename", rename), ("policy", apply)):
            await self._one_kind_of_change(name, change, server, admin, swarms)

    async def _one_kind_of_change(
        self, name: str, change: Any, server: CoordinatorProcess, admin: AdminClient, swarms: Swarms
    ) -> None:
        """``first``: until the first node has it; ``last``: until the last one has."""
        first, middle, last, cpu_s, least, most = [], [], [], [], [], []
        for number in range(self._repeats):
            await self._settle()
            await swarms.received()
            cpu_before, began = server.cpu_s(), time.monotonic()
            await change(number)
            revision = (await admin.network(_NETWORK)).revision
            times = await self._reached(swarms, revision)
            cpu_s.append(server.cpu_s() - cpu_before)
            received = await swarms.received()
            first.append(min(times) - began)
            middle.append(statistics.median(times) - began)
            last.append(max(times) - began)
            least.append(min(received))
            most.append(max(received))
        self.figures[f"{name}_first_p50_s"] = statistics.median(first)
        self.figures[f"{name}_middle_p50_s"] = statistics.median(middle)
        self.figures[f"{name}_last_p50_s"] = statistics.median(last)
        self.figures[f"{name}_last_p99_s"] = percentile(last, 99)
        self.figures[f"{name}_cpu_s"] = statistics.mean(cpu_s)
        self.figures[f"{name}_bytes_min"] = statistics.median(least)
        self.figures[f"{name}_bytes_max"] = statistics.median(most)

    async def _restart(self, server: CoordinatorProcess, swarms: Swarms) -> None:
        """The coordinator is restarted, and everybody comes back at once, knowing its map."""
        began = time.monotonic()
        server.stop()
        await swarms.order("lost")
        self.figures["restart_stop_s"] = time.monotonic() - began
        began = time.monotonic()
        server.start()
        self.figures["restart_start_s"] = time.monotonic() - began
        await swarms.received()
        cpu_s = server.cpu_s()
        answers = await swarms.order("connect", concurrency=CONCURRENCY, whole=False)
        self._note_storm("reconnect", answers)
        await self._settle()
        self.figures["reconnect_cpu_s"] = server.cpu_s() - cpu_s
        received = await swarms.received()
        self.figures["reconnect_bytes_per_node"] = statistics.mean(received)
        self.figures["reconnect_bytes_max"] = max(received)
        self.figures["rss_reconnected_bytes"] = server.rss_bytes()

    async def _whole(self, server: CoordinatorProcess, swarms: Swarms) -> None:
        """Everybody comes back without a map."""
        await swarms.order("drop", most=self._nodes)
        await self._settle()
        await swarms.received()
        cpu_s = server.cpu_s()
        answers = await swarms.order("connect", concurrency=CONCURRENCY, whole=True)
        began = min(answer["began"] for answer in answers)
        times = await self._reached(swarms, 1)
        self.figures["whole_s"] = max(times) - began
        self.figures["whole_cpu_s"] = server.cpu_s() - cpu_s
        self.figures["whole_bytes_per_node"] = statistics.mean(await swarms.received())
        self.figures["rss_whole_bytes"] = server.rss_bytes()

    def _note_storm(self, name: str, answers: list[dict[str, Any]]) -> None:
        latencies = [latency for answer in answers for latency in answer["latencies"]]
        seconds = max(answer["ended"] for answer in answers) - min(answer["began"] for answer in answers)
        self.figures[f"{name}_s"] = seconds
        self.figures[f"{name}_per_s"] = len(latencies) / seconds
        self.figures[f"{name}_p50_s"] = statistics.median(latencies)
        self.figures[f"{name}_p99_s"] = percentile(latencies, 99)
        self.figures[f"{name}_attempts_failed"] = sum(sum(answer["errors"].values()) for answer in answers)

    @staticmethod
    async def _reached(swarms: Swarms, revision: int) -> list[float]:
        """When each node had the map of ``revision``."""
        return [at for answer in await swarms.order("watch", revision=revision) for at in answer["times"]]

    @staticmethod
    async def _settle() -> None:
        await asyncio.sleep(0.3)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < max(options.nodes) + 256:
        print(f"error: {max(options.nodes)} nodes need as many open files; `ulimit -Hn` says {hard}", file=sys.stderr)
        return 1
    run: dict[str, Any] = {"machine": describe_machine(), "measurements": []}
    run["machine"].pop("iperf3", None)
    run["settings"] = {"processes": PROCESSES, "concurrency": CONCURRENCY, "repeats": options.repeats}
    failed = False
    for database in options.database:
        for nodes in options.nodes:
            print(f"{nodes} nodes, {database} …", file=sys.stderr, flush=True)
            try:
                measured = asyncio.run(Measurement(nodes, database, options.repeats).run())
            except (WarrenError, TimeoutError, OSError) as error:
                print(f"failed: {nodes} nodes, {database}: {type(error).__name__}: {error}", file=sys.stderr)
                failed = True
                continue
            run["measurements"].append(measured)
            print(msgspec.json.format(msgspec.json.encode(measured)).decode(), file=sys.stderr, flush=True)
    if run["measurements"]:
        print(aligned(table(run)))
        _write(run, options)
    return 1 if failed else 0


def _write(run: dict[str, Any], options: argparse.Namespace) -> None:
    text = json.dumps(run, indent=1) + "\n"
    if options.json:
        options.json.write_text(text)
    if options.publish:
        path = _DOCS / "benchmarks" / "coordinator.json"
        path.write_text(text)
        document = _DOCS / "benchmarks-coordinator.md"
        document.write_text(page(document.read_text(), load(path)))
        print(f"written: {path}, {document}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coordinator", description=__doc__)
    parser.add_argument("--nodes", type=_numbers, default=[1000], help="how many; several, separated by commas")
    parser.add_argument(
        "--database", type=_databases, default=["sqlite"], help="sqlite or postgresql, or both, separated by a comma"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"changes of each kind (default {REPEATS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured to FILE")
    parser.add_argument("--publish", action="store_true", help="rewrite the figures in docs/")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in text.split(",")]
    if min(numbers) < PROCESSES:
        raise argparse.ArgumentTypeError(f"at least {PROCESSES}")
    return numbers


def _databases(text: str) -> list[str]:
    names = text.split(",")
    if set(names) - {"sqlite", "postgresql"}:
        raise argparse.ArgumentTypeError("sqlite or postgresql")
    return names


if __name__ == "__main__":
    sys.exit(main())
