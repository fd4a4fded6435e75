"""The relay judged by coturn's own tools, and coturn by the table of peers that ours refuses."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from tests.support.turn_clients import TurnAsker, error_of, place
from warren.lab import Host, Lab

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("turnutils_uclient") is None, reason="the Debian package coturn is not installed"),
]

RELAY4, RELAY6, PEER4, PEER6 = "10.9.0.1", "fd09::1", "10.9.0.2", "fd09::2"
PORT, TLS_PORT = 3478, 5349
MESSAGES = 10
_LIMIT_S = 90.0

CONFIG = f"""
udp_port = {PORT}
tcp_port = {PORT}
tls_port = {TLS_PORT}
[users]
u = "p"
[peers]
allow = ["10.9.0.0/24", "fd09::/64"]
[limits]
allocations_per_user = 64
"""


@dataclass
class Scene:
    relay: Host
    client: Host


@pytest.fixture
def scene(lab: Lab) -> Scene:
    relay, client = lab.host("relay"), lab.host("client")
    lab.link(relay, client, [f"{RELAY4}/24", f"{RELAY6}/64"], [f"{PEER4}/24", f"{PEER6}/64"])
    config = relay.directory / "relay.toml"
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "warren", "relay", "run", "--config", str(config)]
    process = relay.start([*command, "--state", str(relay.directory)], name="relay")
    relay.wait_for(lambda: "relaying at" in process.log.read_text())
    client.start(["turnutils_peer", "-L", PEER4, "-L", PEER6, "-p", "3480"], name="peer")
    return Scene(relay, client)


@pytest.mark.parametrize("transport", [[], ["-t"], ["-t", "-S", "-p", str(TLS_PORT)]], ids=["udp", "tcp", "tls"])
@pytest.mark.parametrize(
    ("server", "peer", "how"),
    [
        (RELAY4, ["-e", PEER4, "-X"], []),
        (RELAY6, ["-e", PEER6, "-x"], ["-s"]),
        (RELAY4, ["-e", PEER6, "-x"], ["-s"]),
        (RELAY6, ["-e", PEER4, "-X"], []),
    ],
    ids=["4-to-4-channels", "6-to-6-indications", "4-to-6-indications", "6-to-4-channels"],
)
def test_coturns_client_is_served(
    scene: Scene, server: str, peer: list[str], how: list[str], transport: list[str]
) -> None:
    options = ["-u", "u", "-w", "p", "-n", str(MESSAGES), "-m", "2", "-l", "170", "-z", "5", "-c"]
    done = scene.client.run(
        ["turnutils_uclient", *options, *transport, *how, *peer, "-r", "3480", server], timeout=_LIMIT_S
    )
    # Over TLS this tool misses up to a sixth of what comes to it, from coturn's own server too.
    assert lost_of(done.stdout) <= (MESSAGES // 2 if "-S" in transport else 0), done.stdout[-2000:]
    assert int(re.findall(r"tot_recv_msgs=(\d+)", done.stdout)[-1]) >= MESSAGES


def lost_of(output: str) -> int:
    """Of 2 × MESSAGES."""
    found = re.search(r"Total lost packets (-?\d+) ", output)
    assert found, output[-2000:]
    return int(found[1])


@pytest.mark.parametrize("extra", [["-g"], ["-D"], ["-y"], ["-y", "-s"]], ids=" ".join)
def test_the_rest_of_coturns_client(scene: Scene, extra: list[str]) -> None:
    """DONT-FRAGMENT, mandatory padding, client to client."""
    options = ["-u", "u", "-w", "p", "-n", str(MESSAGES), "-m", "2", "-l", "170", "-z", "5"]
    there = [] if "-y" in extra else ["-e", PEER4, "-r", "3480", "-X"]
    done = scene.client.run(["turnutils_uclient", *options, *extra, *there, RELAY4], timeout=_LIMIT_S)
    assert lost_of(done.stdout) == 0, done.stdout[-2000:]


def test_an_even_port_with_the_next_one_reserved(scene: Scene) -> None:
    """Without -c coturn's client asks for pairs of ports."""
    options = ["-u", "u", "-w", "p", "-n", "5", "-m", "1", "-l", "100", "-z", "5", "-e", PEER4, "-r", "3480", "-X"]
    done = scene.client.run(["turnutils_uclient", *options, RELAY4], timeout=_LIMIT_S)
    assert lost_of(done.stdout) == 0, done.stdout[-2000:]


def test_a_wrong_password_is_refused(scene: Scene) -> None:
    done = scene.client.run(
        ["turnutils_uclient", "-u", "u", "-w", "wrong", "-n", "1", "-e", PEER4, "-X", RELAY4], timeout=60, check=False
    )
    assert "Total lost packets 0 " not in done.stdout


@pytest.mark.parametrize("server", [RELAY4, RELAY6])
def test_coturns_stun_client_is_told_its_address(scene: Scene, server: str) -> None:
    done = scene.client.run(["turnutils_stunclient", server], timeout=60)
    address = PEER6 if ":" in server else PEER4
    assert f"UDP reflexive addr: {address}" in done.stdout.replace("[", "").replace("]", "")


def test_coturns_discovery_learns_how_a_nat_behaves(lab: Lab) -> None:
    relay, client = lab.host("relay"), lab.host("client")
    lab.link(relay, client, ["10.9.0.1/24", "10.9.0.11/24"], ["10.9.0.2/24"])
    config = relay.directory / "relay.toml"
    config.write_text('secrets = ["0123456789abcdef"]\ndiscovery_addresses = ["10.9.0.1", "10.9.0.11"]\n')
    command = [sys.executable, "-m", "warren", "relay", "run", "--config", str(config)]
    process = relay.start([*command, "--state", str(relay.directory)], name="relay")
    relay.wait_for(lambda: "relaying at" in process.log.read_text())
    said = client.run(["turnutils_natdiscovery", "-m", "-f", "10.9.0.1"], timeout=_LIMIT_S).stdout
    assert "Other addr: : 10.9.0.11:3479" in said
    assert "NAT with Endpoint Independent Mapping!" in said
    assert "NAT with Endpoint Independent Filtering!" in said


# The negative control

MAPPED = ("::ffff:127.0.0.1", "::ffff:0.0.0.0")
REFUSED = ("127.0.0.1", "0.0.0.0", "::1", "::", "169.254.169.254", *MAPPED, "64:ff9b::127.0.0.1")  # noqa: S104


@pytest.mark.skipif(shutil.which("turnserver") is None, reason="the Debian package coturn is not installed")
def test_peers_that_coturn_lets_through_are_refused_here(scene: Scene, lab: Lab) -> None:
    """Debian's coturn 4.6.1 permits loopback written as IPv4-mapped; a test that never fails would prove nothing."""
    version = subprocess.run(["turnserver", "--version"], capture_output=True, text=True, check=False).stdout
    other = lab.host("coturn")
    lab.link(other, scene.client, "10.8.0.1/24", "10.8.0.2/24", interfaces=("eth0", "eth1"))
    command = ["turnserver", "-n", "--lt-cred-mech", "-u", "u:p", "-r", "x", "--no-cli", "--no-tls", "--no-dtls"]
    other.start([*command, "--log-file", "stdout", "--pidfile", str(other.directory / "pid")], name="coturn")
    other.wait_for(["sh", "-c", f"ss -lun | grep -q ':{PORT} '"])
    ours = scene.client.call(judge, RELAY4)
    theirs = scene.client.call(judge, "10.8.0.1")
    assert set(ours.values()) == {403}
    assert theirs["127.0.0.1"] == 403, "the same questions are understood by both"
    if "4.6.1" in version:
        assert {theirs[peer] for peer in MAPPED} == {0}


def judge(server: str) -> dict[str, int]:
    """What a server says to a permission for each address."""
    found = {}
    for family in (4, 6):
        asker = UdpAsker(server)
        allocated = asker.allocate(family=family)
        for peer in REFUSED:
            if (":" in peer) == (family == 6):
                found[peer] = error_of(asker.permit(place(peer, 80))) if error_of(allocated) == 0 else -1
    return found


class UdpAsker(TurnAsker):
    def __init__(self, server: str) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((server, PORT))
        self.sock.settimeout(5)
        super().__init__(self._exchange, sha256=False)

    def _exchange(self, data: bytes) -> bytes:
        for _ in range(3):
            self.sock.send(data)
            try:
                return self.sock.recv(65536)
            except (TimeoutError, ConnectionRefusedError):
                time.sleep(0.2)  # a server that is just starting
        raise TimeoutError("the server does not answer")
