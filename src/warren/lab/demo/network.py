"""Two homes, an office and a data centre: members behind NATs find each other, first over a relay, then directly.

Everything is done with the commands that a person would type, and what they print is shown.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from signal import SIGKILL

from warren.errors import OperationFailed
from warren.lab.demo.step import Step, flow_bits_per_s, speeds
from warren.lab.demo.story import Story, tell
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.lab import Lab
from warren.lab.network import Network
from warren.lab.site import Internet, Site
from warren.lab.traffic import tcp_transfer

_WEB_PORT = 8080
_PINGS = 20
_TRANSFER_BYTES = 32 << 20
_PATIENCE_S = 40.0
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


@dataclass(frozen=True, slots=True)
class _World:
    """The hosts: ``dc1`` has the coordinator and a relay and is a member, ``dc2`` has another relay."""

    internet: Internet
    dc1: Host
    dc2: Host
    alice: Host
    bob: Host
    carol: Host
    mobile: Site
    network: Network


def run() -> Iterator[Step]:
    """Play it step by step. Raises OperationFailed when a step does not come out as it must."""
    with Lab(name="demo", seed=1) as lab:
        world = _build(lab)
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
        yield _relay_dies(world)
        yield _uplink_dies(world)
        yield _policy(network, alice, bob)
        yield _without_coordinator(network, alice, bob)
        through = flow_bits_per_s(alice, bob, network.address(bob))
        relayed = flow_bits_per_s(carol, bob, network.address(bob))
        yield speeds("One TCP flow", {"alice → bob, direct": through, "carol → bob, over TLS and a relay": relayed})


def _build(lab: Lab) -> _World:
    internet = Internet(lab)
    dc1, dc2 = internet.server("dc1"), internet.server("dc2")
    alice = internet.site("home1", "port-restricted").host("alice")
    bob = internet.site("home2", "symmetric-sequential").host("bob")
    carol = internet.site("office", "udp-blocked").host("carol")
    slower = Impairment(delay_s=0.012)
    mobile = internet.site("mobile", "cgn", lan="10.33.0.0/24", impairment=slower)
    mobile.attach(alice, interface="wwan0", metric=1000)
    url = f"https://{internet.address('dc1')}:8443"
    return _World(internet, dc1, dc2, alice, bob, carol, mobile, Network(dc1, "home", url=url))


def _places(world: _World) -> Step:
    at = world.internet.address
    return Step(
        "An Internet on this machine",
        (
            f"dc1    {at('dc1'):12} public: coordinator, relay, member",
            f"dc2    {at('dc2'):12} public: another relay",
            f"alice  192.168.1.10  behind a NAT at {at('home1')} that lets in answers only; also on a mobile network",
            f"bob    192.168.1.10  behind a NAT at {at('home2')} with another port for each destination",
            f"carol  192.168.1.10  in an office at {at('office')} whose firewall drops UDP",
        ),
        {},
    )


def _coordinator(world: _World) -> Step:
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


def _join(world: _World) -> Step:
    network, hosts = world.network, [world.dc1, world.alice, world.bob, world.carol]
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
    return Step("Four nodes join with one ticket", tuple(lines), {"seconds": seconds})


def _paths(world: _World) -> Step:
    """The first packets go over the relay, and a moment later directly."""
    alice, bob, network = world.alice, world.bob, world.network
    name = network.fqdn(bob)
    story = Story.begin(alice, network, bob, network.address(bob))
    seen = story.result(_PATIENCE_S)
    if seen.direct_s is None or seen.reply_s is None:
        raise OperationFailed(f"alice and bob found no direct path within {_PATIENCE_S:.0f} s")
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


def _office(world: _World) -> Step:
    """No UDP leaves the office: TLS on port 443 does."""
    network, carol, bob = world.network, world.carol, world.bob
    started = time.monotonic()
    _until(carol, partial(_answers, carol, network.address(bob)), "bob")
    seconds = time.monotonic() - started
    peer = _peer(network, carol, bob)
    if peer["path"] != "relayed":
        raise OperationFailed(f"carol reaches bob by a path that cannot be: {peer['path']}")
    return Step(
        "An office that blocks UDP",
        (
            f"carol$ ping {network.fqdn(bob)}    answered after {seconds:.1f} s",
            f"the way is {_way(peer)}, over TLS on port 443",
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


def _relay_dies(world: _World) -> Step:
    """Whichever relay carol and bob use is cut off in the middle of a transfer."""
    network, carol, bob = world.network, world.carol, world.bob
    before = _peer(network, carol, bob)
    relay = "dc2" if before["relay"] == "dc2" else "dc1"
    kill = partial(_kill_relays, network, world.dc2 if relay == "dc2" else world.dc1)
    gap_s, intact = _transfer_while(carol, bob, network.address(bob), kill)
    after = _peer(network, carol, bob)
    if not intact:
        raise OperationFailed("the transfer did not survive the death of the relay")
    return Step(
        "The relay is killed in the middle of a transfer",
        (
            f"carol → bob {_way(before)}; {relay}$ kill -9 (the relay)",
            f"carol → bob {_way(after)}: every byte arrived, the longest pause was {gap_s:.1f} s",
        ),
        {"pause_s": round(gap_s, 3)},
    )


def _uplink_dies(world: _World) -> Step:
    """Alice's best uplink is unplugged in the middle of a transfer; she has another one."""
    network, alice, bob = world.network, world.alice, world.bob
    before = _peer(network, bob, alice)
    link = world.internet.sites["home1"].link
    gap_s, intact = _transfer_while(alice, bob, network.address(bob), link.down)
    after = _peer(network, bob, alice)
    link.up()
    if not intact:
        raise OperationFailed("the transfer did not survive the loss of an uplink")
    return Step(
        "An uplink is unplugged in the middle of a transfer",
        (
            f"alice → bob, alice is at {before['endpoint']}; the cable of home1 is pulled",
            f"alice → bob, alice is at {after['endpoint']}: every byte arrived, the longest pause was {gap_s:.1f} s",
        ),
        {"pause_s": round(gap_s, 3)},
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
    lines = ("dc1$ warren network plan home.toml", *plan, "dc1$ warren network apply home.toml")
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
            "dc1$ kill -9 (the coordinator)    100 pings from alice to bob meanwhile: 0 lost",
            f"bob$ warren up                    restarted without it, answers after {seconds:.1f} s",
        ),
        {"pings_lost": 0, "restart_seconds": round(seconds, 3)},
    )


def _transfer_while(sender: Host, receiver: Host, address: str, fault: Callable[[], object]) -> tuple[float, bool]:
    """A TCP transfer in the middle of which ``fault`` happens: the longest pause of it, and whether all arrived."""
    from warren.lab.demo.story import receive_paced, send_paced

    receiving = receiver.begin(receive_paced, address)
    sending = sender.begin(send_paced, address)
    time.sleep(1.5)
    fault()
    sent = sending.result(_PATIENCE_S)
    received, gap_s = receiving.result(_PATIENCE_S)
    return gap_s, received == sent


def _kill_relays(network: Network, host: Host) -> None:
    """Whatever relays on ``host``."""
    for pid in network.relay_pids(host):
        host.run(["kill", "-9", str(pid)], check=False)


def _peer(network: Network, host: Host, other: Host) -> dict[str, object]:
    said = json.loads(network.warren(host, "status", "--json").stdout)
    for membership in said["networks"]:
        for peer in membership["peers"]:
            if peer["name"] == other.name:
                return dict(peer)
    raise OperationFailed(f"{host.name} does not know {other.name}")


def _way(peer: dict[str, object]) -> str:
    return f"relayed by {peer['relay']}" if peer["path"] == "relayed" else f"{peer['path']} {peer['endpoint']}"


def _answers(host: Host, target: str) -> bool:
    return host.run(["ping", "-n", "-c1", "-W1", target], check=False).returncode == 0


def _until(host: Host, condition: Callable[[], bool], what: str) -> None:
    try:
        host.wait_for(condition, _PATIENCE_S)
    except OperationFailed:
        raise OperationFailed(f"{host.name} waited {_PATIENCE_S:.0f} s in vain for {what}") from None
