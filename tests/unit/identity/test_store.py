"""Keys on disk: made once, kept, replaced whole; and whatever happened to the files, the next start works."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.networks import signing_key
from warren.errors import OperationFailed
from warren.identity.signing import SigningKey
from warren.identity.store import KeyStore

HOME, WORK = signing_key("home").verify_key, signing_key("work").verify_key


class Draws:
    """Random bytes that are different each time and the same in every run."""

    def __init__(self, seed: str = "") -> None:
        self._seed, self._count = seed, 0

    def __call__(self, length: int) -> bytes:
        self._count += 1
        return hashlib.sha256(f"{self._seed} {self._count}".encode()).digest()[:length]


def store_in(directory: Path, seed: str = "") -> KeyStore:
    return KeyStore.open(directory, random=Draws(seed))


def file_of(directory: Path, suffix: str) -> Path:
    return directory / f"{HOME}.{suffix}"


def texts(store: KeyStore) -> list[str]:
    return [str(warning) for warning in store.warnings]


def test_a_signing_key_is_made_once_and_kept(tmp_path: Path) -> None:
    store = store_in(tmp_path / "keys", "first")
    key = store.node_key(HOME)
    assert store.node_key(HOME) == key != store.node_key(WORK)
    again = store_in(tmp_path / "keys", "second")
    assert again.node_key(HOME) == key
    assert again.networks() == tuple(sorted((HOME, WORK), key=lambda network: network.raw))
    assert again.warnings == []


def test_keys_of_the_host_are_random(tmp_path: Path) -> None:
    stores = [KeyStore.open(tmp_path / name) for name in "ab"]
    assert stores[0].node_key(HOME) != stores[1].node_key(HOME)


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    store = store_in(directory)
    store.node_key(HOME)
    store.wireguard_keys(HOME, 1.0)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(list(directory.iterdir())) == 3
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_wireguard_keys_are_prepared_used_and_forgotten(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first = store.wireguard_keys(HOME, 1000.0)
    assert (first.current_since_s, first.next, first.next_since_s) == (1000.0, None, None)
    assert store.use_next(HOME, 1500.0) == first
    prepared = store.prepare_next(HOME, 2000.0)
    assert prepared.current == first.current
    assert prepared.next not in {None, first.current}
    assert prepared.next_since_s == 2000.0
    assert store.prepare_next(HOME, 2500.0) == prepared
    assert store_in(tmp_path, "later").wireguard_keys(HOME, 9999.0) == prepared
    used = store.use_next(HOME, 3000.0)
    assert (used.current, used.current_since_s, used.next) == (prepared.next, 3000.0, None)
    assert store_in(tmp_path, "later").wireguard_keys(HOME, 9999.0) == used
    assert first.current.raw not in file_of(tmp_path, "wireguard").read_bytes()


def test_forgetting_a_network_leaves_the_others(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    key = store.node_key(WORK)
    store.node_key(HOME)
    store.wireguard_keys(HOME, 1.0)
    file_of(tmp_path, "node.corrupt-1").write_bytes(b"a seed, nearly")
    store.forget(HOME)
    assert store.networks() == (WORK,)
    assert {path.name.partition(".")[0] for path in tmp_path.iterdir()} == {str(WORK)}
    assert store.node_key(WORK) == key


def truncations(data: bytes) -> list[bytes]:
    return [data[:length] for length in range(len(data))]


def flips(data: bytes) -> list[bytes]:
    return [bytes([*data[:at], data[at] ^ 1 << at % 8, *data[at + 1 :]]) for at in range(len(data))]


def zeroes_and_more(data: bytes) -> list[bytes]:
    return [bytes(len(data)), data + b"\0", data + data, b"x" * 100_000]


@pytest.fixture
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of files: not one of them has to survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


DAMAGES = pytest.mark.parametrize("damages", [truncations, flips, zeroes_and_more])


@DAMAGES
@pytest.mark.usefixtures("fast_disk")
def test_a_damaged_signing_key_is_taken_from_its_copy(tmp_path: Path, damages: Callable[[bytes], list[bytes]]) -> None:
    key = store_in(tmp_path).node_key(HOME)
    whole = file_of(tmp_path, "node").read_bytes()
    for suffix in ("node", "node-copy"):
        for damaged in damages(whole):
            file_of(tmp_path, suffix).write_bytes(damaged)
            store = store_in(tmp_path, "other")
            assert store.node_key(HOME) == key
            assert "was damaged; it is now" in texts(store)[0]
            assert file_of(tmp_path, suffix).read_bytes() == whole
            assert store_in(tmp_path, "other").node_key(HOME) == key
    assert len(list(tmp_path.glob("*.corrupt-*"))) <= 2 * 8


@DAMAGES
@pytest.mark.usefixtures("fast_disk")
def test_with_both_copies_damaged_the_node_starts_as_a_stranger_and_says_so(
    tmp_path: Path, damages: Callable[[bytes], list[bytes]]
) -> None:
    store_in(tmp_path).node_key(HOME)
    whole = file_of(tmp_path, "node").read_bytes()
    lost = SigningKey(Draws()(32))
    for number, damaged in enumerate(damages(whole)):
        for suffix in ("node", "node-copy"):
            file_of(tmp_path, suffix).write_bytes(damaged)
        store = store_in(tmp_path, f"fresh {number}")
        fresh = store.node_key(HOME)
        assert fresh != lost
        assert "join with a new ticket" in texts(store)[-1]
        again = store_in(tmp_path, "again")
        assert again.node_key(HOME) == fresh
        assert again.warnings == []


@DAMAGES
@pytest.mark.usefixtures("fast_disk")
def test_damaged_wireguard_keys_are_put_aside_and_made_anew(
    tmp_path: Path, damages: Callable[[bytes], list[bytes]]
) -> None:
    store_in(tmp_path).wireguard_keys(HOME, 1.0)
    before = store_in(tmp_path).prepare_next(HOME, 2.0)
    path = file_of(tmp_path, "wireguard")
    whole = path.read_bytes()
    for number, damaged in enumerate(damages(whole)):
        path.write_bytes(damaged)
        store = store_in(tmp_path, f"fresh {number}")
        fresh = store.wireguard_keys(HOME, 7.0)
        assert fresh.current != before.current
        assert (fresh.current_since_s, fresh.next) == (7.0, None)
        assert len(store.warnings) == 1
        assert store_in(tmp_path, "again").wireguard_keys(HOME, 8.0) == fresh
    last = [path.with_name(f"{path.name}.corrupt-{number}") for number in range(1, min(8, len(damages(whole))) + 1)]
    assert sorted(tmp_path.glob("*.corrupt-*")) == last
    assert last[0].read_bytes() == damages(whole)[0]


def test_the_file_of_another_network_is_not_used(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    other, keys = store.node_key(WORK), store.wireguard_keys(WORK, 1.0)
    for suffix in ("node", "node-copy", "wireguard"):
        (tmp_path / f"{WORK}.{suffix}").rename(file_of(tmp_path, suffix))
    assert store.node_key(HOME) != other
    assert store.wireguard_keys(HOME, 1.0) != keys
    assert [text for text in texts(store) if "is of another network" in text] != []


def test_a_file_for_another_purpose_is_not_used(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.node_key(HOME)
    file_of(tmp_path, "node").rename(file_of(tmp_path, "wireguard"))
    store.wireguard_keys(HOME, 1.0)
    assert "is no key file of this version of Warren; it is now" in texts(store)[0]


def test_what_is_wrong_is_logged_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_of(tmp_path, "wireguard").write_bytes(b"no key")
    store = store_in(tmp_path)
    with caplog.at_level(logging.WARNING, "warren.keys"):
        store.wireguard_keys(HOME, 1.0)
    assert [record.getMessage() for record in caplog.records] == texts(store)


def test_a_directory_in_the_place_of_a_file_is_put_aside(tmp_path: Path) -> None:
    file_of(tmp_path, "wireguard").mkdir()
    store = store_in(tmp_path)
    assert store.wireguard_keys(HOME, 1.0) == store.wireguard_keys(HOME, 2.0)
    assert "is a directory; it is now" in texts(store)[0]


def test_loose_permissions_are_taken_away_with_a_warning(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    store_in(directory).node_key(HOME)
    directory.chmod(0o750)
    file_of(directory, "node").chmod(0o644)
    store = store_in(directory)
    store.node_key(HOME)
    assert texts(store) == [
        f"{path} was open to other users (mode {mode}); if others use this machine, let it join again with new keys"
        for path, mode in ((directory, 750), (file_of(directory, "node"), 644))
    ]
    assert file_of(directory, "node").stat().st_mode & 0o777 == 0o600
    assert store_in(directory).warnings == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_draws_a_warning(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.node_key(HOME)
    os.chown(file_of(tmp_path, "node"), 1234, -1)
    store.node_key(HOME)
    assert "belongs to user 1234" in texts(store)[0]


class FullDisk:
    """Writes fail as on a full disk while it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def fill(self) -> None:
        def refuse(fd: int) -> None:
            raise OSError(28, "No space left on device")

        self._monkeypatch.setattr(os, "fsync", refuse)

    def free(self) -> None:
        self._monkeypatch.undo()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def test_a_full_disk_leaves_the_keys_as_they_were(tmp_path: Path, disk: FullDisk) -> None:
    store = store_in(tmp_path)
    key, keys = store.node_key(HOME), store.prepare_next(HOME, 1.0)
    disk.fill()
    with pytest.raises(OperationFailed, match="No space left on device"):
        store.use_next(HOME, 2.0)
    with pytest.raises(OperationFailed, match="No space left on device"):
        store.node_key(WORK)
    assert store.node_key(HOME) == key
    assert store.wireguard_keys(HOME, 3.0) == keys
    assert store.networks() == (HOME,)
    disk.free()
    assert store.use_next(HOME, 4.0).current == keys.next


def test_a_node_with_a_copy_starts_on_a_full_disk(tmp_path: Path, disk: FullDisk) -> None:
    key = store_in(tmp_path).node_key(HOME)
    file_of(tmp_path, "node").unlink()
    disk.fill()
    store = store_in(tmp_path)
    assert store.node_key(HOME) == key
    assert "No space left on device" in texts(store)[0]
    disk.free()
    assert store.node_key(HOME) == key
    assert file_of(tmp_path, "node").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / f".{HOME}.node.4711.new"
    leftover.write_bytes(b"half a key")
    store_in(tmp_path)
    assert not leftover.exists()


def test_a_directory_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OperationFailed, match=r"keys cannot be kept in .*file/keys: Not a directory"):
        KeyStore.open(tmp_path / "file" / "keys")


def test_a_key_that_cannot_be_read_for_now_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = store_in(tmp_path).node_key(HOME)
    store = store_in(tmp_path, "other")

    def refuse(self: Path, mode: str) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        with pytest.raises(OperationFailed, match="cannot be read: Input/output error"):
            store.node_key(HOME)
    assert store.node_key(HOME) == key


def test_nothing_shows_a_secret(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    key, keys = store.node_key(HOME), store.prepare_next(HOME, 1.0)
    shown = f"{store!r} {key!r} {keys!r} {store.warnings!r}"
    for secret in (key.seed, keys.current.raw):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    assert keys.current.base64 not in shown
