"""What is on disk: kept whole, private, locked; damaged files put aside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.agent.fakes import FakeCoordinator, signing_key
from warren.agent import kept
from warren.agent.state import NetworkState, Settings, locked, networks
from warren.errors import OperationFailed

NETWORK = FakeCoordinator().key


def test_settings_and_documents_come_back(tmp_path: Path) -> None:
    coordinator = FakeCoordinator()
    envelopes = tuple(coordinator.documents.values())
    state = NetworkState(tmp_path, NETWORK)
    settings = Settings(name="home", listen_port=4711, coordinators=coordinator.coordinators, claims=("10.0.0.0/8",))
    state.write(settings)
    state.write_documents(7, envelopes)
    again = NetworkState(tmp_path, NETWORK)
    assert again.settings == settings
    assert again.documents() == (7, envelopes)
    assert again.warnings == []
    assert networks(tmp_path) == (NETWORK,)


def test_nothing_is_readable_for_others(tmp_path: Path) -> None:
    state = NetworkState(tmp_path / "state", NETWORK)
    state.write(Settings(name="home"))
    for path in [tmp_path / "state", *(tmp_path / "state").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0


def test_settings_that_did_not_change_are_not_written_again(tmp_path: Path) -> None:
    state = NetworkState(tmp_path, NETWORK)
    state.write(Settings(name="home"))
    (path,) = tmp_path.glob("networks/*/settings")
    before = path.stat().st_ino
    state.write(Settings(name="home"))
    assert path.stat().st_ino == before


def test_a_file_damaged_anywhere_is_put_aside(tmp_path: Path) -> None:
    """Truncated to each length and with each byte flipped: never used, never a crash, never lost."""
    path = tmp_path / "file"
    kept.write(path, b"what counts")
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ 0x40]) + whole[i + 1 :] for i in range(len(whole))]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(kept.Damaged, match="was damaged; it is kept as"):
            kept.read(path)
        assert not path.exists()
    assert len(list(tmp_path.glob("file.corrupt-*"))) == 8
    assert kept.read(path) is None


def test_documents_whose_checksum_is_right_but_which_are_none_are_put_aside(tmp_path: Path) -> None:
    state = NetworkState(tmp_path, NETWORK)
    state.write(Settings(name="home"))
    (directory,) = tmp_path.glob("networks/*")
    kept.write(directory / "documents", b"\xc1")
    assert state.documents() == (0, ())
    assert "was damaged" in state.warnings[0]


def test_two_agents_do_not_share_a_state_directory(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OperationFailed, match=f"runs already \\(process {os.getpid()}\\)"):  # noqa: SIM117
        with locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_what_is_no_network_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "networks" / "notes").mkdir(parents=True)
    (tmp_path / "networks" / str(signing_key("x").verify_key)).mkdir()
    assert networks(tmp_path) == (signing_key("x").verify_key,)
    assert networks(tmp_path / "nowhere") == ()
