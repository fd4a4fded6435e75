"""User namespaces: how anyone gets one in which he has every right, and why there may be none (user_namespaces(7)).

Some systems hand out a namespace without power, so that the status of ``unshare`` tells little: whoever needs a TUN
device there asks for one (:func:`why_no_tun`), in a child process (:func:`in_child`), since there is no way back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed
from warren.linux import netns
from warren.linux.tun import Tun

TUN_DEVICE: Final = Path("/dev/net/tun")
_SETTINGS: Final = Path("/proc/sys")
_PROBE: Final = "probe%d"  # the kernel fills in a number that is free
_MESSAGE_BYTES_MAX: Final = 1024


def enter_new(flags: int, *, as_root: bool) -> None:
    """Move the calling process into a new user namespace, and new ones of the kinds in ``flags`` that belong to it.

    It has all capabilities there until it executes a program; a program keeps them only where its user is root:
    ``as_root`` makes him that, else he stays who he is. Nobody else exists in there. Raises OSError, see
    :func:`why_refused`; also for a process with more than one thread.
    """
    user, group = os.geteuid(), os.getegid()
    netns.unshare(netns.CLONE_NEWUSER | flags)
    # Without privilege the group map may only be written once setgroups is off.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{0 if as_root else user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{0 if as_root else group} {group} 1")


def why_refused(error: OSError) -> str:
    """One sentence with a remedy on what the kernel refused in making or using a user namespace."""
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return (
            "user namespaces are switched off for ordinary users: run as root, or "
            "`sysctl -w kernel.unprivileged_userns_clone=1`"
        )
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor leaves user namespaces of ordinary users without power: run as root, or allow them to Warren by "
            "a profile as docs/rootless.md has it, or to all by "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    if error.errno == errno.ENOSPC or _setting("user/max_user_namespaces") == "0":
        return "no more user namespaces are allowed: run as root, or raise the sysctl user.max_user_namespaces"
    return (
        f"the kernel or the container gives no user namespace ({error}): run as root, or give the container its own "
        "network to manage (--cap-add NET_ADMIN --device /dev/net/tun)"
    )


def why_no_tun() -> str | None:
    """Why the calling process, in a user namespace of its own, can make no TUN device; None: it can."""
    if TUN_DEVICE.exists() and not os.access(TUN_DEVICE, os.R_OK | os.W_OK):
        return f"this user may not open {TUN_DEVICE}: run as root, or `chmod 0666 {TUN_DEVICE}` as on a stock Debian"
    try:
        Tun.create(_PROBE).close()
    except OperationFailed as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError):  # a namespace without power
            return why_refused(cause)
        return str(error)
    return None


def in_child(attempt: Callable[[], str | None]) -> str | None:
    """What ``attempt``, run in a forked child, returned: None for success, else a sentence."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with warnings.catch_warnings():
            # Python ≥ 3.12 warns where there are threads; what attempts do takes no lock that one may have held.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            _answer(theirs, attempt)
        theirs.close()
        message = ours.recv(_MESSAGE_BYTES_MAX)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    if not message:
        return "the attempt to make namespaces was ended from outside: run as root"
    return message[1:].decode(errors="replace") or None


def _answer(to: socket.socket, attempt: Callable[[], str | None]) -> None:
    """In the child, which never returns into what its parent was doing."""
    try:
        to.send(b"." + (attempt() or "").encode()[: _MESSAGE_BYTES_MAX - 1])
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(0)


def _setting(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return (_SETTINGS / path).read_text().strip()
    return None
