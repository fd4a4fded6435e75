"""Running a program in the overlay of the rootless engine, in place of this process: what ``warren exec`` does.

The program is in the nest's network and keeps everything else: user, files, terminal. In a mount namespace of its own
names are asked of Warren: /etc/resolv.conf is ours there, and the ways around that file, the sockets of programs that
answer for the host, lead nowhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from warren import log
from warren.agent.places import Places
from warren.engine.rootless.blocking import close_all
from warren.engine.rootless.now import join, namespaces_now
from warren.errors import OperationFailed
from warren.linux import capabilities, netns

RESOLV_CONF: Final = Path("/etc/resolv.conf")
HOST_ANSWERS: Final = (Path("/run/systemd/resolve/io.systemd.Resolve"), Path("/run/nscd/socket"))
"""Where nss-resolve(8) and nscd(8) ask, before any name server."""
_OWN_NETWORK: Final = Path("/proc/self/ns/net")

_log = log.get("exec")


class NotFound(OperationFailed):
    """There is no such program; the exit status is a shell's (POSIX, 2.8.2)."""

    exit_status = 127


class NotExecutable(OperationFailed):
    """There is one, but it cannot be executed."""

    exit_status = 126


def enter_overlay(where: Places) -> None:
    """Move this process, which must have one thread, into the overlay of the node whose directories these are.

    Raises Unreachable when no rootless node runs there, OperationFailed when the kernel refuses.
    """
    user, network = namespaces_now(where.nest)
    try:
        if os.path.samestat(os.fstat(network), _OWN_NETWORK.stat()):
            return  # as a program that was started in this way
        join(user, network)
        netns.unshare(netns.CLONE_NEWNS)
        netns.keep_mounts_private()
        if where.resolv_conf.exists():
            _use(where.resolv_conf)
        for path in HOST_ANSWERS:
            if path.exists():
                netns.mount(os.devnull, path, flags=netns.MS_BIND)
        # Who is root outside, and so in the nest, would have all powers over it after executing a program.
        capabilities.give_up_root()
    except OSError as error:
        raise OperationFailed(f"the overlay cannot be entered as a program needs it: {error}") from None
    finally:
        close_all([user, network])


def execute(command: Sequence[str]) -> None:
    """Become the program ``command``; returns only by raising NotFound or NotExecutable."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, not by programs
        signal.signal(number, signal.SIG_DFL)
    name = command[0]
    try:
        os.execvp(name, list(command))  # noqa: S606  the program the user named
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"{name}: there is no such program") from None
    except (OSError, ValueError) as error:
        if os.sep not in name and shutil.which(name) is None:  # a directory of PATH is closed to this user
            raise NotFound(f"{name}: there is no such program") from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NotExecutable(f"{name} cannot be executed: {reason}") from None


def _use(resolv_conf: Path) -> None:
    """Mounted where the name leads: over a symbolic link nothing can be mounted."""
    with contextlib.suppress(FileNotFoundError):
        netns.mount(str(resolv_conf), RESOLV_CONF.resolve(strict=True), flags=netns.MS_BIND)
        return
    _log.warning("there is no %s to put ours over, so names do not resolve here; make an empty one", RESOLV_CONF)
