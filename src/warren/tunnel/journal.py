"""What a tunnel has put into the host, kept beside the UAPI socket so that another controller can take over or clean
up.

An item is written down before it is made, so that a kill at any moment leaves nothing behind that nobody knows of.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from warren import log
from warren.errors import OperationFailed
from warren.files import write_atomically
from warren.tunnel import items
from warren.tunnel.items import Item

DIRECTORY = Path("/run/wireguard")
_log = log.get("tunnel")


class Journal:
    """The record of one tunnel. Not shared: whoever holds :func:`controlling` owns it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.made: frozenset[Item] = frozenset()
        self.ready = False
        """The tunnel was completely up, its PostUp commands included."""

    @classmethod
    def read(cls, interface: str, directory: Path = DIRECTORY) -> Journal:
        """The journal of an earlier controller, or an empty one; one that cannot be read is passed over with a
        warning.
        """
        journal = cls(directory / f"{interface}.warren")
        try:
            content = json.loads(journal._path.read_bytes())
            journal.made = items.unpack(content["made"])
            journal.ready = bool(content["ready"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            _log.warning("%s cannot be used (%s): what an earlier run made is not known", journal._path, error)
        return journal

    def write(self) -> None:
        """Raises OperationFailed."""
        content = {"made": items.pack(sorted(self.made, key=str)), "ready": self.ready}
        write_atomically(self._path, json.dumps(content, indent=1).encode())

    def remove(self) -> None:
        self.made, self.ready = frozenset(), False
        self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def controlling(interface: str, directory: Path = DIRECTORY) -> Iterator[None]:
    """Be the only controller of a tunnel while the block runs. Raises OperationFailed when another process is."""
    path = directory / f"{interface}.lock"
    fd = _locked(path, interface)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _locked(path: Path, interface: str) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(fd, 20, 0).decode(errors="replace").strip() or "another process"
                os.close(fd)
                raise OperationFailed(
                    f"{interface} is run by process {owner} already; stop it, or send it SIGHUP to reload"
                ) from None
            if path.exists() and path.stat().st_ino == os.fstat(fd).st_ino:
                return fd
            os.close(fd)  # its owner removed it between our open and our lock
    except OSError as error:
        raise OperationFailed(f"{path} cannot be made: {error.strerror}; run as root") from None
