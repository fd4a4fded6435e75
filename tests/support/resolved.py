"""A real systemd-resolved on a lab host, with a D-Bus of its own.

The package is not installed, since it takes over the machine's resolv.conf; its files are unpacked into a directory.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from warren.lab import Host

_DOWNLOAD_TIMEOUT_S = 60
_PACKAGE = "systemd-resolved"
_PROGRAM = "lib/systemd/systemd-resolved"
_CAPABILITIES = "+net_bind_service,+net_raw,+net_admin,+setpcap"
_BUS = """<busconfig>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


def unpack_resolved(directory: Path) -> Path | str:
    """Where the files of the package are: in ``/``, or in ``directory``, unpacked there once; else why nowhere."""
    for needed in ("dbus-daemon", "setpriv"):
        if shutil.which(needed) is None:
            return f"not installed: {needed}"
    if Path("/", _PROGRAM).exists():
        return Path("/")
    if not (directory / _PROGRAM).exists():
        for needed in ("apt-get", "dpkg"):
            if shutil.which(needed) is None:
                return f"no {_PACKAGE} here, and no {needed} to get it"
        try:
            _run(["apt-get", "-o", "APT::Sandbox::User=root", "download", _PACKAGE], directory)
            for package in directory.glob(f"{_PACKAGE}_*.deb"):
                _run(["dpkg", "-x", str(package), "."], directory)
                package.unlink()
        except (OSError, subprocess.SubprocessError) as error:
            return f"{_PACKAGE} cannot be downloaded ({type(error).__name__})"
    if "not found" in subprocess.run(["ldd", directory / _PROGRAM], capture_output=True, text=True, check=False).stdout:
        return f"libraries of {_PACKAGE} are missing"
    return directory


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=_DOWNLOAD_TIMEOUT_S)


class Resolved:
    """systemd-resolved on ``host``, asked by its programs through a stub file at /etc/resolv.conf."""

    def __init__(self, host: Host, files: Path) -> None:
        self.client = files / "usr/bin/resolvectl"
        """The program resolvectl(1)."""
        configuration = host.directory / "bus.conf"
        configuration.write_text(_BUS)
        host.run(["mkdir", "-p", "/run/dbus", "/run/systemd/resolve"])
        host.run(["chown", "nobody:nogroup", "/run/systemd/resolve"])
        host.run(["sh", "-c", "echo nameserver 127.0.0.53 > /etc/resolv.conf"])
        host.start(["dbus-daemon", "--nofork", f"--config-file={configuration}"], name="dbus")
        host.wait_for(["test", "-S", "/run/dbus/system_bus_socket"])
        # As nobody, with what its unit would leave it: the user it drops to is not on this machine.
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", f"--inh-caps={_CAPABILITIES}"]
        host.start([*command, f"--ambient-caps={_CAPABILITIES}", files / _PROGRAM], name="resolved")
        host.wait_for([self.client, "status"])
