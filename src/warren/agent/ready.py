"""Tells systemd that the agent answers, so that what comes after its start finds it (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

_VARIABLE: Final = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Say it to the service manager that started this process; does nothing where none did, or it listens no more.

    The variable with its address is taken out of the environment: it is not for child processes.
    """
    address = os.environ.pop(_VARIABLE, "")
    if not address.startswith(("/", "@")):  # other kinds, such as vsock, are of virtual machines
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto(b"READY=1", address)
