"""However a lab ends, it leaves no process, namespace, interface or file, and touches nothing outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from warren.lab import Host, Impairment, Lab
from warren.lab.reaper import HOST_NAMESPACES, end_processes, namespaces_of
from warren.linux.netns import NamespaceId

PATIENCE_S = 30.0
INTERFACE = "warren-leak0"


@contextmanager
def watched(*holders: int) -> Iterator[frozenset[NamespaceId]]:
    """The namespaces of hosts, kept open so that their identities cannot pass to those of another lab."""
    with ExitStack() as opened:
        for pid in holders:
            for kind in HOST_NAMESPACES:
                opened.callback(os.close, os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY))
        yield frozenset().union(*map(namespaces_of, holders))


def members(namespaces: frozenset[NamespaceId]) -> list[int]:
    """Pids of all processes of this machine in any of the namespaces."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if not namespaces.isdisjoint(namespaces_of(pid))]


def wait_until_empty(namespaces: frozenset[NamespaceId]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while left := members(namespaces):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def wait_until_filled(namespaces: frozenset[NamespaceId]) -> None:
    """Until the programs of :func:`fill` are where they belong: some find their way by themselves."""
    deadline = time.monotonic() + PATIENCE_S
    while len(there := members(namespaces)) < 8:
        assert time.monotonic() < deadline, f"only {there}"
        time.sleep(0.01)


def fill(lab: Lab) -> list[int]:
    """Two linked hosts with children, daemons, one that ignores SIGTERM and one in a namespace of its own."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, interfaces=(INTERFACE, "eth0"), impairment=Impairment())
    lab.link(a, b, interfaces=("eth1", "eth1"))
    a.capture("eth1")
    a.start(["sleep", "1000"])
    a.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &"])
    stubborn = b.start(["sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 0.05; done"], name="stubborn")
    b.start(["unshare", "--net", "sleep", "1000"])
    b.begin(signal.pause)
    b.wait_for(lambda: "ready" in stubborn.output())
    return [a.pid, b.pid]


def test_leaving_the_block_ends_every_process_of_its_hosts(lab_privilege: None) -> None:
    before = open_files(), children()
    with ExitStack() as watching:
        with Lab(name="leak") as lab:
            namespaces = watching.enter_context(watched(*fill(lab)))
            scratch = lab.artifacts.parent
            wait_until_filled(namespaces)
        assert members(namespaces) == []
    assert not scratch.exists()
    assert INTERFACE not in interfaces()
    assert open_files() <= before[0]  # what others left may go meanwhile
    assert children() <= before[1]


def test_an_exception_in_the_block_ends_it_too(lab_privilege: None) -> None:
    with ExitStack() as watching:
        namespaces: frozenset[NamespaceId] = frozenset()

        def fail_within() -> None:
            nonlocal namespaces
            with Lab(name="leak") as lab:
                namespaces = watching.enter_context(watched(lab.host("a").pid))
                raise LookupError

        with pytest.raises(LookupError):
            fail_within()
        assert namespaces
        assert members(namespaces) == []


def test_closing_twice_is_harmless_and_closing_in_a_forked_child_does_nothing(lab: Lab) -> None:
    host = lab.host("a")
    child = os.fork()
    if child == 0:
        lab.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert host.run(["echo", "alive"]).stdout == "alive\n"
    lab.close()
    lab.close()


def test_processes_outside_and_of_other_hosts_are_left_alone(lab: Lab) -> None:
    ended, other = lab.host("ended"), lab.host("other")
    doomed, kept = ended.start(["sleep", "1000"]), other.start(["sleep", "1000"])
    with subprocess.Popen(["sleep", "1000"]) as outside:
        end_processes(ended.namespaces, spare=(ended.pid,), grace_s=20.0)
        assert doomed.wait(20) == -signal.SIGTERM
        assert outside.poll() is None
        assert kept.returncode is None
        outside.kill()
    assert ended.run(["echo", "still a host"]).stdout == "still a host\n"


@contextmanager
def runner() -> Iterator[tuple[subprocess.Popen[str], list[int], Path]]:
    """A program of its own that runs a lab: the program, the holders of its hosts, its scratch directory."""
    source = """
        import json, signal
        from tests.lab.test_lab_teardown import fill
        from warren.lab import Lab
        # Whoever runs the tests in the background may have them ignored, and a child inherits that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with Lab(name="leak") as lab:
            print(json.dumps([fill(lab), str(lab.artifacts.parent)]), flush=True)
            signal.pause()
    """
    path = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as popen:
        assert popen.stdout is not None
        try:
            holders, scratch = json.loads(popen.stdout.readline())
            yield popen, holders, Path(scratch)
        finally:
            popen.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_program_that_is_ended_from_outside_leaves_nothing(lab_privilege: None, number: signal.Signals) -> None:
    with runner() as (popen, holders, scratch), watched(*holders) as namespaces:
        wait_until_filled(namespaces)
        popen.send_signal(number)
        assert popen.wait(PATIENCE_S) != 0
        wait_until_empty(namespaces)
    wait_until_gone(scratch)
    assert INTERFACE not in interfaces()


def wait_until_gone(scratch: Path) -> None:
    """Where the program was killed somebody else removes its files, when the processes have ended."""
    deadline = time.monotonic() + PATIENCE_S
    while scratch.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_holder_that_is_killed_first_changes_nothing_about_that(lab_privilege: None) -> None:
    with ExitStack() as watching:
        with Lab(name="leak") as lab:
            host: Host = lab.host("a")
            host.start(["sleep", "1000"])
            namespaces = watching.enter_context(watched(host.pid))
            signal.pidfd_send_signal(host.pidfd, signal.SIGKILL)
        assert members(namespaces) == []


def children() -> set[int]:
    """Of this process, those that nobody has waited for among them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it is gone meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(path.parent.name))
    return found


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
