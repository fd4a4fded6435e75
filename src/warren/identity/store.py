"""The keys of a node on disk: for each network its signing key, and the WireGuard keys of now and next.

::

    DIRECTORY/                     mode 0700
        NETWORK.node               the node's Ed25519 seed: who it is; never changes
        NETWORK.node-copy          the same, for the day when the first is damaged
        NETWORK.wireguard          the X25519 keys and since when they are; rotated
        NAME.corrupt-N             what was damaged, kept for whoever wants to know

    warren key 1 SHA-256 of the rest in hexadecimal LF
    msgpack, with the network's key and the purpose in it

Each file is replaced as a whole, mode 0600, and fsynced before anything relies on it. A damaged file, or one of another
network, is put aside with a warning: a lost signing key means that the node joins again, a lost WireGuard key that it
announces another. Only a file that cannot be read for a reason that may pass (rights, I/O errors) is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import msgspec

from warren import log
from warren.errors import OperationFailed
from warren.files import write_atomically
from warren.identity.keys import PrivateKey
from warren.identity.signing import KEY_BYTES, SigningKey, VerifyKey

_MAGIC: Final = b"warren key 1 "
_HEAD_BYTES: Final = len(_MAGIC) + 64 + 1
_FILE_BYTES_MAX: Final = 4096
_CORRUPT_MAX: Final = 8
"""Damaged files kept of each; the last is then replaced."""

_log = log.get("keys")

_NODE, _NODE_COPY, _WIREGUARD = ".node", ".node-copy", ".wireguard"


@dataclass(frozen=True, slots=True)
class KeyStoreWarning:
    """Something the operator should know: what was found, what was done about it, and what is left to do."""

    path: Path
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class WireGuardKeys:
    """A node's keys in one network. Times are seconds since 1970 as the caller tells them."""

    current: PrivateKey
    current_since_s: float
    """When it was taken into use."""
    next: PrivateKey | None = None
    """Announced to the peers, not used yet."""
    next_since_s: float | None = None
    """When it was made."""


class _NodeFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    purpose: Literal["node"]
    network: bytes
    seed: bytes

    def __repr__(self) -> str:
        return "_NodeFile(…)"

    def __post_init__(self) -> None:
        if len(self.seed) != KEY_BYTES:
            raise ValueError("a seed of the wrong length")


class _WireGuardFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    purpose: Literal["wireguard"]
    network: bytes
    current: bytes
    current_since_s: float
    next: bytes | None
    next_since_s: float | None

    def __repr__(self) -> str:
        return "_WireGuardFile(…)"

    def __post_init__(self) -> None:
        for key in (self.current, self.next):
            if key is not None and (len(key) != KEY_BYTES or not any(key)):
                raise ValueError("a key of the wrong length, or none")
        if (self.next is None) != (self.next_since_s is None):
            raise ValueError("a next key without its time")


_File = TypeVar("_File", _NodeFile, _WireGuardFile)


class KeyStore:
    """The keys in one directory. Single owner: whoever opens it holds the lock of the state it belongs to.

    ``warnings`` grows with what is found, and each is logged at once. All that writes raises OperationFailed when the
    disk does not take it: on disk and in the answers everything is then as before.
    """

    def __init__(self, directory: Path, random: Callable[[int], bytes]) -> None:
        self._directory = directory
        self._random = random
        self.warnings: list[KeyStoreWarning] = []

    @classmethod
    def open(cls, directory: Path, *, random: Callable[[int], bytes] = os.urandom) -> Self:
        """Make the directory if need be, and look after its rights. Raises OperationFailed."""
        store = cls(directory, random)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            store._close_to_others(directory, directory.stat())
            for leftover in directory.glob(".*.new"):  # of a process that was killed while it wrote
                leftover.unlink(missing_ok=True)
        except OSError as error:
            raise OperationFailed(
                f"keys cannot be kept in {directory}: {error.strerror}; run as its owner, or name another directory"
            ) from None
        return store

    # Who the node is

    def networks(self) -> tuple[VerifyKey, ...]:
        """The networks in which this node has a signing key."""
        found = set()
        for path in self._directory.iterdir():
            if path.suffix in {_NODE, _NODE_COPY}:
                with contextlib.suppress(ValueError):
                    found.add(VerifyKey.from_text(path.stem))
        return tuple(sorted(found, key=lambda key: key.raw))

    def node_key(self, network: VerifyKey) -> SigningKey:
        """The node's signing key in ``network``, made and on disk before it is answered the first time."""
        path, copy = self._path(network, _NODE), self._path(network, _NODE_COPY)
        warned = len(self.warnings)
        first, second = self._read(path, network, _NodeFile), self._read(copy, network, _NodeFile)
        kept = first or second
        if kept is None:
            kept = first = _NodeFile(purpose="node", network=network.raw, seed=self._random(KEY_BYTES))
            self._write(path, kept)
            if len(self.warnings) > warned:
                self._warn(path, f"this machine is a stranger to network {network.short} now: join with a new ticket")
        elif first is None:
            self._write_if_possible(path, kept)
            self._warn(path, f"the node's key for network {network.short} was taken from its copy")
        if second is None or not hmac.compare_digest(second.seed, kept.seed):
            self._write_if_possible(copy, kept)
        return SigningKey(kept.seed)

    # WireGuard

    def wireguard_keys(self, network: VerifyKey, now_s: float) -> WireGuardKeys:
        """The node's WireGuard keys in ``network``; the current one is made if there is none."""
        kept = self._read(self._path(network, _WIREGUARD), network, _WireGuardFile)
        if kept is None:
            return self._set(network, WireGuardKeys(self._fresh(), now_s))
        following = None if kept.next is None else PrivateKey(kept.next)
        return WireGuardKeys(PrivateKey(kept.current), kept.current_since_s, following, kept.next_since_s)

    def prepare_next(self, network: VerifyKey, now_s: float) -> WireGuardKeys:
        """Make the next key, to be announced; one that is there already stays."""
        keys = self.wireguard_keys(network, now_s)
        if keys.next is not None:
            return keys
        return self._set(network, WireGuardKeys(keys.current, keys.current_since_s, self._fresh(), now_s))

    def use_next(self, network: VerifyKey, now_s: float) -> WireGuardKeys:
        """Put the next key in the current one's place, which is forgotten. Without a next key nothing changes."""
        keys = self.wireguard_keys(network, now_s)
        return keys if keys.next is None else self._set(network, WireGuardKeys(keys.next, now_s))

    def replace_wireguard(self, network: VerifyKey, now_s: float) -> WireGuardKeys:
        """A fresh current key and no next one, whatever there was: for keys that turn out to be somebody else's too."""
        return self._set(network, WireGuardKeys(self._fresh(), now_s))

    def forget(self, network: VerifyKey) -> None:
        """Remove all keys of ``network``, damaged ones too. Raises OperationFailed."""
        try:
            for path in list(self._directory.glob(f"{network}.*")):
                path.unlink(missing_ok=True)
        except OSError as error:
            what = f"the keys of {network.short} cannot be removed: {error.strerror}"
            raise OperationFailed(f"{what}; remove {self._directory}/{network}.* by hand") from None

    def _set(self, network: VerifyKey, keys: WireGuardKeys) -> WireGuardKeys:
        self._write(
            self._path(network, _WIREGUARD),
            _WireGuardFile(
                purpose="wireguard",
                network=network.raw,
                current=keys.current.raw,
                current_since_s=keys.current_since_s,
                next=None if keys.next is None else keys.next.raw,
                next_since_s=keys.next_since_s,
            ),
        )
        return keys

    def _fresh(self) -> PrivateKey:
        return PrivateKey(self._random(KEY_BYTES))

    # Files

    def _path(self, network: VerifyKey, suffix: str) -> Path:
        return self._directory / f"{network}{suffix}"

    def _write(self, path: Path, content: _NodeFile | _WireGuardFile) -> None:
        packed = msgspec.msgpack.encode(content)
        write_atomically(path, _head(packed) + packed)

    def _write_if_possible(self, path: Path, content: _NodeFile) -> None:
        """For what is on disk elsewhere already: a full disk must not keep the node from starting."""
        try:
            self._write(path, content)
        except OperationFailed as error:
            self._warn(path, str(error))

    def _read(self, path: Path, network: VerifyKey, struct: type[_File]) -> _File | None:
        """What the file says; None when there is none, or none of use."""
        try:
            with path.open("rb") as file:
                self._close_to_others(path, os.fstat(file.fileno()))
                data = file.read(_FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            self._put_aside(path, "is a directory")
            return None
        except OSError as error:
            raise OperationFailed(
                f"{path} cannot be read: {error.strerror}; run as its owner, or mend what is wrong with it"
            ) from None
        packed = data[_HEAD_BYTES:]
        if not hmac.compare_digest(data[:_HEAD_BYTES], _head(packed)):
            self._put_aside(path, "was damaged")
            return None
        try:
            content = msgspec.msgpack.decode(packed, type=struct)
        except (msgspec.DecodeError, RecursionError):
            self._put_aside(path, "is no key file of this version of Warren")
            return None
        if content.network != network.raw:
            self._put_aside(path, "is of another network")
            return None
        return content

    def _put_aside(self, path: Path, what: str) -> None:
        """Rename a file that is of no use, so that it is neither used nor lost."""
        names = [path.with_name(f"{path.name}.corrupt-{number}") for number in range(1, _CORRUPT_MAX + 1)]
        aside = next((name for name in names if not name.exists()), names[-1])
        try:
            path.rename(aside)
        except OSError as error:
            self._warn(path, f"{path} {what} and cannot be put aside ({error.strerror}); its key is not used")
        else:
            self._warn(path, f"{path} {what}; it is now {aside.name}, and its key is not used")

    def _close_to_others(self, path: Path, status: os.stat_result) -> None:
        """Warn of rights that let others read keys, and take them away."""
        if status.st_uid not in {0, os.geteuid()}:
            self._warn(path, f"{path} belongs to user {status.st_uid}, who can read or replace keys in it")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077 == 0:
            return
        message = f"{path} was open to other users (mode {mode:03o})"
        try:
            path.chmod(mode & 0o700)
        except OSError as error:
            message += f", and still is ({error.strerror})"
        self._warn(path, f"{message}; if others use this machine, let it join again with new keys")

    def _warn(self, path: Path, message: str) -> None:
        self.warnings.append(KeyStoreWarning(path, message))
        _log.warning("%s", message)


def _head(packed: bytes) -> bytes:
    return _MAGIC + hashlib.sha256(packed).hexdigest().encode("ascii") + b"\n"
