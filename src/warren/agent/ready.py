"""Tells systemd that the agent answers, so that what comes after its start finds it (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"


def service_manager() -> Callable[[], None]:
    """What tells the service manager that started this process that it is ready; it does nothing where none did, or it
    listens no more.

    Call it before anything is started: it takes the variable with the address out of the environment, since that is not
    for child processes.
    """
    address = os.environ.pop(_VARIABLE, "")
    return lambda: _tell_ready(address)


def _tell_ready(address: str) -> None:
    if not address.startswith(("/", "@")):  # other kinds, such as vsock, are of virtual machines
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto(b"READY=1", address)
