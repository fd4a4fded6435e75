"""A private network from nothing: a coordinator, three nodes that join by ticket, and what they then can do.

Everything is done with the commands that a person would type, and what they print is shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from signal import SIGKILL

from warren.errors import OperationFailed
from warren.lab.demo.step import Step, flow_bits_per_s, speeds
from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.network import Network
from warren.lab.traffic import tcp_transfer

_SERVER = "198.51.100.1"
_HOSTS = {
    "alice": ("198.51.100.11/24", "2001:db8::11/64"),
    "bob": ("198.51.100.12/24", "2001:db8::12/64"),
    "carol": ("2001:db8::13/64",),
}
_WEB_PORT = 8080
_PINGS = 20
_TRANSFER_BYTES = 64 << 20
_PATIENCE_S = 30.0
_SECRET = b"nobody in between may read this line"
_POLICY = f"""\
network = "home"

[[policy]]
action = "deny"
from = ["members"]
to = ["member:bob"]
protocol = "tcp"
ports = ["{_WEB_PORT}"]
comment = "bob's web server is being repaired"

[[policy]]
action = "allow"
from = ["members"]
to = ["members"]

[[test]]
from = "alice"
to = "bob"
protocol = "tcp"
port = {_WEB_PORT}
expect = "deny"
"""


def run() -> Iterator[Step]:
    """Play it step by step. Raises OperationFailed when a step does not come out as it must."""
    with Lab(name="demo", seed=1) as lab:
        internet, server = lab.bridge("internet"), lab.host("server")
        lab.attach(server, internet, f"{_SERVER}/24", "2001:db8::1/64")
        hosts = {name: lab.host(name) for name in _HOSTS}
        for name, addresses in _HOSTS.items():
            lab.attach(hosts[name], internet, *addresses)
        alice, bob, carol = hosts.values()
        bare = flow_bits_per_s(alice, bob, _HOSTS["bob"][0].partition("/")[0])
        network = Network(server, "home", url=f"https://{_SERVER}:8443")
        yield _coordinator(network)
        yield _join(network, [alice, bob, carol])
        capture = alice.capture("eth0")
        yield _ping(network, alice, [bob, carol])
        yield _status(network, alice)
        yield _transfer(network, alice, bob)
        capture.stop()
        yield _wire(capture.packets())
        yield _policy(network, alice, bob)
        yield _without_coordinator(network, alice, bob)
        through = flow_bits_per_s(alice, bob, network.address(bob))
        yield speeds("One TCP flow from alice to bob", {"the bare cable": bare, "through the network": through})


def _coordinator(network: Network) -> Step:
    url6 = "https://[2001:db8::1]:8443"
    started = time.monotonic()
    network.start("--url", url6)
    seconds = time.monotonic() - started
    return Step(
        "A coordinator, and a network",
        (
            f"server$ warren coordinator run --url {network.url} --url {url6}",
            f"server$ warren network create home --ipv4 {network.prefix4}",
            f"both took {seconds:.1f} s together",
        ),
        {"seconds": round(seconds, 3)},
    )


def _join(network: Network, hosts: list[Host]) -> Step:
    ticket = network.ticket("--uses", str(len(hosts)))
    lines = [
        f"server$ warren network invite home --uses {len(hosts)}",
        f"        {ticket[:48]}… ({len(ticket)} characters)",
    ]
    seconds = {}
    for host in hosts:
        started = time.monotonic()
        network.join(host, ticket=ticket)
        seconds[host.name] = time.monotonic() - started
        addresses = f"{network.address(host)}, {network.address(host, 4)}"
        families = "IPv6 only" if len(_HOSTS[host.name]) == 1 else "IPv4 and IPv6"
        took = f"{seconds[host.name]:.1f} s"
        lines.append(f"{host.name + '$':7} warren up 'warren-ticket:…'   {families}: is {addresses} after {took}")
    return Step(
        "Three nodes join with one ticket", tuple(lines), {"seconds": {n: round(s, 3) for n, s in seconds.items()}}
    )


def _ping(network: Network, host: Host, others: list[Host]) -> Step:
    secret = _SECRET[:16].hex()  # ping repeats up to 16 bytes in every packet
    lines, figures = [], {}
    for other in others:
        name = network.fqdn(other)
        _until(host, partial(_answers, host, name), name)
        done = host.run(["ping", "-i", "0.05", "-c", str(_PINGS), "-W", "2", "-p", secret, name])
        times = [float(word.removeprefix("time=")) for word in done.stdout.split() if word.startswith("time=")]
        if len(times) != _PINGS:
            raise OperationFailed(f"only {len(times)} of {_PINGS} pings to {name} were answered")
        figures[other.name] = statistics.median(times)
        lines.append(
            f"{host.name}$ ping {name:20} {_PINGS} of {_PINGS} answered, {figures[other.name]:.2f} ms (median)"
        )
    return Step("Ping by name", tuple(lines), {"ping_ms": figures})


def _status(network: Network, host: Host) -> Step:
    said = network.warren(host, "status").stdout.rstrip().splitlines()
    return Step("What alice sees", (f"{host.name}$ warren status", *said), {"status": network.status(host)})


def _transfer(network: Network, alice: Host, bob: Host) -> Step:
    lines = []
    for sender, receiver, version in ((alice, bob, 4), (bob, alice, 6)):
        if not tcp_transfer(sender, receiver, network.address(receiver, version), _TRANSFER_BYTES).intact:
            raise OperationFailed(f"the transfer from {sender.name} to {receiver.name} arrived damaged")
        size = f"{_TRANSFER_BYTES >> 20} MiB over IPv{version}"
        lines.append(f"{sender.name:5} → {receiver.name:5} {size}: SHA-256 equal at both ends")
    return Step("A TCP transfer each way, checked by its hash", tuple(lines), {"transfers_intact": len(lines)})


def _wire(packets: list[bytes]) -> Step:
    if not packets or any(_SECRET[:16] in packet for packet in packets):
        raise OperationFailed("the capture shows what was sent inside the network")
    return Step(
        "What alice's cable saw",
        (f"{len(packets)} frames; the text that the pings carried is in none of them",),
        {"frames": len(packets)},
    )


def _policy(network: Network, alice: Host, bob: Host) -> Step:
    web = bob.start(["python3", "-m", "http.server", str(_WEB_PORT), "--bind", "::"], name="web")
    fetch = f"import urllib.request as u; u.urlopen('http://{network.fqdn(bob)}:{_WEB_PORT}', timeout=0.3)"
    url = ("python3", "-c", fetch)

    def served() -> bool:
        return alice.run(url, check=False).returncode == 0

    _until(alice, served, "bob's web server")
    file = network.server.directory / "home.toml"
    file.write_text(_POLICY)
    said = network.warren(network.server, "network", "plan", str(file)).stdout.rstrip()
    plan = said.replace(str(file), file.name).splitlines()
    network.warren(network.server, "network", "apply", str(file), "--yes")
    started = time.monotonic()
    _until(alice, lambda: not served(), "the closed port")
    seconds = time.monotonic() - started
    web.stop()
    lines = ("server$ warren network plan home.toml", *plan, "server$ warren network apply home.toml")
    end = f"alice reached port {_WEB_PORT} of bob before, and {seconds:.1f} s later no more; ping still works"
    if alice.run(["ping", "-n", "-c3", "-i", "0.2", "-W1", network.fqdn(bob)], check=False).returncode:
        raise OperationFailed("the policy closed more than it should")
    return Step("A change of the policy closes a port", (*lines, end), {"seconds": round(seconds, 3)})


def _without_coordinator(network: Network, alice: Host, bob: Host) -> Step:
    if network.coordinator is None:
        raise OperationFailed("there is no coordinator to kill")
    to_bob = network.address(bob)
    pings = alice.start(["ping", "-n", "-q", "-i", "0.05", "-c", "100", to_bob], name="pings")
    network.coordinator.signal(SIGKILL)
    network.coordinator.wait(_PATIENCE_S)
    if pings.wait(_PATIENCE_S) or " 0% packet loss" not in pings.output():
        raise OperationFailed("pings were lost when the coordinator was killed")
    network.nodes["bob"].process.stop(_PATIENCE_S)
    started = time.monotonic()
    network.up(bob)
    _until(alice, partial(_answers, alice, to_bob), "bob")
    seconds = time.monotonic() - started
    return Step(
        "The coordinator is killed",
        (
            "server$ kill -9 (the coordinator)    100 pings from alice to bob meanwhile: 0 lost",
            f"bob$    warren up                    restarted without it, answers after {seconds:.1f} s",
        ),
        {"pings_lost": 0, "restart_seconds": round(seconds, 3)},
    )


def _answers(host: Host, target: str) -> bool:
    return host.run(["ping", "-n", "-c1", "-W1", target], check=False).returncode == 0


def _until(host: Host, condition: Callable[[], bool], what: str) -> None:
    try:
        host.wait_for(condition, _PATIENCE_S)
    except OperationFailed:
        raise OperationFailed(f"{host.name} waited {_PATIENCE_S:.0f} s in vain for {what}") from None
