"""The side that tunnels end in: the helper is replaced when it dies, leftovers of another engine are ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from warren.agent import inside as module
from warren.agent.inside import Inside, check_private, end_behind, end_nest, keep
from warren.agent.places import Places
from warren.errors import OperationFailed
from warren.l4.overlay import HostSockets
from warren.linux.netlink_memory import MemoryNetlink
from warren.linux.nft import MemoryNft
from warren.linux.sysctl import MemorySysctls

LISTENER = """
import signal, socket, sys
if sys.argv[2:] == ["stubborn"]: signal.signal(signal.SIGTERM, signal.SIG_IGN)
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("ready", flush=True)
signal.pause() if sys.argv[2:] != ["stubborn"] else [signal.pause() for _ in iter(int, 1)]
"""


class FakeNest:
    """Its helper ends when told to, and cannot be started a given number of times."""

    def __init__(self, refusals: int) -> None:
        self.pid = 1
        self.ended = asyncio.Event()
        self.refusals = refusals

    async def wait_closed(self) -> None:
        await self.ended.wait()

    async def revive(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OperationFailed("no more processes for this user")
        self.pid += 1
        self.ended.clear()


def inside_of(healed: Callable[[], None]) -> Inside:
    unused: Any = None
    return Inside(MemoryNetlink(), MemoryNft(), MemorySysctls(), HostSockets(), unused, unused, unused, healed=healed)


@pytest.mark.logs_errors
@pytest.mark.parametrize("refusals", [0, 3])
def test_a_helper_that_dies_is_replaced_and_the_agent_is_told(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    monkeypatch.setattr(module, "AGAIN_FIRST_S", 0.001)
    troubles: list[str] = []

    async def scenario() -> None:
        nest: Any = FakeNest(refusals)
        healed = asyncio.Event()
        inside = inside_of(healed.set)
        keeper = asyncio.create_task(keep(nest, inside))
        for pid in (2, 3):
            nest.refusals = refusals
            nest.ended.set()
            async with asyncio.timeout(10):
                while not healed.is_set():
                    await asyncio.sleep(0)
                    troubles.append(inside.trouble)
            assert (nest.pid, inside.trouble) == (pid, "")
            healed.clear()
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    asyncio.run(scenario())
    if refusals:
        assert any("cannot be started again: no more processes" in trouble for trouble in troubles)


def listener(path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", LISTENER, str(path), *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("arguments", [(), ("stubborn",)])
def test_whoever_listens_on_a_socket_is_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, "_ENDED_WITHIN_S", 0.2 if arguments else 40.0)
    process = listener(tmp_path / "a.sock", *arguments)
    assert asyncio.run(end_behind(tmp_path / "a.sock"))
    assert process.wait(40) == (-signal.SIGKILL if arguments else -signal.SIGTERM)
    assert not asyncio.run(end_behind(tmp_path / "a.sock"))
    assert not asyncio.run(end_behind(tmp_path / "missing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a process of another user")
def test_the_process_of_another_user_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = listener(tmp_path / "a.sock")
    try:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert not asyncio.run(end_behind(tmp_path / "a.sock"))
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(40)


def test_what_a_killed_rootless_agent_has_left_is_ended_and_removed(tmp_path: Path) -> None:
    where = Places(tmp_path / "state", tmp_path)
    asyncio.run(end_nest(where))  # nothing is there, nothing is done
    where.planes.mkdir()
    where.resolv_conf.write_text("nameserver fd00::1\n")
    places = [where.nest, where.planes / "w-home.sock", tmp_path / module.STREAMS_SOCKET]
    left = [listener(path) for path in places]
    asyncio.run(end_nest(where))
    assert [process.wait(40) for process in left] == [-signal.SIGTERM] * 3
    assert not any(path.exists() for path in (*places[:2], where.resolv_conf))


def test_a_run_directory_that_others_may_write_in_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    check_private(tmp_path)
    for mode in (0o770, 0o755, 0o1777):
        tmp_path.chmod(mode)
        with pytest.raises(OperationFailed, match="is open to other users: `chmod 700"):
            check_private(tmp_path)
        assert tmp_path.stat().st_mode & 0o7777 == mode
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(OperationFailed, match="another user's directory"):
        check_private(tmp_path)


def test_streams_of_a_node_that_was_not_rootless_go_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as streams:
        streams.bind(str(tmp_path / module.STREAMS_SOCKET))
        streams.listen()
        asyncio.run(end_nest(Places(tmp_path / "state", tmp_path)))  # it would end this very process
