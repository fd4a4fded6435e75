"""The timestamp floor only rises, is on disk before it is used, and survives damage."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from warren.engine.userspace.timestamps import RESERVE_NS, WRITER_NAME, TimestampFloor, raise_floor
from warren.errors import OperationFailed

NOW = 1_700_000_000 * 10**9


def test_a_fresh_directory_has_no_floor(tmp_path: Path) -> None:
    assert TimestampFloor(tmp_path / "state").floor_ns == 0


def test_what_was_used_lies_at_or_below_the_floor_of_the_next_start(tmp_path: Path) -> None:
    floor = TimestampFloor(tmp_path)
    used = [NOW, NOW + 1, NOW + RESERVE_NS, NOW + 3 * RESERVE_NS]
    for timestamp in used:
        floor.use(timestamp)
        assert TimestampFloor(tmp_path).floor_ns >= timestamp


def test_a_clock_that_jumped_back_does_not_lower_the_floor(tmp_path: Path) -> None:
    TimestampFloor(tmp_path).use(NOW + 10**18)
    raised = TimestampFloor(tmp_path).floor_ns
    TimestampFloor(tmp_path).use(NOW)
    assert TimestampFloor(tmp_path).floor_ns == raised > NOW + 10**18 - 1


def test_a_floor_is_written_once_for_many_uses(tmp_path: Path) -> None:
    floor = TimestampFloor(tmp_path)
    floor.use(NOW)
    first = (tmp_path / "timestamp-floor").stat().st_mtime_ns
    for step in range(1000):
        floor.use(NOW + step)
    assert (tmp_path / "timestamp-floor").stat().st_mtime_ns == first


@pytest.mark.parametrize("damage", [b"", b"12x", b"-5\n", b"9" * 40, b"\xff\x00"])
def test_a_damaged_file_is_put_aside_and_said_so(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timestamp-floor").write_bytes(damage)
    assert TimestampFloor(tmp_path).floor_ns == 0
    assert (tmp_path / "timestamp-floor.corrupt").read_bytes() == damage
    assert "was damaged" in caplog.text


def test_every_step_to_disk_is_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(fd: int) -> None:
        steps.append("fsync")
        real_fsync(fd)

    def rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return real_rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    raise_floor(tmp_path / "timestamp-floor", NOW)
    assert steps == ["fsync", "rename", "fsync"]


def test_the_file_is_for_the_owner_only(tmp_path: Path) -> None:
    raise_floor(tmp_path / "timestamp-floor", NOW)
    assert (tmp_path / "timestamp-floor").stat().st_mode & 0o777 == 0o600


def test_a_timestamp_that_cannot_be_reserved_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = TimestampFloor(tmp_path)

    def no_space(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", no_space)
    with pytest.raises(OSError, match="No space"):
        floor.use(NOW)
    monkeypatch.undo()
    floor.use(NOW)
    assert TimestampFloor(tmp_path).floor_ns >= NOW


def test_a_directory_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationFailed, match=r"cannot be kept in .*file/state .*STATE_DIRECTORY"):
        TimestampFloor(tmp_path / "file" / "state")


def test_the_next_reservation_is_written_before_the_last_is_used_up(tmp_path: Path) -> None:
    floor = TimestampFloor(tmp_path)
    floor.use(NOW)
    floor.use(NOW + RESERVE_NS * 3 // 4)
    for thread in threading.enumerate():
        if thread.name == WRITER_NAME:
            thread.join(timeout=60)
    assert TimestampFloor(tmp_path).floor_ns == NOW + RESERVE_NS * 3 // 4 + RESERVE_NS
