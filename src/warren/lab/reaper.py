"""Ends the processes of lab hosts: those, and only those, that are in a host's namespaces.

A process belongs to a host when its network, mount or UTS namespace is the host's. Programs that make a network
namespace of their own (``ip netns exec``, containers) keep the UTS namespace and are found by it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Collection, Iterator

from warren.linux.netns import NamespaceId, namespace_id

HOST_NAMESPACES = ("net", "mnt", "uts")
"""The kinds that every host has of its own."""

_ROUNDS_MAX = 50  # a host whose programs fork faster than they are killed must not hold up its end for ever
_ROUND_S = 0.1


def namespaces_of(pid: int) -> frozenset[NamespaceId]:
    """Identities of the :data:`HOST_NAMESPACES` that a process is in; empty when it is gone."""
    identities = (namespace_id(pid, kind) for kind in HOST_NAMESPACES)
    return frozenset(identity for identity in identities if identity is not None)


def end_processes(namespaces: frozenset[NamespaceId], *, spare: Collection[int], grace_s: float) -> None:
    """End every process in ``namespaces`` except those in ``spare`` and the caller.

    They get SIGTERM and ``grace_s`` seconds to leave, then SIGKILL; 0 kills at once. The namespaces must be a host's
    own.
    """
    if grace_s > 0:
        _signal_and_wait(namespaces, spare, signal.SIGTERM, grace_s)
    for _ in range(_ROUNDS_MAX):
        if not _signal_and_wait(namespaces, spare, signal.SIGKILL, _ROUND_S):
            return


def _signal_and_wait(
    namespaces: frozenset[NamespaceId], spare: Collection[int], number: signal.Signals, timeout_s: float
) -> bool:
    """Send one signal to all members and wait until they have ended. Returns whether there was any."""
    with contextlib.ExitStack() as opened:
        remaining = set()
        for pidfd in _members(namespaces, spare):
            opened.callback(os.close, pidfd)
            remaining.add(pidfd)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)
        found = bool(remaining)
        deadline = time.monotonic() + timeout_s
        while remaining and (left := deadline - time.monotonic()) > 0:
            remaining.difference_update(_wait_for_ends(remaining, left))
    return found


def _wait_for_ends(pidfds: Collection[int], timeout_s: float) -> list[int]:
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    return [pidfd for pidfd, _ in poll.poll(timeout_s * 1000)]


def _members(namespaces: frozenset[NamespaceId], spare: Collection[int]) -> Iterator[int]:
    """Pidfds, owned by the caller, of the processes in ``namespaces``."""
    for name in os.listdir("/proc"):  # noqa: PTH208  names are wanted
        if not name.isdecimal() or int(name) == os.getpid() or int(name) in spare:
            continue
        if namespaces.isdisjoint(namespaces_of(int(name))):
            continue
        try:
            pidfd = os.pidfd_open(int(name))
        except ProcessLookupError:
            continue
        # The number may have passed to another process since the first look; the pidfd cannot.
        if namespaces.isdisjoint(namespaces_of(int(name))):
            os.close(pidfd)
        else:
            yield pidfd
