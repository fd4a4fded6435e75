"""Boots the machine's own systemd as process 1 of namespaces, as root on a lab host: ``systemd_boot.py DIRECTORY``.

The network stays the lab host's. The root is an overlay over the machine's: what is written goes to memory and ends
with it, and of the units only those few are there that every system has. ``DIRECTORY/ready`` gets the number of process
1 as seen from outside. It ends with this program, and this program with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

PROGRAMS: Final = (Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd"))
_UNITS: Final = "lib/systemd/system"
_KEPT: Final = """
basic default exit final local-fs local-fs-pre multi-user network network-online network-pre nss-lookup
nss-user-lookup paths poweroff remote-fs shutdown slices sockets swap sysinit time-set time-sync timers umount
"""
_KEPT_OTHERS: Final = """
systemd-exit.service systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
systemd-poweroff.service user.slice
"""
_NEW_MOUNTS, _NEW_CGROUPS = 0x00020000, 0x02000000
_NEW_UTS, _NEW_IPC, _NEW_PIDS = 0x04000000, 0x08000000, 0x20000000
HOME: Final = "/run/home"
_USER_MANAGER: Final = f"""\
[Service]
User=%i
Type=notify
Environment=HOME={HOME} XDG_RUNTIME_DIR=/run/user/%i
ExecStartPre=+/usr/bin/install -d -m 755 /run/user
ExecStartPre=+/usr/bin/install -d -m 700 -o %i /run/user/%i {HOME}
ExecStart=/lib/systemd/systemd --user
Slice=user-%i.slice
KillMode=mixed
Delegate=yes
"""
"""As the unit of every system, without the PAM and logind that would make the directories."""
PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41}
_MNT_DETACH: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_WITHDRAWN_S: Final = 10.0
_ENVIRONMENT: Final = {"container": "warren", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}
"""``container``: without it systemd takes itself for the machine's and would set its clock and kernel."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(directory: Path) -> int:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    _unshare(_NEW_MOUNTS | _NEW_UTS | _NEW_IPC)
    _sh("mount --make-rprivate /")
    cgroups = directory / "cgroups"
    cgroups.mkdir()
    _sh(f"mount -t cgroup2 cgroup2 {cgroups}")
    ours = cgroups / f"warren-test-{os.getpid()}"
    ours.mkdir()
    (ours / "cgroup.procs").write_text(str(os.getpid()))
    _unshare(_NEW_CGROUPS | _NEW_PIDS)
    pid = os.fork()
    if pid == 0:
        _boot(directory)
    (ours.parent / "cgroup.procs").write_text(str(os.getpid()))
    (directory / "ready.new").write_text(str(pid))
    (directory / "ready.new").rename(directory / "ready")
    while signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):  # else it was a program that mounted
            break
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    _remove(ours)
    return status


def _boot(directory: Path) -> None:
    """In the child, process 1, which never returns."""
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        _unshare(_NEW_MOUNTS)  # the parent keeps the machine's root, by which it finds the control group
        root = _lay_out(directory)
        os.chdir(root)
        (root / ".outside").mkdir()
        if _libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b".outside"):
            raise OSError(ctypes.get_errno(), "pivot_root")
        os.chdir("/")
        _libc.umount2(b"/.outside", _MNT_DETACH)
        Path("/.outside").rmdir()
        program = next(path for path in PROGRAMS if path.exists())
        os.execve(program, ["systemd", "--unit=multi-user.target", "--log-target=console"], _ENVIRONMENT)  # noqa: S606
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent's code must not run on here
        os.write(2, f"systemd cannot be booted: {error}\n".encode())
        os._exit(1)


def _lay_out(directory: Path) -> Path:
    """The root of the new machine, with everything mounted in it."""
    memory, root = directory / "memory", directory / "memory/root"
    memory.mkdir()
    _sh(f"""
        mount -t tmpfs -o mode=755 memory {memory}
        mkdir {memory}/upper {memory}/work {memory}/units {memory}/empty {root}
        mount -t overlay -o lowerdir=/,upperdir={memory}/upper,workdir={memory}/work overlay {root}
        mount -t proc proc {root}/proc
        # As systemd-nspawn does it: settings of the whole kernel are not this machine's to change.
        mount --bind {root}/proc/sys {root}/proc/sys
        mount --bind {root}/proc/sys/net {root}/proc/sys/net
        mount -o remount,bind,ro {root}/proc/sys
        mount -t sysfs -o ro sysfs {root}/sys
        mount -t cgroup2 cgroup2 {root}/sys/fs/cgroup
        mount -t tmpfs -o mode=755 run {root}/run
        mount -t tmpfs -o mode=1777 tmp {root}/tmp
        mount -t tmpfs -o mode=755 units {root}/etc/systemd
        mkdir -p {root}/etc/systemd/system {root}/run/lock
        rm -rf {root}/var/log/journal {root}/var/lib/systemd {root}/var/lib/warren
        : >{root}/etc/fstab
        echo 0123456789abcdef0123456789abcdef >{root}/etc/machine-id
        hostname >{root}/etc/hostname
        mount -t tmpfs -o mode=755 dev {root}/dev
        cd {root}/dev
        mkdir pts shm net
        for node in null zero full random urandom tty; do touch $node; mount --bind /dev/$node $node; done
        mknod -m 666 net/tun c 10 200
        mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts pts
        mount -t tmpfs -o mode=1777 shm shm
        ln -s pts/ptmx ptmx; ln -s /proc/self/fd fd; ln -s fd/0 stdin; ln -s fd/1 stdout; ln -s fd/2 stderr
    """)
    units = root / _UNITS
    for unit in [f"{name}.target" for name in _KEPT.split()] + _KEPT_OTHERS.split():
        if (units / unit).exists():
            (memory / "units" / unit).write_bytes((units / unit).read_bytes())
    (memory / "units/user@.service").write_text(_USER_MANAGER)
    wanted = memory / "units/sysinit.target.wants"
    wanted.mkdir()
    (wanted / "systemd-journald.service").symlink_to("../systemd-journald.service")
    # A generator would make units of what is in /etc/init.d.
    _sh(f"mount --bind {memory}/units {units}; mount --bind {memory}/empty {root}/lib/systemd/system-generators")
    _bring_along(root)
    return root


def _bring_along(root: Path) -> None:
    """The project, and the Python it runs on, where they are no part of the machine's root file system."""
    for path in {Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix)}:
        if path.stat().st_dev != Path("/").stat().st_dev:
            inside = root / path.relative_to("/")
            inside.mkdir(parents=True, exist_ok=True)
            _sh(f"mount --bind {path} {inside}")


def _remove(cgroup: Path) -> None:
    """With its last process gone, which may take the kernel a moment."""
    until = time.monotonic() + _WITHDRAWN_S
    while time.monotonic() < until:
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()
        if not cgroup.exists():
            return
        time.sleep(0.05)


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")


def _sh(script: str) -> None:
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip() or "a command failed").splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
