"""The right to make namespaces: root has it, and anyone can get it within a user namespace of their own.

``python -m warren.lab.privilege COMMAND …`` runs a program with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from warren.errors import OperationFailed, WarrenError
from warren.lab.holder import give_private_run
from warren.linux import netns, userns
from warren.linux.tun import Tun

_HOST = netns.CLONE_NEWNS | netns.CLONE_NEWNET | netns.CLONE_NEWUTS
_PROBE = "probe0"


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
    # Tried in a child first: some systems hand out a user namespace without power, and there is no way back.
    reason = userns.in_child(_try_user_namespace)
    if reason is not None:
        raise OperationFailed(reason)
    _enter_user_namespace()


def obstacle() -> str | None:
    """Why this process cannot run a lab as it is, in one sentence with a remedy; None when it can."""
    return userns.in_child(_try_as_we_are)


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
    try:
        Tun.create(_PROBE).close()
    except OperationFailed as error:
        return str(error)
    return None


def _try_user_namespace() -> str | None:
    try:
        _enter_user_namespace()
        netns.unshare(_HOST)
    except OSError as error:
        return userns.why_refused(error)
    return userns.why_no_tun()


def _enter_user_namespace() -> None:
    userns.enter_new(_HOST, as_root=True)
    netns.keep_mounts_private()
    give_private_run()
    netns.raise_interface("lo")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
