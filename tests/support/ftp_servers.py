"""FTP servers of Debian, on a loopback address and a port that was free: one process each, with a directory of its own.

``proftpd`` and ``pure-ftpd`` come from what ``tools/unpack-packages.sh`` left, since their packages exclude vsftpd's.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

UNPACKED = Path(__file__).parents[2] / ".stamps/unpacked"
PASSWORD = "secret"
_CRYPTED = "$6$warren$XKrdVcG4PXdcMX9.B/hHf2VR4uqDkXa5HUXXN4JnfseZ0mWMDJNnTkt/QdsnJKJsdtSClleS5Apiw5ESyB.oD."
_NOBODY = 65534
_START_S = 30.0
# proftpd closes all descriptors that there might be, one by one, for each session.
_FEW_FILES = 'ulimit -n 256; exec "$@"'

NAMES = ("vsftpd", "proftpd", "pure-ftpd")
_PACKAGES = {"vsftpd": "vsftpd", "proftpd": "proftpd-core", "pure-ftpd": "pure-ftpd"}


class FtpServer(NamedTuple):
    """A running one. Whoever knows ``user`` and PASSWORD may do everything in ``root``."""

    name: str
    host: str
    port: int
    root: Path
    user: str


def missing(name: str) -> str | None:
    """Why this server cannot be had here, if it cannot."""
    if _program(name) is None:
        return f"the Debian package {_PACKAGES[name]} is not there"
    if name == "pure-ftpd" and not _may_be_nobody():
        return "pure-ftpd needs a second user, who is not in this user namespace"
    return None


@contextmanager
def ftp_server(name: str, host: str, directory: Path, *, without_epsv: bool = False) -> Iterator[FtpServer]:
    """``directory`` is the server's own. ``without_epsv``: it refuses EPSV (vsftpd only)."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        port = int(probe.getsockname()[1])
    server, commands = prepared(name, host, port, directory, without_epsv=without_epsv)
    log = (directory / "log").open("wb")
    running = [
        subprocess.Popen(
            ["sh", "-c", _FEW_FILES, "sh", *command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=_environment(name),
            start_new_session=True,
        )
        for command in commands
    ]
    try:
        _wait_until_it_listens(server, running, directory)
        yield server
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def prepared(
    name: str, host: str, port: int, directory: Path, *, without_epsv: bool = False
) -> tuple[FtpServer, list[list[str]]]:
    """A server that is to be, and the commands that start it; for ``directory`` see :func:`ftp_server`."""
    root = directory / "root"
    root.mkdir(parents=True)
    root.chmod(0o777)
    for parent in directory.parents:
        if parent.owner() == root.owner() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    server = FtpServer(name, host, port, root, "anonymous" if name == "vsftpd" else "alice")
    make = {"vsftpd": _vsftpd, "proftpd": _proftpd, "pure-ftpd": _pure_ftpd}[name]
    return server, make(server, directory, "EPSV" if without_epsv else "")


def _vsftpd(server: FtpServer, directory: Path, denied: str) -> list[list[str]]:
    six = ":" in server.host
    lines = {
        "listen": "NO" if six else "YES",
        "listen_ipv6": "YES" if six else "NO",
        "listen_address6" if six else "listen_address": server.host,
        "listen_port": server.port,
        "background": "NO",
        "run_as_launching_user": "YES",
        "anonymous_enable": "YES",
        "no_anon_password": "YES",
        "anon_root": server.root,
        "anon_upload_enable": "YES",
        "anon_mkdir_write_enable": "YES",
        "anon_other_write_enable": "YES",
        "anon_umask": "022",
        "write_enable": "YES",
        "connect_from_port_20": "NO",
        "async_abor_enable": "YES",
        "seccomp_sandbox": "NO",
    }
    if denied:
        lines["cmds_denied"] = denied
    config = directory / "vsftpd.conf"
    config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    return [[_found("vsftpd"), str(config)]]


def _proftpd(server: FtpServer, directory: Path, _: str) -> list[list[str]]:
    uid, gid = os.getuid(), os.getgid()
    users = directory / "users"
    users.write_text(f"{server.user}:{_CRYPTED}:{uid}:{gid}::{server.root}:/bin/sh\n")
    users.chmod(0o600)
    config = directory / "proftpd.conf"
    config.write_text(f"""
ServerName test
ServerType standalone
UseIPv6 on
DefaultAddress {server.host}
SocketBindTight on
Port {server.port}
User {pwd.getpwuid(uid).pw_name}
Group {grp.getgrgid(gid).gr_name}
AuthOrder mod_auth_file.c
AuthUserFile {users}
RootLogin on
RequireValidShell off
UseFtpUsers off
UseReverseDNS off
DelayEngine off
WtmpLog off
TransferLog none
SystemLog {directory}/proftpd.log
PidFile {directory}/proftpd.pid
ScoreboardFile {directory}/scoreboard
ControlsEngine off
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
DefaultRoot ~
""")
    return [[_found("proftpd"), "--nodaemon", "--quiet", "--config", str(config)]]


def _pure_ftpd(server: FtpServer, directory: Path, _: str) -> list[list[str]]:
    uid = _NOBODY if os.getuid() == 0 else os.getuid()
    script = directory / "authenticate"
    script.write_text(f"""#!/bin/sh
echo auth_ok:1
echo uid:{uid}
echo gid:{uid}
echo dir:{server.root}
echo end
""")
    script.chmod(0o700)
    door = directory / "door"
    who = [_found("pure-authd"), "--socket", str(door), "--run", str(script)]
    what = [_found("pure-ftpd"), "--login", f"extauth:{door}", "--bind", f"{server.host},{server.port}"]
    return [who, [*what, "--dontresolve", "--chrooteveryone", "--noanonymous", "--pidfile", str(directory / "pid")]]


def _wait_until_it_listens(server: FtpServer, running: list[subprocess.Popen[bytes]], directory: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and all(process.poll() is None for process in running):
        try:
            with socket.create_connection((server.host, server.port), timeout=5) as sock:
                if sock.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.01)
    raise AssertionError(f"{server.name} did not start: {(directory / 'log').read_text(errors='replace')}")


def _found(program: str) -> str:
    found = _program(program)
    if found is None:
        raise FileNotFoundError(program)
    return found


def _program(name: str) -> str | None:
    package = "pure-ftpd" if name == "pure-authd" else _PACKAGES[name]
    unpacked = UNPACKED / package / "usr/sbin" / name
    return shutil.which(name) or (str(unpacked) if unpacked.exists() else None)


def _environment(name: str) -> dict[str, str]:
    libraries = sorted((UNPACKED / _PACKAGES[name]).glob("usr/lib/*/lib*.so.*"))
    if not libraries:
        return dict(os.environ)
    return os.environ | {"LD_LIBRARY_PATH": str(libraries[0].parent)}


def _may_be_nobody() -> bool:
    """Whether this user namespace knows more than one user."""
    ranges = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return sum(int(count) for count in ranges[2::3]) > _NOBODY
