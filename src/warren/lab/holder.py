"""The process that is a host: it holds the host's namespaces and outlives the lab just long enough to clean up.

It waits for the end of the lab's process, however that comes about, then ends every other process in its namespaces and
itself. With the last process the kernel removes the namespaces and their interfaces.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from warren.errors import OperationFailed
from warren.lab.forked import close_all_but, fork_child, reap
from warren.lab.reaper import HOST_NAMESPACES, end_processes, namespaces_of
from warren.linux import netns
from warren.linux.netns import NamespaceId

_MESSAGE_BYTES_MAX = 4096
_PRIVATE_RUN_DIRECTORIES = ("lock", "wireguard")
_IPV6_AT_ONCE = {
    # Duplicate address detection would keep a new address unusable for a second or more.
    "accept_dad": "0",
    "dad_transmits": "0",
    # A cable that is pulled and put back must find its addresses again.
    "keep_addr_on_down": "1",
}


@dataclass(frozen=True, slots=True)
class Holder:
    """A running holder. Its file descriptors are open until :func:`end_holder`."""

    pid: int
    pidfd: int
    namespaces: frozenset[NamespaceId]
    anchors: tuple[int, ...]
    """The open namespaces: their identities pass to no others, even if all processes in them have ended."""


def start_holder(name: str, scratch: Path) -> Holder:
    """Make network, mount and UTS namespaces with host name ``name``, and a child process that holds them.

    Returns once the namespaces are ready: loopback up, IPv6 addresses usable at once, a private /run, /etc/resolv.conf
    and /sys. Should the lab's program die, the directory ``scratch`` is removed with all else. Raises OperationFailed
    when the kernel refuses.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lab = os.pidfd_open(os.getpid())
    with ours:
        try:
            pid = fork_child(lambda: _hold(name, scratch, lab, theirs))
        finally:
            os.close(lab)
            theirs.close()
        trouble = ours.recv(_MESSAGE_BYTES_MAX)
    if trouble != b"ready":
        reap(pid)
        raise OperationFailed(trouble.decode() or f"host {name}: its first process died while it set up its namespaces")
    anchors = (os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in HOST_NAMESPACES)
    return Holder(pid, os.pidfd_open(pid), namespaces_of(pid), tuple(anchors))


def end_holder(holder: Holder) -> None:
    """End the holder and let go of its namespaces. Processes that are still in them are not ended: do that before."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(holder.pidfd, signal.SIGKILL)
    reap(holder.pid)
    for fd in (holder.pidfd, *holder.anchors):
        os.close(fd)


def _hold(name: str, scratch: Path, lab: int, ready: socket.socket) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    close_all_but((lab, ready.fileno()))
    try:
        _make_namespaces(name)
    except OSError as error:
        ready.send(_why_no_namespace(name, error).encode()[:_MESSAGE_BYTES_MAX])
        return
    ready.send(b"ready")
    ready.close()
    select.select((lab,), (), ())
    end_processes(namespaces_of(os.getpid()), spare=(), grace_s=0)
    shutil.rmtree(scratch, ignore_errors=True)


def _make_namespaces(name: str) -> None:
    netns.unshare(netns.CLONE_NEWNS | netns.CLONE_NEWNET | netns.CLONE_NEWUTS)
    netns.set_process_name(f"lab-{name}")
    netns.set_hostname(name)
    netns.keep_mounts_private()
    give_private_run()
    _give_private_resolver()
    _show_own_interfaces()
    for scope in ("all", "default"):
        for setting, value in _IPV6_AT_ONCE.items():
            with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
                Path(f"/proc/sys/net/ipv6/conf/{scope}/{setting}").write_text(value)
    netns.raise_interface("lo")


def give_private_run() -> None:
    """Mount an empty file system on /run (and so on /var/run) of the calling process's mount namespace."""
    netns.mount("tmpfs", "/run", "tmpfs", netns.MS_NOSUID | netns.MS_NODEV, "mode=755")
    for directory in _PRIVATE_RUN_DIRECTORIES:
        Path("/run", directory).mkdir()


def _give_private_resolver() -> None:
    """Give the host an /etc/resolv.conf of its own, so that a program which changes it does not change the machine's.

    Needs the private /run: a symbolic link into it (systemd-resolved, resolvconf) is followed and filled there.
    """
    resolver = Path("/etc/resolv.conf")
    target = resolver.resolve()
    if target.is_relative_to("/run"):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    elif target.exists():
        private = Path("/run/resolv.conf")
        private.touch()
        netns.mount(str(private), target, flags=netns.MS_BIND)


def _show_own_interfaces() -> None:
    """Mount /sys anew: sysfs shows the network namespace of its mounter, and /sys/class/net must be the host's."""
    try:
        netns.mount("sysfs", "/sys", "sysfs", netns.MS_NOSUID | netns.MS_NODEV | netns.MS_NOEXEC)
    except PermissionError:
        # In a container that hides parts of /sys the kernel refuses it: better nothing than another's interfaces.
        netns.mount("tmpfs", "/sys", "tmpfs", netns.MS_RDONLY | netns.MS_NOSUID | netns.MS_NODEV)


def _why_no_namespace(name: str, error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"host {name}: no privilege to make namespaces ({error.strerror}): run as root or in a user namespace"
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return f"host {name}: the limit of namespaces is reached: raise user.max_net_namespaces, or end other labs"
    return f"host {name}: cannot make its namespaces: {error.strerror}"
