"""A coordinator that is killed while it writes: what it acknowledged is there, and nothing is half there."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.coordinators import ADMIN_S, URL
from warren.coordinator.conditions import differs
from warren.coordinator.rows import DocumentRow, InviteRow, MemberRow, NetworkRow, PlaceRow, RevokedRow
from warren.coordinator.service import Options, Service
from warren.coordinator.store import open_store
from warren.identity.signing import VerifyKey
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.verified import verify

KILLS = 30
ROOT = Path(__file__).parents[3]


class Writers:
    """One writer after the other, each killed in the middle of its work."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders = process.stdin
        self._said = process.stdout
        self._lines = _lines(process.stdout.fileno())

    def killed(self, path: Path, seed: int, after_s: float) -> list[list[str]]:
        """What a writer acknowledged that was killed so long after it began to write."""
        self._orders.write(f"{path} {seed}\n".encode())
        self._orders.flush()
        ready, pid = next(self._lines)
        assert ready == "ready"
        heard = [next(self._lines)]
        kill_at = time.monotonic() + after_s
        while (left := kill_at - time.monotonic()) > 0:
            if select.select([self._said], [], [], left)[0]:
                heard.append(next(self._lines))
        os.kill(int(pid), signal.SIGKILL)
        return heard + list(iter(lambda: next(self._lines), ["gone"]))


@pytest.fixture
def writers() -> Iterator[Writers]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.coordinator_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/src"},
        start_new_session=True,
    ) as process:
        try:
            yield Writers(process)
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _lines(fd: int) -> Iterator[list[str]]:
    """Whole lines only, split in words, until nobody writes any more."""
    rest = b""
    while True:
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield line.decode().split()
        data = os.read(fd, 65536)
        if not data:
            return
        rest += data


async def check(path: Path, acknowledged: list[list[str]]) -> None:
    service = Service(
        store := await open_store(f"sqlite:///{path}"),
        urls=(URL,),
        wall_clock=time.time,
        random=os.urandom,
        options=Options(first_token_ttl_s=ADMIN_S),
    )
    await service.start()
    async with store.read() as tx:
        (network,) = await tx.find(NetworkRow)
        members = {row.node: row for row in await tx.find(MemberRow)}
        invites = {row.id: row for row in await tx.find(InviteRow)}
        revoked = {row.node for row in await tx.find(RevokedRow)}
        places = await tx.find(PlaceRow)
        documents = await tx.find(DocumentRow, differs("envelope", b""))
        newest = await tx.find(DocumentRow, order="revision", descending=True, limit=1)
    await service.close()
    on_map = {(row.kind, row.subject) for row in documents}
    for what, *words in acknowledged:  # nothing that was acknowledged is lost
        node = VerifyKey.from_text(words[0]).raw if what != "invite" else b""
        if what == "invite":
            assert words[0] in invites
        elif what == "member":
            assert node in members or node in revoked
            assert invites[words[1]].used == 1
        elif what == "record":
            assert ("node", node) in on_map or node in revoked
        elif what == "revoked":
            assert node in revoked
            assert node not in members
    assert {row.subject for row in documents if row.kind == "membership"} == set(members)  # nobody is half a member
    assert {row.node for row in places if row.free_at is None} == set(members)
    joined = Counter(row.invite for row in members.values())
    assert all(row.used <= row.uses for row in invites.values())
    assert all(invites[invite].used == count for invite, count in joined.items())
    assert sum(row.used for row in invites.values()) == len(members) + len(revoked)
    addresses = Counter(row.slot for row in members.values())  # no address twice
    assert not addresses or max(addresses.values()) == 1
    assert {row.slot for row in places} == set(range(1, network.next_slot))
    assert newest[0].revision == network.revision
    for row in documents:
        document = verify(unpack_envelope_untrusted(row.envelope), VerifyKey(network.key)).document
        assert document.version == row.version


@pytest.mark.timeout(240)
def test_a_writer_killed_at_any_moment_loses_nothing_and_leaves_nothing_half_done(
    writers: Writers, tmp_path: Path
) -> None:
    path = tmp_path / "coordinator.db"
    chance = random.Random(20261121)
    acknowledged: list[list[str]] = []
    for round_ in range(KILLS):
        acknowledged += writers.killed(path, round_, chance.uniform(0.0, 0.12))
        asyncio.run(check(path, acknowledged))
    assert {what for what, *_ in acknowledged} >= {"invite", "member", "record", "revoked"}
