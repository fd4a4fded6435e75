"""The systemd units of the agent, the system's and that of an ordinary user: what they say, and putting them in place.

The system's runs as root with three capabilities left, and the file system read-only but for its own directories and
/etc (resolv.conf is replaced there by renaming). ``KillMode=process``: the data planes are processes of their own and
go on while the agent is restarted; a stop in good order removes them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed, UsageError
from warren.files import write_atomically

UNIT_DIRECTORY: Final = Path("/etc/systemd/system")
UNIT_NAME: Final = "warren.service"
_SYSTEMD_RUNS: Final = Path("/run/systemd/system")  # sd_booted(3)
_TIMEOUT_S: Final = 30.0

_UNIT: Final = """\
[Unit]
Description=Warren, private peer-to-peer networks
Documentation=man:systemd.exec(5)
{order}StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
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
ReadWritePaths=/etc
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


def install(executable: Path, *, start: bool, directory: Path = UNIT_DIRECTORY) -> list[str]:
    """Write the unit, and with ``start`` enable and start it. Returns what was done, a sentence each.

    Raises OperationFailed; when the unit cannot be written nothing has changed.
    """
    text = unit_text(executable)
    if not directory.is_dir():
        raise OperationFailed(
            f"{directory} does not exist: this host does not use systemd; start `warren up` otherwise"
        )
    if not os.access(directory, os.W_OK):
        raise OperationFailed(f"{directory} may not be written by this user; run `warren install` as root (sudo)")
    done = [_write(directory / UNIT_NAME, text)]
    if not _SYSTEMD_RUNS.is_dir():
        return [*done, "systemd does not run here, so it was not told; it reads the unit when it starts"]
    _systemctl("daemon-reload")
    if start:
        _systemctl("enable", "--now", UNIT_NAME)
        return [*done, "enabled and started; `systemctl status warren` and `warren status` show how it does"]
    return [*done, "now run: systemctl enable --now warren"]


def install_for_user(executable: Path, state: Path, *, start: bool) -> list[str]:
    """As :func:`install`, for this user alone: ``systemctl --user`` starts it when he logs in."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    directory = (Path(base) if base.startswith("/") else Path.home() / ".config") / "systemd" / "user"
    text = user_unit_text(executable, state)
    if not _SYSTEMD_RUNS.is_dir():
        raise OperationFailed("this host does not run systemd; start `warren up` otherwise")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        done = [_write(directory / UNIT_NAME, text)]
    except OSError as error:
        what = f"{directory / UNIT_NAME} cannot be written: {error.strerror}"
        raise OperationFailed(f"{what}; `warren install --print` prints it, to be put where it may be") from None
    _systemctl("--user", "daemon-reload")
    if start:
        _systemctl("--user", "enable", "--now", UNIT_NAME)
        done.append("enabled and started; `systemctl --user status warren` and `warren status` show how it does")
    else:
        done.append("now run: systemctl --user enable --now warren")
    return [*done, "to keep it running while you are not logged in: loginctl enable-linger"]


def _write(path: Path, text: str) -> str:
    old = path.read_text() if path.exists() else None
    if old == text:
        return f"{path} is up to date"
    write_atomically(path, text.encode())
    path.chmod(0o644)  # systemd complains of a unit that only its owner can read
    return f"{path} {'written' if old is None else 'replaced'}"


def _systemctl(*arguments: str) -> None:
    program = shutil.which("systemctl")
    if program is None:
        raise OperationFailed("systemctl is missing although systemd runs; is the PATH right?")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        reason = (done.stderr.strip() or "it gives no reason").splitlines()[-1]
        raise OperationFailed(f"`systemctl {' '.join(arguments)}` failed: {reason}; the unit is written, so mend that")
