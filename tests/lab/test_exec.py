"""``warren exec``: any program reaches the overlay, by names, as the same user, and ends as it would without."""

from __future__ import annotations

import pytest

from tests.support.labs import IS_ROOT
from tests.support.overlay import Underlay, wait_pinged
from tests.support.rootless import USER, OrdinaryUser
from warren.lab import Host, Lab
from warren.lab.network import Network

REPORT = """
grep -E 'Cap(Prm|Eff|Amb)' /proc/self/status
id -u
tr -d '\\0' < /proc/self/environ > /dev/null && pwd
cat
"""


class Pair:
    """Alice with a web server on her host, and Bob, an ordinary user of his."""

    def __init__(self, lab: Lab) -> None:
        underlay = Underlay(lab)
        self.network: Network = underlay.network()
        self.network.start()
        self.alice: Host = underlay.host("alice")
        self.host: Host = underlay.host("bob")
        self.network.join(self.alice)
        self.bob = OrdinaryUser(self.host, self.network)
        self.bob.join()


@pytest.fixture
def pair(lab: Lab) -> Pair:
    return Pair(lab)


pytestmark = pytest.mark.timeout(300)
RESOLVED = "/run/systemd/resolve"
CONNECT = f"import socket; socket.socket(socket.AF_UNIX).connect('{RESOLVED}/io.systemd.Resolve')"
LISTEN = f"""
import os, signal, socket
s = socket.socket(socket.AF_UNIX)
s.bind('{RESOLVED}/io.systemd.Resolve')
os.chmod('{RESOLVED}/io.systemd.Resolve', 0o666)
s.listen()
print("ready", flush=True)
signal.pause()
"""


def names_resolve_on_a_host_of_systemd_resolved(host: Host, bob: OrdinaryUser) -> None:
    """There /etc/resolv.conf is a link into /run, and nss-resolve asks resolved past that file."""
    host.run(["sh", "-c", "cp -a /etc /run/etc && chmod 755 /run && mount --bind /run/etc /etc"])
    host.run(["mkdir", "-p", RESOLVED])
    host.run(["sh", "-c", f"echo nameserver 127.0.0.53 > {RESOLVED}/stub-resolv.conf"])
    host.run(["ln", "-sfn", f"..{RESOLVED}/stub-resolv.conf", "/run/etc/resolv.conf"])
    resolved = host.start(["python3", "-c", LISTEN], name="resolved")
    host.wait_for(lambda: "ready" in resolved.output())
    host.run(["python3", "-c", CONNECT], user=bob.name)

    assert bob.exec("getent", "hosts", "bob.home.internal").stdout.split() == [bob.address(), "bob.home.internal"]
    assert "ConnectionRefusedError" in bob.exec("python3", "-c", CONNECT, check=False).stderr
    host.run(["python3", "-c", CONNECT], user=bob.name)
    assert host.run(["cat", "/etc/resolv.conf"]).stdout == "nameserver 127.0.0.53\n"


def test_programs_reach_members_by_name_and_stay_who_they_are(pair: Pair) -> None:
    bob, alice, host = pair.bob, pair.alice, pair.host
    (alice.directory / "index.html").write_text("hello from alice")
    alice.start(["python3", "-m", "http.server", "--bind", "::", "-d", str(alice.directory), "80"], name="web")
    wait_pinged(alice, bob.address())
    host.wait_for(lambda: bob.exec("curl", "-sfm2", "http://alice.home.internal/", check=False).returncode == 0)
    assert bob.exec("curl", "-sfm20", "http://alice.home.internal/").stdout == "hello from alice"
    assert bob.exec("curl", "-4sfm20", "http://alice.home.internal/").stdout == "hello from alice"
    assert bob.exec("getent", "ahostsv4", "bob.home.internal").stdout.startswith(f"{bob.address(4)} ")
    assert bob.exec("getent", "hosts", bob.address()).stdout.split() == [bob.address(), "bob.home.internal"]
    assert bob.exec("getent", "hosts", "nobody.home.internal", check=False).returncode == 2
    assert host.run(["getent", "hosts", "alice.home.internal"], check=False).returncode == 2  # outside nothing changed

    report = host.run(
        [*bob.command, "exec", "--", "sh", "-c", REPORT], user=bob.name, env=bob.env, input="from stdin\n"
    ).stdout
    assert report.splitlines()[:3] == [f"Cap{name}:\t{'0' * 16}" for name in ("Prm", "Eff", "Amb")]
    assert report.splitlines()[-1] == "from stdin"
    if IS_ROOT:
        assert report.splitlines()[3] == host.run(["id", "-u", USER]).stdout.strip()
    refused = bob.exec("ip", "link", "set", "w-home", "down", check=False)
    assert "not permitted" in refused.stderr
    bob.exec("ping", "-c1", "-W15", "alice.home.internal")
    if IS_ROOT:
        names_resolve_on_a_host_of_systemd_resolved(host, bob)


def test_a_program_ends_as_it_would_without(pair: Pair) -> None:
    bob = pair.bob
    assert bob.exec("sh", "-c", "exit 42", check=False).returncode == 42
    assert bob.exec("sh", "-c", "kill -TERM $$", check=False).returncode == -15
    assert bob.exec("sh", "-c", "kill -PIPE $$", check=False).returncode == -13  # Python's own ignoring is undone
    assert bob.exec(*bob.command, "exec", "sh", "-c", "exit 9", check=False).returncode == 9  # within itself
    assert bob.warren("exec", "sh", "-c", "echo $0 --help -x", "a").stdout == "a --help -x\n"  # options are its own
    missing = bob.exec("no-such-program", check=False)
    assert (missing.returncode, missing.stderr) == (127, "warren: no-such-program: there is no such program\n")
    closed = bob.exec("/etc/passwd", check=False)
    assert (closed.returncode, closed.stderr) == (126, "warren: /etc/passwd cannot be executed: Permission denied\n")
    empty = bob.warren("exec", check=False)
    assert (empty.returncode, empty.stderr.count("\n")) == (2, 1)

    sleeper = bob.start_exec("sleep", "60", name="sleeper")
    pair.host.wait_for(["pgrep", "-x", "sleep"])
    assert sleeper.stop(timeout=30) == -15

    bob.warren("down")
    alone = bob.exec("true", check=False)
    assert (alone.returncode, alone.stderr.count("\n")) == (3, 1)
    assert "no agent runs here" in alone.stderr


@pytest.mark.skipif(not IS_ROOT, reason="is about root")
def test_roots_programs_run_as_they_are_or_without_power_over_the_nest(lab: Lab) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    network.join(alice, "--engine", "rootless")
    network.join(bob, "--engine", "userspace")
    report = "id -u; grep CapEff /proc/self/status; ip link set lo down"
    done = network.warren(alice, "exec", "sh", "-c", report, check=False)
    assert done.stdout.splitlines() == ["0", f"CapEff:\t{'0' * 16}"]
    assert "not permitted" in done.stderr

    said = network.warren(bob, "exec", "--", "ip", "-o", "link").stdout
    assert "eth0" in said
    assert "w-home" in said
    assert network.warren(bob, "exec", "sh", "-c", "exit 3", check=False).returncode == 3
    assert network.address(alice) in network.warren(bob, "exec", "getent", "hosts", "alice.home.internal").stdout
    network.warren(bob, "down")
    assert network.warren(bob, "exec", "true", check=False).returncode == 3
