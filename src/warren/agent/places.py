"""Where the agent keeps things.

Root's are in the system's directories, an ordinary user's where the XDG Base Directory Specification has them::

    what must last   /var/lib/warren   $XDG_STATE_HOME/warren, else ~/.local/state/warren
    sockets          /run/warren       $XDG_RUNTIME_DIR/warren, else /tmp/warren-UID
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed, UsageError

STATE: Final = Path("/var/lib/warren")
RUN: Final = Path("/run/warren")
SOCKET_NAME: Final = "agent.sock"
_SYSTEMD: Final = Path("/run/user")
"""Has a directory for each user who is logged in (pam_systemd(8))."""
_SOCKET_NAME_BYTES: Final = 107
"""unix(7), sun_path, without the NUL."""
_SHARED: Final = Path("/tmp")  # noqa: S108  what is below it is checked to be ours


@dataclass(frozen=True, slots=True)
class Places:
    """Where the agent keeps what must last (``state``), and where its sockets are (``run``)."""

    state: Path
    run: Path

    @property
    def socket(self) -> Path:
        """The agent's control socket."""
        return self.run / SOCKET_NAME

    @property
    def nest(self) -> Path:
        """The socket of the rootless engine's helper."""
        return self.run / "nest.sock"

    @property
    def planes(self) -> Path:
        """The directory of the rootless engine's data planes."""
        return self.run / "wireguard"

    @property
    def resolv_conf(self) -> Path:
        """What programs in the overlay of the rootless engine are to have as /etc/resolv.conf."""
        return self.run / "resolv.conf"

    def check(self) -> None:
        """Raises UsageError when the names of sockets in ``run`` would be too long."""
        longest = self.planes / "w-123456789012345.control"
        room = _SOCKET_NAME_BYTES - len(os.fsencode(longest)) + len(os.fsencode(self.run))
        if len(os.fsencode(self.run)) > room:
            raise UsageError(
                f"{self.run} is too long a name for sockets in it (at most {room} bytes); use another --run"
            )


def places(state: str | None = None, run: str | None = None) -> Places:
    """What the command line says, else the environment, else the usual places.

    Raises OperationFailed when somebody else has the usual place.
    """
    said_state = state or os.environ.get("WARREN_STATE")
    said_run = run or os.environ.get("WARREN_RUN")
    return Places(
        Path(said_state).absolute() if said_state else _usual_state(),
        Path(said_run).absolute() if said_run else _usual_run(),
    )


def _usual_state() -> Path:
    if os.geteuid() == 0:
        return STATE
    base = _xdg("XDG_STATE_HOME")
    if base is None:
        try:
            home = Path.home()
        except RuntimeError:
            return STATE  # where it cannot be made, which says more than that there is no home
        base = home / ".local" / "state"
    return base / "warren"


def _usual_run() -> Path:
    if os.geteuid() == 0:
        return RUN
    for base in (_xdg("XDG_RUNTIME_DIR"), _SYSTEMD / str(os.geteuid())):
        if base is not None and _is_ours(base):  # su(1) may leave another user's there, or none
            return base / "warren"
    path = _SHARED / f"warren-{os.geteuid()}"
    if path.is_symlink() or (path.exists() and not _is_private(path)):
        raise OperationFailed(f"{path} is not a private directory of this user; remove it, or name another with --run")
    return path


def _is_ours(path: Path) -> bool:
    try:
        return path.is_dir() and path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _is_private(path: Path) -> bool:
    return _is_ours(path) and not path.stat().st_mode & 0o077


def _xdg(variable: str) -> Path | None:
    """Paths in these variables that are not absolute are to be ignored."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else None
