"""The typed door to Linux namespaces: unshare, setns, mount, hostname and the loopback interface.

Nothing here has a policy. Every function acts on the calling thread or process, and raises :class:`OSError` with the
kernel's errno and the name of the failed call.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/sched.h
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_PR_SET_NAME = 15  # linux/prctl.h
_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1  # linux/if.h
_IFREQ_FLAGS = struct.Struct("16sH22x")  # struct ifreq with ifr_flags

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)

NamespaceId = tuple[int, int]
"""What tells one namespace from all others as long as it lives: device and inode of its file in /proc."""


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces of the kinds in ``flags`` (``CLONE_NEW*``).

    ``CLONE_FS`` gives it a working directory and a root of its own, apart from those of the process's other threads.
    ``CLONE_NEWUSER`` is refused with EINVAL when the process has more than one thread.
    """
    _check(_libc.unshare(flags), "unshare")


def join(process: int, flags: int) -> None:
    """Move the calling thread into the namespaces of the kinds in ``flags`` that a process is in.

    ``process`` is a pidfd (Linux ≥ 5.8) or, for exactly one kind, an open /proc/PID/ns file. Joining a mount namespace
    moves the working directory to that namespace's root, and needs a working directory that no other thread shares.
    """
    _check(_libc.setns(process, flags), "setns")


@contextmanager
def network_of(process: int) -> Iterator[None]:
    """Within the block the calling thread is in the network namespace of ``process`` (a pidfd).

    Sockets and TUN devices made in the block stay in that namespace; a child process started in it inherits it. Other
    threads are not affected.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        join(process, CLONE_NEWNET)
        try:
            yield
        finally:
            join(home, CLONE_NEWNET)
    finally:
        os.close(home)


def namespace_id(pid: int | str, kind: str) -> NamespaceId | None:
    """Identity of the namespace of ``kind`` ("net", "mnt", "uts", "user") that process ``pid`` is in; ``"self"`` works.

    None when the process is gone, a zombie, or not ours to look at.
    """
    try:
        status = Path(f"/proc/{pid}/ns/{kind}").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def mount(source: str, target: str | Path, filesystem: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system. A bind mount leaves ``filesystem`` and ``options`` empty."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), filesystem.encode() or None, flags, options.encode() or None
    )
    _check(result, f"mount {target}")


def keep_mounts_private() -> None:
    """From now on no mount of this mount namespace is seen in another, and none of another is seen here."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def set_hostname(name: str) -> None:
    """Set the host name of the calling process's UTS namespace. ``name``: at most 64 bytes."""
    encoded = name.encode()
    _check(_libc.sethostname(encoded, len(encoded)), "sethostname")


def set_process_name(name: str) -> None:
    """Set what ``ps -o comm`` shows for the calling thread (15 bytes are kept)."""
    _check(_libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0), "prctl")


def raise_interface(name: str) -> None:
    """Set an interface of the calling thread's network namespace administratively up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ_FLAGS.pack(name.encode(), 0))
        flags = int(_IFREQ_FLAGS.unpack(answer)[1])
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ_FLAGS.pack(name.encode(), flags | _IFF_UP))


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
