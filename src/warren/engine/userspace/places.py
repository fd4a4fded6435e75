"""Where a data plane is found, and what its answers mean on this host; for both ends, and cheap to import."""

from __future__ import annotations

import socket
from pathlib import Path

SOCKET_DIRECTORY = Path("/var/run/wireguard")
"""Fixed by the cross-platform UAPI: the stock ``wg`` looks nowhere else."""


def socket_path(interface: str, directory: Path | None = None) -> Path:
    """``directory``: where an ordinary user's data planes have their sockets, since he may not write there."""
    return (directory or SOCKET_DIRECTORY) / f"{interface}.sock"


def control_path(interface: str, directory: Path | None = None) -> Path:
    """Where a controller listens. Not named ``.sock``: ``wg`` takes those for interfaces."""
    return (directory or SOCKET_DIRECTORY) / f"{interface}.control"


def zone_index(zone: str) -> int:
    """The interface index of an IPv6 zone ("eth0" or "3"). Raises OSError when there is no such interface."""
    return int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
