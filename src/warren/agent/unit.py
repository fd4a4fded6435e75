"""The systemd units of the agent, the system's and that of an ordinary user: what they say, and putting them in place.

The system's runs as root with a few capabilities left, and the file system read-only but for its own directories, /etc
(resolv.conf is replaced there by renaming) and /run (forwards listen at Unix sockets). ``KillMode=process``: the data
planes are processes of their own and go on while the agent is restarted; a stop in good order removes them. An agent
that ends by a mistake of the user (exit status 2) would make it again, and stays ended.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from warren.agent.places import STATE
from warren.agent.state import locked, networks
from warren.errors import OperationFailed, UsageError
from warren.files import write_atomically

UNIT_DIRECTORY: Final = Path("/etc/systemd/system")
UNIT_NAME: Final = "warren.service"
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")  # sd_booted(3)
_TIMEOUT_S: Final = 120.0
"""More than systemd itself gives a service to start (DefaultTimeoutStartSec, 90 s)."""
_SAME: Final = "is up to date"

_UNIT: Final = """\
[Unit]
Description=Warren, private peer-to-peer networks
Documentation=man:systemd.exec(5)
{order}StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartPreventExitStatus=2
RestartSec=1
RestartSteps=5
RestartMaxDelaySec=30
KillMode=process
TimeoutStopSec=20
LimitNOFILE=65536:524288
UMask=0077
{confinement}
[Install]
WantedBy={target}
"""

_SYSTEM_ORDER: Final = """\
Wants=network-online.target
After=network-online.target nftables.service systemd-resolved.service
"""

_SYSTEM_CONFINEMENT: Final = """\
OOMPolicy=continue

StateDirectory=warren
StateDirectoryMode=0700
RuntimeDirectory=warren wireguard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes

CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_BIND_SERVICE CAP_NET_RAW CAP_SETPCAP
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
LockPersonality=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectSystem=strict
ReadWritePaths=/etc /run
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""


def unit_text(executable: Path) -> str:
    """The unit that runs ``executable up``. Raises UsageError for a path that a unit cannot hold plainly."""
    command = f"{_plain(executable)} up --state /var/lib/warren --run /run/warren"
    return _UNIT.format(
        command=command, order=_SYSTEM_ORDER, confinement=_SYSTEM_CONFINEMENT, target="multi-user.target"
    )


def user_unit_text(executable: Path, state: Path) -> str:
    """The unit of an ordinary user, with the rootless engine. Raises UsageError as :func:`unit_text`."""
    command = f"{_plain(executable)} up --state {_plain(state)}"
    return _UNIT.format(command=command, order="", confinement="", target="default.target")


def _plain(path: Path) -> str:
    if not path.is_absolute():
        raise UsageError(f"{path} is not an absolute path; a unit needs one")
    text = str(path)
    if not text.isprintable() or set(text) & set("\"'\\$% "):
        raise UsageError(f"{text} has characters that a unit would take apart; use another directory")
    return text


def install(executable: Path, state: Path = STATE, *, start: bool, directory: Path = UNIT_DIRECTORY) -> list[str]:
    """Write the unit, and with ``start`` enable and start it, or start it again if it has changed. Returns what was
    done, a sentence each.

    Raises UsageError when the agent of ``state`` would have nothing to do, and OperationFailed; when the unit cannot
    be written nothing has changed.
    """
    text = unit_text(executable)
    if not directory.is_dir():
        raise OperationFailed(
            f"{directory} does not exist: this host does not use systemd; start `warren up` otherwise"
        )
    if not os.access(directory, os.W_OK):
        raise OperationFailed(f"{directory} may not be written by this user; run `warren install` as root (sudo)")
    if not _SYSTEMD_RUNS.is_dir():
        done = _write(directory / UNIT_NAME, text)
        return [done, "systemd does not run here, so it was not told; it reads the unit when it starts"]
    return _install(directory / UNIT_NAME, text, state, [], start=start)


def install_for_user(executable: Path, state: Path, *, start: bool) -> list[str]:
    """As :func:`install`, for this user alone: ``systemctl --user`` starts it when he logs in."""
    text = user_unit_text(executable, state)
    if not _SYSTEMD_RUNS.is_dir():
        raise OperationFailed("this host does not run systemd; start `warren up` otherwise")
    path = _user_directory() / UNIT_NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        done = _install(path, text, state, ["--user"], start=start)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise OperationFailed(f"{what}; `warren install --print` prints it, to be put where it may be") from None
    return [*done, "to keep it running while you are not logged in: loginctl enable-linger"]


def remove(*, for_user: bool, directory: Path = UNIT_DIRECTORY) -> list[str]:
    """Stop the service and remove its unit; keys and documents stay. Returns what was done. Raises OperationFailed."""
    path = (_user_directory() if for_user else directory) / UNIT_NAME
    if not path.exists():
        return [f"there is no {path}"]
    options = ["--user"] if for_user else []
    if runs := _SYSTEMD_RUNS.is_dir():
        _systemctl(*options, "disable", "--now", UNIT_NAME)
    try:
        path.unlink()
    except OSError as error:
        raise OperationFailed(f"{path} cannot be removed: {error.strerror}; run as the user who has it") from None
    if runs:
        _systemctl(*options, "daemon-reload")
    return ["stopped and disabled" if runs else "systemd does not run here, so it was not told", f"{path} removed"]


def _user_directory() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"


def _install(path: Path, text: str, state: Path, options: list[str], *, start: bool) -> list[str]:
    name = " ".join(["systemctl", *options])
    runs = _answers(*options, "is-active", "--quiet", UNIT_NAME)
    if start and not runs:
        with locked(state):  # or another agent has it, and says so
            if not networks(state):
                raise UsageError("this machine is in no network yet: join one first, `warren up TICKET`")
    done = [_write(path, text)]
    changed = not done[0].endswith(_SAME)
    _systemctl(*options, "daemon-reload")
    if not start:
        return [*done, f"now run: {name} {'restart' if runs else 'enable --now'} warren"]
    _systemctl(*options, "enable", UNIT_NAME)
    if runs and not changed:
        return [*done, f"it runs already; for a new version of Warren: {name} restart warren"]
    _systemctl(*options, "restart", UNIT_NAME)
    return [*done, f"enabled and started; `{name} status warren` and `warren status` show how it does"]


def _write(path: Path, text: str) -> str:
    old = path.read_text() if path.exists() else None
    if old == text:
        return f"{path} {_SAME}"
    write_atomically(path, text.encode())
    path.chmod(0o644)  # systemd complains of a unit that only its owner can read
    return f"{path} {'written' if old is None else 'replaced'}"


def _systemctl(*arguments: str) -> None:
    done = _ask(*arguments)
    if done.returncode:
        reason = (done.stderr.strip() or "it gives no reason").splitlines()[0]
        raise OperationFailed(f"`systemctl {' '.join(arguments)}` failed: {reason}; the unit is written, so mend that")


def _answers(*arguments: str) -> bool:
    return not _ask(*arguments).returncode


def _ask(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemctl")
    if program is None:
        raise OperationFailed("systemctl is missing although systemd runs; is the PATH right?")
    try:
        return subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        said = " ".join(arguments)
        raise OperationFailed(f"`systemctl {said}` still ran after {_TIMEOUT_S:.0f} s; look at its log") from None
