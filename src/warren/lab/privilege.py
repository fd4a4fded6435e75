"""The right to make namespaces: root has it, and anyone can get it within a user namespace of their own.

``python -m warren.lab.privilege COMMAND …`` runs a program with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from warren.errors import OperationFailed, WarrenError
from warren.lab.forked import fork_child, reap
from warren.lab.holder import give_private_run
from warren.linux import netns
from warren.linux.tun import Tun

_HOST = netns.CLONE_NEWNS | netns.CLONE_NEWNET | netns.CLONE_NEWUTS
_MESSAGE_BYTES_MAX = 1024
_PROBE = "probe0"
_TUN_DEVICE = Path("/dev/net/tun")


def ensure() -> None:
    """Make sure that this process may run a lab; afterwards it may, or OperationFailed says why not and what to do.

    For root with /dev/net/tun nothing changes. Anyone else becomes root of a new user namespace: the process itself,
    once and for all, moves into it together with network, mount and UTS namespaces of its own, an empty /run among
    them. It keeps its files and its rights to them; it cannot become another user any more. Call it before starting
    any thread.
    """
    if obstacle() is None:
        return
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise OperationFailed(
            f"a process with {threads} threads cannot enter a user namespace: run it as root, "
            "or by `python -m warren.lab.privilege COMMAND …`"
        )
    user, group = os.geteuid(), os.getegid()
    # Tried in a child first: some systems hand out a user namespace without power, and there is no way back.
    reason = _in_child(lambda: _try_user_namespace(user, group))
    if reason is not None:
        raise OperationFailed(reason)
    _enter_user_namespace(user, group)


def obstacle() -> str | None:
    """Why this process cannot run a lab as it is, in one sentence with a remedy; None when it can."""
    return _in_child(_try_as_we_are)


def main(arguments: list[str]) -> int:
    """Run the program named by ``arguments`` in place of this one, with the right to make namespaces."""
    if not arguments:
        sys.stderr.write("usage: python -m warren.lab.privilege COMMAND [ARGUMENT …]\n")
        return 2
    try:
        ensure()
        os.execvp(arguments[0], arguments)  # noqa: S606  the program the user named
    except OSError as error:
        sys.stderr.write(f"cannot run {arguments[0]}: {error.strerror}\n")
    except WarrenError as error:
        sys.stderr.write(f"{error}\n")
    return 1


def _try_as_we_are() -> str | None:
    try:
        netns.unshare(_HOST)
        netns.keep_mounts_private()
    except OSError as error:
        return f"no privilege to make namespaces ({error.strerror}): run as root"
    return _try_tun()


def _try_user_namespace(user: int, group: int) -> str | None:
    try:
        _enter_user_namespace(user, group)
        netns.unshare(_HOST)
    except OSError as error:
        return _why_no_user_namespace(error)
    if _TUN_DEVICE.exists() and not os.access(_TUN_DEVICE, os.R_OK | os.W_OK):
        return f"this user may not open {_TUN_DEVICE}: run as root, or `chmod 0666 {_TUN_DEVICE}` as on a stock Debian"
    return _try_tun()


def _try_tun() -> str | None:
    try:
        Tun.create(_PROBE).close()
    except OperationFailed as error:
        return str(error)
    return None


def _enter_user_namespace(user: int, group: int) -> None:
    netns.unshare(netns.CLONE_NEWUSER | _HOST)
    # user_namespaces(7): without privilege the group map may only be written once setgroups is off.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    netns.keep_mounts_private()
    give_private_run()
    netns.raise_interface("lo")


def _why_no_user_namespace(error: OSError) -> str:
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return (
            "user namespaces are switched off for ordinary users: run as root, or "
            "`sysctl -w kernel.unprivileged_userns_clone=1`"
        )
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor leaves user namespaces of ordinary users without power: run as root, or "
            "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`"
        )
    if error.errno == errno.ENOSPC or _setting("user/max_user_namespaces") == "0":
        return "no more user namespaces are allowed: run as root, or raise the sysctl user.max_user_namespaces"
    return f"the kernel or the container gives no user namespace ({error}): run as root"


def _setting(path: str) -> str | None:
    with contextlib.suppress(OSError):
        return Path("/proc/sys", path).read_text().strip()
    return None


def _in_child(attempt: Callable[[], str | None]) -> str | None:
    """What ``attempt``, run in a child process, returned."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pid = fork_child(lambda: _report(theirs, attempt()))
        theirs.close()
        message = ours.recv(_MESSAGE_BYTES_MAX)
        reap(pid)
    if not message:
        return "the attempt to make namespaces was ended from outside: run as root"
    return message[1:].decode() or None


def _report(answer: socket.socket, reason: str | None) -> None:
    answer.send(b"." + (reason or "").encode()[: _MESSAGE_BYTES_MAX - 1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
