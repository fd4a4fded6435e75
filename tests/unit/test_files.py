"""State is replaced as a whole or not at all."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from warren.errors import OperationFailed
from warren.files import write_atomically


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.write_bytes(b"old")
    path.chmod(0o644)
    return path


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def test_writing_replaces_the_file_that_a_link_leads_to(tmp_path: Path, old: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    write_atomically(link, b"new")
    assert old.read_bytes() == b"new"
    assert old.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert names(tmp_path) == ["link", "state"]


def test_a_failed_write_leaves_the_old_file_and_no_other(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OperationFailed, match="No space left on device; the old file is unchanged"):
        write_atomically(old, b"new")
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["state"]


def test_a_write_that_stops_halfway_leaves_the_old_file_and_no_other(old: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OperationFailed, match="File too large; the old file is unchanged"):
            write_atomically(old, bytes(1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert old.read_bytes() == b"old"
    assert names(old.parent) == ["state"]


def test_a_file_is_on_disk_before_it_takes_its_name(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, bytes]] = []
    sync = os.fsync

    def watch(fd: int) -> None:
        steps.append((Path(f"/proc/self/fd/{fd}").readlink().name, old.read_bytes()))
        sync(fd)

    monkeypatch.setattr(os, "fsync", watch)
    write_atomically(old, b"new")
    assert steps == [(f".state.{os.getpid()}.new", b"old"), (old.parent.name, b"new")]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(old: Path) -> None:
    old.with_name(f".state.{os.getpid()}.new").write_bytes(b"half")
    write_atomically(old, b"new")
    assert old.read_bytes() == b"new"
    assert names(old.parent) == ["state"]
