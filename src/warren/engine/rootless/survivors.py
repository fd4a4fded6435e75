"""Finding the namespaces of a nest whose helper and agent are both gone, by the data planes that still work for it."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from warren.engine.rootless.blocking import Descriptors, close_all
from warren.engine.rootless.places import DATA_PLANES
from warren.linux.peers import peer_of


def surviving_namespaces(run: Path) -> Descriptors:
    """The user and network namespace that a data plane with its sockets in ``run`` holds; empty when there is none.

    The caller closes them.
    """
    for path in sorted((run / DATA_PLANES).glob("*.sock")):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)  # connecting only waits for a data plane that does not even accept any more
            probe.connect(str(path))
            peer = peer_of(probe)
            if peer.uid == os.geteuid():
                found = _held_by(peer.pid)
                if len(found) == 2:
                    return found
                close_all(found)
    return []


def _held_by(pid: int) -> Descriptors:
    """The first user namespace and the first network namespace that the process has open. Raises OSError."""
    directory = Path(f"/proc/{pid}/fd")
    names = sorted((entry for entry in directory.iterdir() if entry.name.isdigit()), key=lambda entry: int(entry.name))
    found: Descriptors = []
    for kind in ("user:[", "net:["):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                if str(name.readlink()).startswith(kind):
                    found.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC))
                    break
    return found
