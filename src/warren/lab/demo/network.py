"""Homes, an office and a data centre: members behind NATs find each other, first over a relay, then directly; services
of a member without root are used from everywhere.

Everything is done with the commands that a person would type, and what they print is shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial

from warren.errors import OperationFailed
from warren.lab.demo import network_faults as faults
from warren.lab.demo import network_streams as streams
from warren.lab.demo.network_world import PATIENCE_S, World, answers, build, until, way
from warren.lab.demo.step import Step, flow_bits_per_s, speeds
from warren.lab.demo.story import Story, tell
from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.network import Network
from warren.lab.traffic import tcp_transfer

_WEB_PORT = 8080
_PINGS = 20
_TRANSFER_BYTES = 32 << 20
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
        world = build(lab)
        network, alice, bob, carol = world.network, world.alice, world.bob, world.carol
        yield _places(world)
        yield _coordinator(world)
        yield _join(world)
        capture = alice.capture("eth0")
        yield _paths(world)
        yield _office(world)
        yield _status(network, alice)
        yield _transfer(network, alice, bob)
        capture.stop()
        yield _wire(capture.packets())
        through = flow_bits_per_s(alice, bob, network.address(bob))
        relayed = flow_bits_per_s(carol, bob, network.address(bob))
        yield speeds("One TCP flow", {"alice → bob, direct": through, "carol → bob, over TLS and a relay": relayed})
        yield streams.rootless_member(world)
        yield streams.page_for_everybody(world)
        yield streams.forwarded_port(world)
        yield faults.relay_dies(world)
        yield faults.uplink_dies(world)
        yield _policy(network, alice, bob)
        yield faults.without_coordinator(network, alice, bob)


def _places(world: World) -> Step:
    at = world.internet.address
    return Step(
        "An Internet on this machine",
        (
            f"dc1    {at('dc1'):13} public: coordinator, relay, member",
            f"dc2    {at('dc2'):13} public: another relay",
            f"alice  192.168.1.10  behind a NAT at {at('home1')} that lets in answers only; also on a mobile network",
            f"bob    192.168.1.10  behind a NAT at {at('home2')} with another port for each destination",
            f"carol  192.168.1.10  in an office at {at('office')} whose firewall drops UDP",
            f"dave   192.168.1.10  behind a NAT at {at('home3')}, and an ordinary user",
            f"gw     {at('gw'):13} public: a gateway for those who are no members",
        ),
        {},
    )


def _coordinator(world: World) -> Step:
    network = world.network
    started = time.monotonic()
    network.start()
    network.start_relay(world.dc2, addresses=[world.internet.address("dc2")])
    seconds = time.monotonic() - started
    return Step(
        "A coordinator with a relay, a network, and a second relay",
        (
            f"dc1$ warren coordinator run --url {network.url}",
            f"dc1$ warren network create home --ipv4 {network.prefix4}",
            "dc2$ warren relay run --config relay.toml",
            "dc1$ warren network relay add home dc2 …",
            f"all of it took {seconds:.1f} s",
        ),
        {"seconds": round(seconds, 3)},
    )


def _join(world: World) -> Step:
    network, hosts = world.network, [world.dc1, world.alice, world.bob, world.carol, world.gateway]
    streams.make_gateway(world.gateway)
    ticket = network.ticket("--uses", str(len(hosts)))
    lines = [
        f"dc1$    warren network invite home --uses {len(hosts)}",
        f"        {ticket[:48]}… ({len(ticket)} characters)",
    ]
    seconds = {}
    for host in hosts:
        started = time.monotonic()
        network.join(host, ticket=ticket)
        seconds[host.name] = round(time.monotonic() - started, 3)
        addresses = f"{network.address(host)}, {network.address(host, 4)}"
        took = f"{seconds[host.name]:.1f} s"
        lines.append(f"{host.name + '$':7} warren up 'warren-ticket:…'   is {addresses} after {took}")
    return Step("Five nodes join with one ticket", tuple(lines), {"seconds": seconds})


def _paths(world: World) -> Step:
    """The first packets go over the relay, and a moment later directly."""
    alice, bob, network = world.alice, world.bob, world.network
    name = network.fqdn(bob)
    story = Story.begin(alice, network, bob, network.address(bob))
    seen = story.result(PATIENCE_S)
    if seen.direct_s is None or seen.reply_s is None:
        raise OperationFailed(f"alice and bob found no direct path within {PATIENCE_S:.0f} s")
    done = alice.run(["ping", "-n", "-i", "0.05", "-c", str(_PINGS), "-W", "2", "-p", _SECRET[:16].hex(), name])
    times = [float(word.removeprefix("time=")) for word in done.stdout.split() if word.startswith("time=")]
    if len(times) != _PINGS:
        raise OperationFailed(f"only {len(times)} of {_PINGS} pings to {name} were answered")
    return Step(
        "Through two NATs",
        (
            f"alice$ ping {name}",
            *tell(seen),
            f"{_PINGS} of {_PINGS} pings by name answered, {statistics.median(times):.2f} ms (median)",
        ),
        {"first_reply_s": seen.reply_s, "direct_s": seen.direct_s, "ping_ms": statistics.median(times)},
    )


def _office(world: World) -> Step:
    """No UDP leaves the office: TLS on port 443 does."""
    network, carol, bob = world.network, world.carol, world.bob
    started = time.monotonic()
    until(carol, partial(answers, carol, network.address(bob)), "bob")
    seconds = time.monotonic() - started
    peer = network.peer(carol, bob)
    if peer["path"] != "relayed":
        raise OperationFailed(f"carol reaches bob by a path that cannot be: {peer['path']}")
    return Step(
        "An office that blocks UDP",
        (
            f"carol$ ping {network.fqdn(bob)}    answered after {seconds:.1f} s",
            f"the way is {way(peer)}, over TLS on port 443",
        ),
        {"seconds": round(seconds, 3)},
    )


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

    until(alice, served, "bob's web server")
    file = network.server.directory / "home.toml"
    file.write_text(_POLICY)
    said = network.warren(network.server, "network", "plan", str(file)).stdout.rstrip()
    plan = said.replace(str(file), file.name).splitlines()
    network.warren(network.server, "network", "apply", str(file), "--yes")
    started = time.monotonic()
    until(alice, lambda: not served(), "the closed port")
    seconds = time.monotonic() - started
    web.stop()
    lines = ("dc1$ warren network plan home.toml", *plan, "dc1$ warren network apply home.toml")
    end = f"alice reached port {_WEB_PORT} of bob before, and {seconds:.1f} s later no more; ping still works"
    if alice.run(["ping", "-n", "-c3", "-i", "0.2", "-W1", network.fqdn(bob)], check=False).returncode:
        raise OperationFailed("the policy closed more than it should")
    return Step("A change of the policy closes a port", (*lines, end), {"seconds": round(seconds, 3)})
