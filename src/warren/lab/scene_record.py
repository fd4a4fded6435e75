"""What is known of scenes that stand: one file for each, and a lock that its process holds as long as it lives."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from warren.errors import OperationFailed
from warren.files import write_atomically
from warren.lab.scene_plan import Plan

_ATTEMPTS: Final = 10
_PAUSE_S: Final = 0.02
_PRIVATE: Final = 0o700


@dataclass(frozen=True, slots=True)
class RecordedHost:
    pid: int
    """Of the process that holds its namespaces."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What programs on it need in order to find the agent and the coordinator."""


@dataclass(frozen=True, slots=True)
class Record:
    """A scene that stands, or is being built."""

    pid: int
    started: float
    """Seconds since 1970."""
    plan: Plan
    ready: bool = False
    hosts: Mapping[str, RecordedHost] = field(default_factory=dict)


class Records:
    """The records of one user, in a directory that is nobody else's."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def names(self) -> list[str]:
        """Of the scenes that stand or are being built."""
        return sorted(name for name in (path.stem for path in self._directory.glob("*.json")) if self.find(name))

    def find(self, name: str) -> Record | None:
        """None when there is no such scene; what one left whose process was killed is removed."""
        try:
            with self._lock(name).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._file(name).unlink(missing_ok=True)
                return None
        except BlockingIOError:
            pass  # its process lives
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(self._file(name).read_bytes(), type=Record)
        except FileNotFoundError:
            return None  # its process has only just begun, or is ending

    def write(self, record: Record) -> None:
        """Only within :meth:`claimed`."""
        write_atomically(self._file(record.plan.name), msgspec.json.encode(record))

    @contextmanager
    def claimed(self, name: str) -> Iterator[None]:
        """Within the block the scene ``name`` is this process's. Raises OperationFailed when it is another's."""
        with self._lock(name).open("wb") as lock:
            for attempt in reversed(range(_ATTEMPTS)):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not attempt:
                        raise OperationFailed(
                            f"the scene {name} stands already; `warren lab down {name}` ends it"
                        ) from None
                    time.sleep(_PAUSE_S)  # somebody may only be looking whether it stands
            try:
                yield
            finally:
                self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    def _lock(self, name: str) -> Path:
        return self._directory / f"{name}.lock"


def records() -> Records:
    """Those of the user who runs this process; call it before entering a user namespace, where all are root.

    Raises OperationFailed when the directory is somebody else's.
    """
    directory = Path(tempfile.gettempdir(), f"warren-lab-{os.geteuid()}")
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise OperationFailed(f"{directory} is no directory of yours alone: remove it")
    return Records(directory)
