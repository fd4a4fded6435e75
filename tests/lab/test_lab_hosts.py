"""A lab host: what is its own, how programs and functions run in it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.support.labs import IS_ROOT
from warren.errors import OperationFailed, UsageError
from warren.lab import Lab

SLEEP = ["sleep", f"1000.{os.getpid()}"]


def test_a_host_has_its_own_name_interfaces_run_directory_and_resolver(lab: Lab) -> None:
    a, b = lab.host("alice"), lab.host("bob")
    a.run(["sh", "-c", "echo nameserver 192.0.2.1 > /etc/resolv.conf; touch /var/run/wireguard/mine"])
    assert a.run(["hostname"]).stdout == "alice\n"
    assert a.run(["ls", "/sys/class/net"]).stdout == "lo\n"
    assert a.run(["ls", "/run/wireguard"]).stdout == "mine\n"
    assert b.run(["ls", "/run/wireguard"]).stdout == ""
    assert "192.0.2.1" in a.run(["cat", "/etc/resolv.conf"]).stdout
    assert "192.0.2.1" not in b.run(["cat", "/etc/resolv.conf"]).stdout
    assert "192.0.2.1" not in Path("/etc/resolv.conf").read_text()
    assert socket.gethostname() not in ("alice", "bob")


def test_loopback_is_up_in_both_families(lab: Lab) -> None:
    host = lab.host("a")
    host.run(["ping", "-c1", "-W15", "127.0.0.1"])
    host.run(["ping", "-c1", "-W15", "::1"])


def test_a_program_keeps_the_directory_has_no_input_and_speaks_english(lab: Lab) -> None:
    done = lab.host("a").run(["sh", "-c", "pwd; cat; echo $LANG; echo $X"], env={"X": "given"})
    assert done.stdout == f"{Path.cwd()}\nC\ngiven\n"


def test_a_program_reads_the_input_it_is_given(lab: Lab) -> None:
    assert lab.host("a").run(["tr", "a-z", "A-Z"], input="text").stdout == "TEXT"


@pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")
def test_a_program_runs_as_another_user(lab: Lab) -> None:
    assert lab.host("a").run(["id", "-un"], user="nobody").stdout == "nobody\n"
    with pytest.raises(OperationFailed, match="no user nemo"):
        lab.host("b").run(["id"], user="nemo")


def test_a_failure_is_one_sentence_with_the_output_as_a_note(lab: Lab) -> None:
    host = lab.host("a")
    with pytest.raises(OperationFailed, match=r"host a: `sh -c .*` ended with status 3: last words") as caught:
        host.run(["sh", "-c", "echo more >&2; echo last words >&2; exit 3"])
    assert "more" in "".join(caught.value.__notes__)
    assert host.run(["false"], check=False).returncode == 1
    with pytest.raises(OperationFailed, match="no program no-such-program"):
        host.run(["no-such-program"])
    with pytest.raises(OperationFailed, match="may not be run"):
        host.run(["/etc/passwd"])


def test_a_program_that_takes_too_long_is_ended_with_its_children(lab: Lab) -> None:
    host = lab.host("a")
    with pytest.raises(OperationFailed, match=r"still ran after 0\.2 s"):
        host.run(["sh", "-c", f"{shlex.join(SLEEP)} & wait"], timeout=0.2)
    host.wait_for(lambda: not processes_named(SLEEP))


def test_a_background_program_is_logged_and_stopped_with_its_children(lab: Lab) -> None:
    host = lab.host("a")
    process = host.start(["sh", "-c", f"echo started; {shlex.join(SLEEP)} & wait"], name="worker")
    host.wait_for(lambda: "started" in process.output())
    assert process.log == lab.artifacts / "a-worker.log"
    assert process.returncode is None
    with pytest.raises(OperationFailed, match="still runs"):
        process.wait(0.01)
    assert process.stop(30) == -signal.SIGTERM
    host.wait_for(lambda: not processes_named(SLEEP))
    again = host.start(["true"], name="worker")
    assert again.wait(30) == 0
    assert again.log.name == "a-worker-2.log"


def test_a_program_that_ignores_sigterm_is_killed(lab: Lab) -> None:
    host = lab.host("a")
    process = host.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    host.wait_for(lambda: "ready" in process.output())
    assert process.stop(timeout=0.2) == -signal.SIGKILL


def test_waiting_in_vain_says_for_what(lab: Lab) -> None:
    host = lab.host("a")
    with pytest.raises(OperationFailed, match=r"in vain for host a: `test -e /nowhere`"):
        host.wait_for(["test", "-e", "/nowhere"], timeout=0.05)


def test_a_function_runs_inside_and_its_result_comes_back(lab: Lab) -> None:
    host = lab.host("inner")
    assert host.call(socket.gethostname) == "inner"
    name, interfaces, directory = host.call(lambda: (socket.gethostname(), socket.if_nameindex(), Path.cwd()))
    assert (name, interfaces, directory) == ("inner", [(1, "lo")], Path.cwd())
    assert len(host.call(os.urandom, 1 << 20)) == 1 << 20


def test_an_exception_comes_back_with_its_remote_traceback(lab: Lab) -> None:
    def fail() -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside") as caught:
        lab.host("a").call(fail)
    assert "in fail" in "".join(caught.value.__notes__)


def test_a_function_that_cannot_answer_is_reported(lab: Lab) -> None:
    host = lab.host("a")
    with pytest.raises(OperationFailed, match="died without an answer"):
        host.call(os.kill, 0, signal.SIGKILL)
    with pytest.raises(OperationFailed, match=r"no answer within 0\.1 s"):
        host.call(signal.pause, timeout=0.1)
    with pytest.raises(OperationFailed, match="Unpicklable"):
        host.call(raise_unpicklable)


def test_a_function_does_not_touch_the_program_that_called_it(lab: Lab) -> None:
    changed: list[int] = []
    lab.host("a").call(changed.append, 1)
    assert changed == []
    assert sys.exc_info() == (None, None, None)


def test_a_socket_of_a_host_is_used_from_outside(lab: Lab) -> None:
    host = lab.host("a")
    with host.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
        server.bind(("::1", 0))
        server.listen()
        assert host.call(lambda: socket.create_connection(server.getsockname()[:2]).getpeername()[0]) == "::1"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname()[:2]).close()


def test_a_network_setting_belongs_to_its_host(lab: Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    a.sysctl("net.ipv4.ip_default_ttl", 33)
    assert a.run(["cat", "/proc/sys/net/ipv4/ip_default_ttl"]).stdout == "33\n"
    assert b.run(["cat", "/proc/sys/net/ipv4/ip_default_ttl"]).stdout == "64\n"
    with pytest.raises(OperationFailed, match=r"host a: cannot set net\.no\.such"):
        a.sysctl("net.no.such", 1)


@pytest.mark.parametrize("name", ["", "a b", "../a", "-a", "a" * 33, "ä"])
def test_a_name_that_is_no_host_name_is_refused(lab: Lab, name: str) -> None:
    with pytest.raises(UsageError, match=r"name .*: use 1 to 32 letters"):
        lab.host(name)


def test_a_taken_name_is_refused(lab: Lab) -> None:
    lab.router("a")
    with pytest.raises(UsageError, match="taken"):
        lab.host("a")


def test_a_missing_tool_is_named_with_its_package(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    host = lab.host("a")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("ip") is None
    with pytest.raises(OperationFailed, match="`ip`: apt-get install iproute2"):
        host.ip("link show")
    with pytest.raises(OperationFailed, match="`nft`: apt-get install nftables"):
        host.nft("list ruleset")


def test_a_refused_configuration_names_the_command(lab: Lab) -> None:
    host = lab.host("a")
    with pytest.raises(OperationFailed, match='`ip link set nowhere up`: Cannot find device "nowhere"'):
        host.ip("link set lo mtu 60000", "link set nowhere up")
    with pytest.raises(OperationFailed, match=r"nft says: .*syntax error"):
        host.nft("nonsense")


class _UnpicklableError(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} {two}")


def raise_unpicklable() -> None:
    raise _UnpicklableError(1, 2)


def processes_named(command: list[str]) -> list[str]:
    """Pids of the processes of this lab's tests with exactly that command line."""
    wanted = b"\0".join(map(str.encode, command)) + b"\0"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes() == wanted:
                found.append(process.name)
        except OSError:
            continue
    return found
