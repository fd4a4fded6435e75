"""Which engine this host and this user can have, and why not the others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final, Literal

from warren.errors import OperationFailed
from warren.linux import netns, userns
from warren.linux.tun import Tun

EngineName = Literal["userspace", "rootless"]
_PROBE: Final = "probe%d"  # the kernel fills in a number that is free


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine to use."""

    engine: EngineName
    why: str
    """One sentence."""


def choose(wanted: Literal["auto", "userspace", "rootless"] = "auto") -> Choice:
    """Try which engines work, by making a TUN device in a child process: with what this process may do, and as anyone
    in a user namespace.

    ``auto`` is ``userspace`` where that works: the host's programs then reach the network as they reach any other.
    Raises OperationFailed with all reasons when none that is wanted works.
    """
    if wanted == "rootless":
        reason = userns.in_child(_try_rootless)
        if reason is not None:
            raise OperationFailed(f"the rootless engine does not work here: {reason}")
        return Choice("rootless", "it was asked for")
    reason = userns.in_child(_try_userspace)
    if reason is None:
        why = "it was asked for" if wanted == "userspace" else "this process may make network interfaces"
        return Choice("userspace", why)
    if wanted == "userspace":
        raise OperationFailed(f"the userspace engine does not work here: {reason}")
    other = userns.in_child(_try_rootless)
    if other is not None:
        raise OperationFailed(f"no engine works here; userspace: {reason}; rootless: {other}")
    return Choice("rootless", "this process may make no interface of the host")


def _try_userspace() -> str | None:
    try:
        Tun.create(_PROBE).close()
    except OperationFailed as error:
        if isinstance(error.__cause__, PermissionError) and os.access(userns.TUN_DEVICE, os.R_OK | os.W_OK):
            return "this process may not make network interfaces: run as root or with CAP_NET_ADMIN"
        return str(error)
    return None


def _try_rootless() -> str | None:
    try:
        userns.enter_new(netns.CLONE_NEWNET, as_root=False)
    except OSError as error:
        return userns.why_refused(error)
    return userns.why_no_tun()
