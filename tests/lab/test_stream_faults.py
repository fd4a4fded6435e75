"""Streams while what carries them is stopped, killed, or short of something, and while somebody lies about clients."""

from __future__ import annotations

import shutil
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.support.paced import BLOCK, PacedStream, serve_back
from tests.support.stream_faults import (
    LAST,
    descriptors,
    full_disk,
    said_and_ended,
    serve_first_bytes,
    small_disk,
    stopped,
)
from tests.support.stream_traffic import ended_how, exchange, many_streams, serve_hashes, serve_page
from tests.support.stream_world import GATEWAY, StreamWorld, agent_status, kill, processes, wait
from warren.lab import Host, Lab
from warren.model.services import CONNECTOR_PORT
from warren.model.tunnel import TransportAddress
from warren.proto import proxy_protocol

pytestmark = pytest.mark.timeout(300)
BACK, HASHES, TOLD = 7001, 7000, 7002
STOPPED_S = 5.5
STREAMS, PLANE, AGENT = "warren.l4", "warren.engine.userspace", "warren up"
FORGED = proxy_protocol.encode(
    TransportAddress(ip_address("203.0.113.66"), 1), TransportAddress(ip_address("203.0.113.67"), 2)
)


class FaultWorld:
    """The hidden member serves ``hashes`` and ``back``, published at a gateway, and forwards to it."""

    def __init__(self, lab: Lab) -> None:
        self.world = world = StreamWorld(lab)
        world.start()
        self.gateway, self.hidden, self.visitor = world.gateways[0], world.hidden, world.visitor
        self.outside, self.overlay = world.address(self.gateway), world.network.address(self.gateway)
        self.gateway.begin(serve_back, self.overlay, BACK)
        self.hidden.begin(serve_back, "127.0.0.1", BACK)
        self.hidden.begin(serve_hashes, "127.0.0.1", HASHES)
        world.network.warren(self.hidden, "forward", str(BACK + 100), f"gw1:{BACK}", "--keep")
        for name, port in (("hashes", HASHES), ("back", BACK)):
            world.service(name, "--at", "member:hidden", "--target", f"127.0.0.1:{port}")
            world.connector(name, "--service", name, "--at", "member:gw1", "--listen", f"*:{port + 200}")
        for name in ("hashes", "back"):
            world.wait_done(self.gateway, f"connector {name}")
            world.wait_done(self.hidden, f"service {name}")
        wait(self.visitor, self.works, lambda: str(agent_status(self.gateway)))

    def works(self, count: int = 1) -> bool:
        """Whether as many streams from outside arrive intact."""
        return self.visitor.call(many_streams, self.outside, HASHES + 200, count, 1000, 1).intact == count

    def paced(self, name: str) -> list[PacedStream]:
        return [
            PacedStream(self.visitor, self.outside, BACK + 200, f"{name}-in"),
            PacedStream(self.hidden, "127.0.0.1", BACK + 100, f"{name}-out"),
        ]


def ended_intact(streams: list[PacedStream]) -> None:
    for stream in streams:
        stream.wait_flows()
    for stream in streams:
        found = stream.end()
        assert found.error == ""
        assert found.intact


@pytest.fixture
def world(lab: Lab) -> FaultWorld:
    return FaultWorld(lab)


@pytest.mark.logs_errors
def test_streams_go_on_or_come_back_whatever_happens_to_what_carries_them(world: FaultWorld) -> None:
    """One world for all of it: setting one up takes longer than most of what is shown."""
    while_agents_stand_still_streams_flow_and_open(world)
    while_the_processes_that_carry_them_stand_still_bytes_wait(world)
    a_packet_filter_flushed_by_somebody_else_is_made_again(world)
    a_deleted_tunnel_is_made_again_and_streams_go_on(world)
    who_has_no_descriptors_left_refuses_and_says_so_and_goes_on_when_there_are_some(world)
    a_killed_stream_process_is_replaced_and_leaves_nothing(world)


def while_agents_stand_still_streams_flow_and_open(world: FaultWorld) -> None:
    streams = world.paced("agents")
    with stopped(world.gateway, AGENT), stopped(world.hidden, AGENT):
        until = time.monotonic() + STOPPED_S
        assert world.works(10)
        while time.monotonic() < until:
            for stream in streams:
                stream.wait_flows()
    wait(world.gateway, lambda: agent_status(world.gateway)["networks"][0]["state"] == "up", lambda: "up again")
    ended_intact(streams)


def while_the_processes_that_carry_them_stand_still_bytes_wait(world: FaultWorld) -> None:
    streams = world.paced("carriers")
    with stopped(world.gateway, STREAMS), stopped(world.hidden, PLANE):
        time.sleep(0.5)  # what is on its way arrives
        before = [stream.back for stream in streams]
        late = world.visitor.begin(exchange, world.outside, BACK + 200, b"late")
        until = time.monotonic() + STOPPED_S
        assert agent_status(world.gateway)["networks"][0]["state"] == "up"  # the agent answers all the same
        time.sleep(max(0.0, until - time.monotonic()))
        for stream, far in zip(streams, before, strict=True):
            assert (
                stream.back - far < 20 * BLOCK
            )  # a slow machine may still read what had come; ten times as much is sent
    assert late.result(80) == b"late"
    ended_intact(streams)


def a_packet_filter_flushed_by_somebody_else_is_made_again(world: FaultWorld) -> None:
    """At once: what the policy forbids must not come in for a minute."""
    streams, gateway = world.paced("flushed"), world.gateway
    before = gateway.run(["nft", "list", "ruleset"]).stdout
    for wrong in ("flush ruleset", "flush chain inet warren-w-home inbound"):
        gateway.run(["nft", wrong])
        gateway.wait_for(lambda: gateway.run(["nft", "list", "ruleset"]).stdout == before, 60)
    assert world.works()
    ended_intact(streams)


def a_deleted_tunnel_is_made_again_and_streams_go_on(world: FaultWorld) -> None:
    streams = world.paced("deleted")
    world.gateway.ip("link delete w-home")
    wait(world.visitor, world.works, lambda: str(agent_status(world.gateway)))
    ended_intact(streams)

    def failed() -> list[object]:
        tasks = agent_status(world.gateway)["networks"][0]["tasks"]
        return [task for task in tasks if task["state"] == "failed"]

    wait(world.gateway, lambda: failed() == [], lambda: str(failed()))


def who_has_no_descriptors_left_refuses_and_says_so_and_goes_on_when_there_are_some(world: FaultWorld) -> None:
    gateway, entry = world.gateway, "home: connector hashes"
    (number,) = processes(gateway, STREAMS)
    gateway.run(["prlimit", "--nofile=64:64", "--pid", number])
    assert world.visitor.call(many_streams, world.outside, HASHES + 200, 100, 1000, 9, timeout=120).intact == 0
    wait(gateway, lambda: stream_of(gateway, entry)["refused"].get("resources"), lambda: str(stream_of(gateway, entry)))
    wait(world.visitor, lambda: world.works(10), lambda: str(agent_status(gateway)))


def a_killed_stream_process_is_replaced_and_leaves_nothing(world: FaultWorld) -> None:
    hosts = (world.gateway, world.hidden)
    before = [descriptors(host, AGENT) for host in hosts]
    for host in hosts:
        streams = world.paced(f"killed-{host.name}")
        old = processes(host, STREAMS)
        kill(host, STREAMS)
        ended = streams if host is world.hidden else streams[:1]
        assert all(stream.end(by_itself=True).error for stream in ended)
        ended_intact([stream for stream in streams if stream not in ended])
        wait(world.visitor, world.works, lambda host=host: str(agent_status(host)))
        assert len(processes(host, STREAMS)) == 1
        assert processes(host, STREAMS) != old
        assert "the stream process has ended" in world.world.network.nodes[host.name].process.output()
        wait(
            host,
            lambda host=host: {one["state"] for one in agent_status(host)["streams"]} == {"listening"},
            lambda host=host: str(agent_status(host)),
        )
    for host, most in zip(hosts, before, strict=True):
        wait(host, lambda host=host: not any(one["open"] for one in agent_status(host)["streams"]), lambda: "open")
        wait(host, lambda host=host, most=most: descriptors(host, AGENT) <= most + 1, lambda: "descriptors")


def stream_of(host: Host, name: str) -> dict[str, Any]:
    """What the agent says of that entry."""
    (found,) = [one for one in agent_status(host)["streams"] if one["id"] == name]
    return dict(found)


@pytest.mark.skipif(shutil.which("caddy") is None, reason="caddy is not installed")
def test_on_a_full_disk_nothing_is_half_made_and_all_of_it_works_when_there_is_room(lab: Lab) -> None:
    world = StreamWorld(lab)
    gateway, hidden, visitor = world.gateways[0], world.hidden, world.visitor
    state, run = gateway.directory / "state", Path("/run/warren")
    for directory in (state, run):
        small_disk(gateway, directory)
    toml = GATEWAY.format(domain="gw1.example.com")
    gateway.run(["sh", "-c", f"cat > {state}/agent.toml"], input=toml)
    world.start()
    gateway.wait_for(["ping", "-n", "-c1", "-W1", world.network.address(hidden)], 60)
    hidden.begin(serve_page, "127.0.0.1", 8000, "a page")
    hidden.begin(serve_hashes, "127.0.0.1", HASHES)
    forwards = (["7100", "hashes"], [f"unix:{run}/hashes.sock", "hashes"], ["--socks", "1080"])
    at = f"www.example.org:443:{world.address(gateway)}"
    fetch = ["curl", "-sSk", "--max-time", "15", "--resolve", at, "https://www.example.org/"]

    def page() -> bool:
        return "a page" in visitor.run(fetch, check=False).stdout

    def works() -> bool:
        return visitor.call(many_streams, world.address(gateway), HASHES, 1, 100, 1).intact == 1

    with full_disk(gateway, state), full_disk(gateway, run):
        world.service("hashes", "--at", "member:hidden", "--target", f"127.0.0.1:{HASHES}")
        world.service("page", "--at", "member:hidden", "--target", "127.0.0.1:8000")
        world.connector("hashes", "--service", "hashes", "--at", "member:gw1", "--listen", f"*:{HASHES}")
        web = ["--kind", "http", "--certificate", "internal", "--domain", "www.example.org"]
        world.connector("www", "--service", "page", "--at", "member:gw1", *web)
        wait(gateway, lambda: world.task(gateway, "connector www").get("state") == "failed", lambda: "www")
        for words in forwards:
            done = world.network.warren(gateway, "forward", *words, "--keep", check=False)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
            assert "No space left on device" in done.stderr
        reason = world.task(gateway, "connector www")["reason"]
        assert "no space left on device" in reason.lower()
        assert "\n" not in reason
        wait(visitor, works, lambda: str(agent_status(gateway)))  # what needs no disk is there
        ids = {one["id"] for one in agent_status(gateway)["streams"]}
        assert ids == {"home: connector hashes", "home: connector www"}
        assert visitor.call(ended_how, world.address(gateway), 443) == "refused"
        assert gateway.call(ended_how, "127.0.0.1", 7100) == "refused"
    wait(visitor, page, lambda: str(agent_status(gateway)))
    for words in forwards:
        world.network.warren(gateway, "forward", *words, "--keep")
    wait(
        gateway, lambda: {task["state"] for task in world.network.status(gateway)["tasks"]} == {"done"}, lambda: "tasks"
    )
    wait(gateway, lambda: gateway.call(many_streams, "127.0.0.1", 7100, 1, 100, 1).intact, lambda: "the forward")


@pytest.mark.logs_errors
def test_only_who_carries_a_service_says_who_its_clients_are(lab: Lab) -> None:
    world = StreamWorld(lab, members=("mallory",))
    world.start()
    gateway, hidden, mallory = world.gateways[0], world.hidden, world.members[0]
    log = hidden.directory / "told"
    log.touch()
    hidden.begin(serve_first_bytes, "127.0.0.1", TOLD, log)
    for name in ("told", "other"):
        world.service(
            name, "--at", "member:hidden", "--target", f"127.0.0.1:{TOLD}", "--proxy-protocol", "--health", "0"
        )
    world.connector("told", "--service", "told", "--at", "member:gw1", "--listen", f"*:{TOLD}")
    world.connector("other", "--service", "other", "--at", "member:mallory", "--listen", f"127.0.0.1:{TOLD}")
    world.wait_done(gateway, "connector told")
    world.wait_done(mallory, "connector other")
    entry = "home: service told"
    wait(hidden, lambda: len(stream_of(hidden, entry)["places"]) == 2, lambda: str(stream_of(hidden, entry)))
    address = str(hidden.call(service_address, stream_of(hidden, entry)["places"]))

    def asked(host: Host, port: int, *pieces: bytes, pause_s: float = 0.0) -> tuple[bytes, str]:
        return host.call(said_and_ended, address, port, pieces, pause_s, timeout=60)

    wait(gateway, lambda: asked(gateway, CONNECTOR_PORT, FORGED + LAST) == (FORGED + LAST, "end"), lambda: "gateway")
    seen, before = lines(log), stream_of(hidden, entry)["refused"]
    slow = [
        gateway.begin(said_and_ended, address, CONNECTOR_PORT, pieces, 0.5)
        for pieces in ([FORGED[:20]], [FORGED[at : at + 1] for at in range(20)])
    ]
    assert asked(mallory, CONNECTOR_PORT, FORGED + LAST) == (b"", "reset")  # she is a gateway, but for another service
    for wrong in (
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        FORGED[:14] + b"\xff\xff" + bytes(65_535),
        FORGED[:15] + b"\0" + FORGED[16:],
    ):
        assert asked(gateway, CONNECTOR_PORT, wrong) == (b"", "reset")
    for call in slow:
        assert call.result(60) == (b"", "reset")
    assert lines(log) == seen
    refused = stream_of(hidden, entry)["refused"]
    assert [refused[why] - before.get(why, 0) for why in ("source", "proxy-header")] == [1, 6]
    # At the service's own port, and from outside, it is what they say and no header.
    said, _ = asked(mallory, TOLD, FORGED + LAST)
    assert client_of(said) == world.network.address(mallory)
    assert said.endswith(FORGED + LAST)
    said, _ = world.visitor.call(said_and_ended, world.address(gateway), TOLD, [FORGED + LAST])
    assert client_of(said) == world.address(world.visitor)
    assert said.endswith(FORGED + LAST)


def client_of(said: bytes) -> str:
    """Whom the server was told in the header."""
    decoded = proxy_protocol.decode_untrusted(said)
    assert decoded is not None
    assert decoded[0].source is not None
    return str(decoded[0].source.ip)


def lines(log: Path) -> int:
    return log.read_text().count("\n")


def service_address(places: list[str]) -> str:
    return places[0].partition("]")[0].removeprefix("[")
