"""The systemd unit of the agent: what it says, and putting it in place.

The unit runs as root with three capabilities left and the file system read-only but for its own directories and /etc
(resolv.conf is replaced there by renaming). ``KillMode=process``: the data planes are processes of their own and go on
while the agent is restarted; a stop in good order removes them.
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

_TEMPLATE: Final = """\
[Unit]
Description=Warren, private peer-to-peer networks
Documentation=man:systemd.exec(5)
Wants=network-online.target
After=network-online.target nftables.service systemd-resolved.service
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}
Restart=on-failure
RestartSec=1
RestartSteps=5
RestartMaxDelaySec=30
KillMode=process
TimeoutStopSec=20
LimitNOFILE=65536
OOMPolicy=continue

StateDirectory=warren
StateDirectoryMode=0700
RuntimeDirectory=warren wireguard
RuntimeDirectoryMode=0700
RuntimeDirectoryPreserve=yes
UMask=0077

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

[Install]
WantedBy=multi-user.target
"""


def unit_text(executable: Path) -> str:
    """The unit that runs ``executable up``. Raises UsageError for a path that a unit cannot hold plainly."""
    if not executable.is_absolute():
        raise UsageError(f"{executable} is not an absolute path; a unit needs one")
    path = str(executable)
    if not path.isprintable() or set(path) & set("\"'\\$% "):
        raise UsageError(f"{path} has characters that a unit would take apart; install Warren in another directory")
    return _TEMPLATE.format(command=f"{path} up --state /var/lib/warren --run /run/warren")


def install(executable: Path, *, start: bool, directory: Path = UNIT_DIRECTORY) -> list[str]:
    """Write the unit, and with ``start`` enable and start it. Returns what was done, a sentence each.

    Raises OperationFailed; when the unit cannot be written nothing has changed.
    """
    text = unit_text(executable)
    path = directory / UNIT_NAME
    if not directory.is_dir():
        raise OperationFailed(
            f"{directory} does not exist: this host does not use systemd; start `warren up` otherwise"
        )
    if not os.access(directory, os.W_OK):
        raise OperationFailed(f"{directory} may not be written by this user; run `warren install` as root (sudo)")
    old = path.read_text() if path.exists() else None
    if old == text:
        done = [f"{path} is up to date"]
    else:
        write_atomically(path, text.encode())
        path.chmod(0o644)  # systemd complains of a unit that only root can read
        done = [f"{path} {'written' if old is None else 'replaced'}"]
    if not _SYSTEMD_RUNS.is_dir():
        return [*done, "systemd does not run here, so it was not told; it reads the unit when it starts"]
    _systemctl("daemon-reload")
    if start:
        _systemctl("enable", "--now", UNIT_NAME)
        return [*done, "enabled and started; `systemctl status warren` and `warren status` show how it does"]
    return [*done, "now run: systemctl enable --now warren"]


def _systemctl(*arguments: str) -> None:
    program = shutil.which("systemctl")
    if program is None:
        raise OperationFailed("systemctl is missing although systemd runs; is the PATH right?")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        reason = (done.stderr.strip() or "it gives no reason").splitlines()[-1]
        raise OperationFailed(f"systemctl {arguments[0]} failed: {reason}")
