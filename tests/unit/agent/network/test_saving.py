"""What a node keeps on disk, when the disk is full or what is there is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent.fakes import (
    settle,
)
from tests.unit.agent.network.pair import Pair, scenario
from warren.errors import OperationFailed


def test_a_disk_that_takes_nothing_is_told_and_stops_no_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(pair: Pair) -> None:
        def full(path: Path, content: bytes) -> None:
            raise OperationFailed(f"{path} cannot be written: No space left on device; the old file is unchanged")

        with monkeypatch.context() as patched:
            patched.setattr("warren.agent.kept.write", full)
            pair.coordinator.enrol(pair.coordinator.authority.verify_key, "c")
            await pair.time(2)
            assert await pair.passes(pair.a, pair.b)
            status = pair.a.runner.situation.status()
            assert status.state == "degraded"
            assert "No space left" in next(task.reason for task in status.tasks if task.name == "state")
        await pair.time(10)
        assert pair.a.runner.situation.status().state == "up"

    scenario(work, tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign"])
@pytest.mark.parametrize("name", ["settings", "documents"])
def test_damaged_state_is_put_aside_and_the_node_comes_up_again(tmp_path: Path, name: str, damage: str) -> None:
    async def work(pair: Pair) -> None:
        await pair.a.kill()
        (path,) = (tmp_path / "a" / "networks").glob(f"*/{name}")
        data = path.read_bytes()
        damaged = {
            "truncated": data[: len(data) // 2],
            "flipped": data[:-1] + bytes([data[-1] ^ 1]),
            "empty": b"",
            "foreign": b"something else altogether",
        }
        path.write_bytes(damaged[damage])
        pair.a = await pair.again(pair.a)
        await settle(pair.a, pair.b)
        await pair.time(5)
        assert (path.parent / f"{name}.corrupt-1").exists()
        assert pair.a.runner.situation.status().state == "up"
        assert any("was damaged" in warning for warning in pair.a.runner.situation.status().warnings)
        assert await pair.passes(pair.a, pair.b)

    scenario(work, tmp_path)
