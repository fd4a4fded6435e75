"""What the agent keeps on disk of each network, so that it starts without a coordinator and never repeats itself.

::

    STATE/lock                       held by the one agent that uses this directory
    STATE/keys/                      identity/store.py
    STATE/data-plane/                the greatest handshake timestamp (engine/userspace/timestamps.py)
    STATE/networks/ID/settings       port, interface, record number, time: small, written when one changes
    STATE/networks/ID/documents      the map as signed documents, each verified again when read
    STATE/networks/ID/relay-access   names and passwords for relays, as the coordinator gave them last

A damaged file is put aside and started anew: documents are fetched again, and settings are chosen again. Documents of
an old backup are merely old: the coordinator's newer ones replace them, and the own record's number goes on above
whatever the coordinator has.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.agent import kept
from warren.agent.clock import KeptTime
from warren.errors import MalformedPacket, OperationFailed
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator
from warren.model.envelope import Envelope, check_envelope_untrusted
from warren.proto.control.messages import RelayCredential

NETWORKS: Final = "networks"
_SETTINGS, _DOCUMENTS, _RELAY_ACCESS = "settings", "documents", "relay-access"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one node chose or noted in one network."""

    name: str = ""
    """The network's."""
    coordinators: Annotated[tuple[Coordinator, ...], Meta(max_length=16)] = ()
    """Those of the ticket; those of the NetworkSpec come first once it is known."""
    listen_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    """Chosen at random once and kept: two nodes behind one NAT must not share one. 0: not chosen yet."""
    interface: Annotated[str, Meta(max_length=15)] = ""
    """The last one used, also when it is not there now."""
    record_version: Annotated[int, Meta(ge=0)] = 0
    """The greatest number of a NodeRecord that may have been signed."""
    claims: Annotated[tuple[str, ...], Meta(max_length=4096)] = ()
    """Prefixes that this network has on this host, so that a restart gives them to no other."""
    time: KeptTime = KeptTime()


class _Documents(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    envelopes: tuple[Envelope, ...]


_settings_decoder = msgspec.json.Decoder(Settings)
_documents_decoder = msgspec.msgpack.Decoder(_Documents)
_access_decoder = msgspec.msgpack.Decoder(tuple[RelayCredential, ...])


class NetworkState:
    """The files of one network. Single owner. Writing raises OperationFailed; the old file then stays, and the new
    content is written with the next success.
    """

    def __init__(self, directory: Path, network: VerifyKey) -> None:
        """Reads what is there; ``warnings`` says what was damaged. Raises OperationFailed when it cannot be read."""
        self.network = network
        self.warnings: list[str] = []
        self._directory = directory / NETWORKS / str(network)
        self._written: Settings | None = None
        self.settings = self._read_settings()

    def exists(self) -> bool:
        return self._directory.is_dir()

    def write(self, settings: Settings) -> None:
        """Keep ``settings`` if they differ from what is on disk. In memory they hold also when this fails."""
        self.settings = settings
        if settings != self._written:
            self._make()
            kept.write(self._directory / _SETTINGS, msgspec.json.encode(settings))
            self._written = settings

    def documents(self) -> tuple[int, tuple[Envelope, ...]]:
        """The map's revision and its documents, unverified; ``(0, ())`` when there are none to be had."""
        path = self._directory / _DOCUMENTS
        try:
            content = kept.read(path)
            if content is None:
                return 0, ()
            found = _documents_decoder.decode(content)
            for envelope in found.envelopes:
                check_envelope_untrusted(envelope)
        except (msgspec.DecodeError, MalformedPacket, RecursionError):
            self.warnings.append(str(kept.put_aside(path)))
        except kept.Damaged as damage:
            self.warnings.append(str(damage))
        else:
            return found.revision, found.envelopes
        return 0, ()

    def write_documents(self, revision: int, envelopes: tuple[Envelope, ...]) -> None:
        self._make()
        content = msgspec.msgpack.encode(_Documents(revision=revision, envelopes=envelopes))
        kept.write(self._directory / _DOCUMENTS, content)

    def relay_access(self) -> tuple[RelayCredential, ...]:
        """The last credentials for relays; some may have run out."""
        path = self._directory / _RELAY_ACCESS
        try:
            content = kept.read(path)
            return () if content is None else _access_decoder.decode(content)
        except (msgspec.DecodeError, RecursionError):
            self.warnings.append(str(kept.put_aside(path)))
        except kept.Damaged as damage:
            self.warnings.append(str(damage))
        return ()

    def write_relay_access(self, credentials: tuple[RelayCredential, ...]) -> None:
        """They replace what was kept before."""
        self._make()
        kept.write(self._directory / _RELAY_ACCESS, msgspec.msgpack.encode(credentials))

    def remove(self) -> None:
        """Forget the network; its keys are the key store's."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._written = None

    def _read_settings(self) -> Settings:
        path = self._directory / _SETTINGS
        try:
            content = kept.read(path)
            if content is None:
                return Settings()
            self._written = _settings_decoder.decode(content)
        except (msgspec.DecodeError, RecursionError):
            self.warnings.append(str(kept.put_aside(path)))
        except kept.Damaged as damage:
            self.warnings.append(str(damage))
        return self._written or Settings()

    def _make(self) -> None:
        make_private(self._directory)


def networks(directory: Path) -> tuple[VerifyKey, ...]:
    """The networks that have a directory here. Entries that are no network's are passed over."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in sorted((directory / NETWORKS).iterdir()):
            with contextlib.suppress(ValueError):
                found.append(VerifyKey.from_text(path.name))
    return tuple(found)


def make_private(directory: Path, option: str = "--state") -> None:
    """Make ``directory``, which ``option`` names, and those above it that are missing, mode 0700. Raises
    OperationFailed.
    """
    try:
        for path in [*reversed(directory.parents), directory]:
            path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise OperationFailed(
            f"{directory} cannot be made: {error.strerror}; run as root or name another {option}"
        ) from None


@contextlib.contextmanager
def locked(directory: Path, option: str = "--state") -> Iterator[None]:
    """Be the only agent with this directory, which ``option`` names, while the block runs. Raises OperationFailed when
    another is.
    """
    make_private(directory, option)
    path = directory / "lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise OperationFailed(
            f"{path} cannot be made: {error.strerror}; run as root or name another {option}"
        ) from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 20, 0).decode(errors="replace").strip() or "another process"
            raise OperationFailed(
                f"the agent of {directory} runs already (process {owner}); stop it (`warren down`), or name another"
                f" {option}"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: only the number for the sentence above is missing
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
