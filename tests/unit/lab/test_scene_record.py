from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.lab.scenes import planned
from warren.errors import OperationFailed
from warren.lab import scene_record
from warren.lab.scene_record import Record, RecordedHost, Records, records

RECORD = Record(1, 2.5, planned(), ready=True, hosts={"alice": RecordedHost(7, {"WARREN_ACCESS": "secret"})})


def test_a_scene_is_found_while_its_process_lives(tmp_path: Path) -> None:
    known = Records(tmp_path)
    assert known.find("example") is None
    with known.claimed("example"):
        assert known.find("example") is None
        known.write(RECORD)
        assert known.find("example") == RECORD
        assert known.names() == ["example"]
    assert known.find("example") is None
    assert not (tmp_path / "example.json").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    known = Records(tmp_path)
    with known.claimed("example"):
        pass
    known.write(RECORD)
    assert known.names() == []
    assert not (tmp_path / "example.json").exists()


def test_a_scene_stands_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_record, "_PAUSE_S", 0)
    known = Records(tmp_path)
    with known.claimed("example"):
        known.write(RECORD)
        with (
            pytest.raises(OperationFailed, match="stands already; `warren lab down example`"),
            known.claimed("example"),
        ):
            pass
        assert known.find("example") == RECORD


def test_the_file_is_for_its_owner_and_its_secrets_are_not_shown(tmp_path: Path) -> None:
    known = Records(tmp_path)
    with known.claimed("example"):
        known.write(RECORD)
        assert (tmp_path / "example.json").stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(RECORD)


def test_a_directory_of_others_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_record.tempfile, "tempdir", str(tmp_path))
    records()
    directory = tmp_path / f"warren-lab-{os.geteuid()}"
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o755)
    with pytest.raises(OperationFailed, match="no directory of yours alone"):
        records()
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(OperationFailed, match="no directory of yours alone"):
        records()
