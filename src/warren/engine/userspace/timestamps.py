"""The highest handshake timestamp this machine may have sent, kept on disk ahead of its use.

A responder accepts a handshake only with a timestamp greater than any before (WireGuard §5.1). After the clock once
stood in the future, an initiator that lost its memory would be locked out for ever (CVE-2021-46873). So a *floor* is
written before timestamps up to it are used, and after a restart the next timestamp lies above it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from pathlib import Path

from warren.errors import OperationFailed

RESERVE_NS = 60 * 10**9
"""How far ahead the floor is written: one write a minute while handshakes are made."""

WRITER_NAME = "timestamp-floor"
"""The name of the thread that writes it."""

_log = logging.getLogger("warren.engine.timestamps")
_FILE_NAME = "timestamp-floor"
_DIGITS_MAX = 20  # nanoseconds until the year 5138 have 20 digits


class TimestampFloor:
    """The floor of one machine, shared by all its tunnels: one file in ``directory``, only ever raised.

    ``floor_ns`` is the floor found at start, in ns since 1970: what was sent before lies at or below it.
    """

    def __init__(self, directory: Path) -> None:
        """Raises OperationFailed when the directory cannot be made or read."""
        self._path = directory / _FILE_NAME
        self._reserved_ns = 0
        self._writer: threading.Thread | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.floor_ns = _read(self._path)
        except OSError as error:
            raise OperationFailed(
                f"handshake timestamps cannot be kept in {directory} ({error.strerror}): run as its owner, "
                "or name another directory with STATE_DIRECTORY"
            ) from error

    def use(self, timestamp_ns: int) -> None:
        """Note that ``timestamp_ns`` is about to be sent. Blocks only when it was not reserved yet; raises OSError if
        that fails.

        When the reservation is half used up, the next one is written by a thread, so that the data plane does not
        wait for a disk.
        """
        if timestamp_ns > self._reserved_ns:
            self._reserve(timestamp_ns + RESERVE_NS)
        elif timestamp_ns > self._reserved_ns - RESERVE_NS // 2 and (
            self._writer is None or not self._writer.is_alive()
        ):
            self._writer = threading.Thread(
                target=self._reserve_later, args=(timestamp_ns + RESERVE_NS,), name=WRITER_NAME, daemon=True
            )
            self._writer.start()

    def _reserve(self, until_ns: int) -> None:
        raise_floor(self._path, until_ns)
        self._reserved_ns = max(self._reserved_ns, until_ns)

    def _reserve_later(self, until_ns: int) -> None:
        try:
            self._reserve(until_ns)
        except OSError as error:
            _log.warning(
                "%s cannot be written (%s): free the disk, else handshakes will pause", self._path, error.strerror
            )


def raise_floor(path: Path, until_ns: int) -> None:
    """Make the floor in ``path`` at least ``until_ns``, durably: new file, fsync, rename, fsync of the directory."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)  # another tunnel of this machine may be doing the same
        if _read(path) >= until_ns:
            return
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, b"%d\n" % until_ns)
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(path)
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> int:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return 0
    digits = text.removesuffix(b"\n")
    if digits.isdigit() and len(digits) <= _DIGITS_MAX:
        return int(digits)
    spoiled = path.with_suffix(".corrupt")
    path.rename(spoiled)
    _log.warning("%s was damaged and is now %s: handshakes start from the clock again", path, spoiled.name)
    return 0
