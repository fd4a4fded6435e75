"""An HTTP proxy on a lab host: squid, which lets CONNECT through to port 443."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from warren.errors import OperationFailed
from warren.lab.host import Host
from warren.lab.program import Process

_PATIENCE_S: Final = 20.0


def start_proxy(host: Host, address: str, *, port: int, allowed_ports: tuple[int, ...] = (443,)) -> Process:
    """Start squid on ``address`` of ``host``: anyone may CONNECT to ``allowed_ports``, and ask for plain HTTP.

    Returns when it listens. Raises OperationFailed when it is not installed (Debian package squid) or fails.
    """
    directory = host.directory / "squid"
    directory.mkdir(exist_ok=True)
    config = directory / "squid.conf"
    config.write_text(
        "\n".join(
            [
                f"http_port {address}:{port}",
                f"acl tunnels port {' '.join(map(str, allowed_ports))}",
                "acl CONNECT method CONNECT",
                "http_access deny CONNECT !tunnels",
                "http_access allow all",
                "cache deny all",
                f"access_log stdio:{directory / 'access.log'}",
                f"cache_log {directory / 'cache.log'}",
                "cache_store_log none",
                "logfile_rotate 0",
                f"pid_filename {directory / 'squid.pid'}",
                f"coredump_dir {directory}",
                "shutdown_lifetime 0 seconds",
                "max_filedescriptors 1024",
                f"visible_hostname {host.name}",
                "pinger_enable off",
                "via off",
                "",
            ]
        )
    )
    # Its shared memory has the same name wherever it runs, and would outlive it.
    host.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm"])  # noqa: S108  the host's own
    # squid refuses to be root, and in a user namespace there is nobody else: in one of its own it is.
    somebody = ["unshare", "--user", "--map-user=13", "--map-group=13"]
    process = host.start([*somebody, "squid", "-N", "-f", str(config)], name="squid")
    host.wait_for(
        lambda: process.returncode is not None or host.run(["ss", "-Hltn", f"sport = :{port}"], check=False).stdout,
        _PATIENCE_S,
    )
    if process.returncode is not None:
        raise OperationFailed(f"host {host.name}: squid ended: {_last_line(directory / 'cache.log')}")
    return process


def _last_line(log: Path) -> str:
    """The reason, which stands before what it says at its end."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.partition("| ")[2] for line in lines if "FATAL" in line), "it said nothing")
