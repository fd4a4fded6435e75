"""Streams between members and through gateways: many at once, ends and resets, faults, limits and the policy."""

from __future__ import annotations

import socket
from signal import SIGKILL

import pytest

from tests.support.stream_traffic import (
    PATIENCE_S,
    datagram_answers,
    ended_how,
    many_streams,
    one_by_one,
    serve_echo_datagrams,
    serve_hashes,
)
from tests.support.stream_world import StreamWorld, agent_status, kill, wait
from warren.lab import Host, Lab

pytestmark = pytest.mark.timeout(300)
PORT = 7000


@pytest.fixture
def world(lab: Lab) -> StreamWorld:
    """A service ``hashes`` of the hidden member, and a public port of the gateway that leads to it."""
    made = StreamWorld(lab)
    made.start()
    made.hidden.begin(serve_hashes, "127.0.0.1", PORT)
    made.service("hashes", "--at", "member:hidden", "--target", f"127.0.0.1:{PORT}")
    made.connector("public", "--service", "hashes", "--at", "member:gw1", "--listen", f"*:{PORT}")
    made.wait_done(made.gateways[0], "connector public")
    made.wait_done(made.hidden, "service hashes")
    wait(made.visitor, lambda: works(made), lambda: str(agent_status(made.gateways[0])))
    return made


def works(world: StreamWorld, count: int = 1) -> bool:
    """Whether as many streams from outside arrive intact."""
    crowd = world.visitor.call(many_streams, world.address(world.gateways[0]), PORT, count, 1000, 1)
    return crowd.intact == count


def test_streams_and_datagrams_are_carried_limited_and_refused(world: StreamWorld) -> None:
    """One world for all of it: setting one up takes longer than what is shown."""
    a_thousand_streams_at_once_arrive_intact(world)
    datagrams_are_carried_and_answered(world)
    an_authority_makes_nobody_a_bridge_and_nobody_listen_where_root_would(world)
    a_source_that_is_not_listed_and_one_that_is_too_fast_are_refused_at_once(world)
    what_the_policy_forbids_is_refused_at_once_with_the_reason(world)


def a_thousand_streams_at_once_arrive_intact(world: StreamWorld) -> None:
    crowd = world.visitor.call(many_streams, world.address(world.gateways[0]), PORT, 1000, 20_000, 7, timeout=120)
    assert crowd.failed == ()
    assert crowd.intact == 1000
    (entry,) = [one for one in streams(world.gateways[0]) if "public" in one["id"]]
    assert entry["opened"] >= 1000


@pytest.mark.logs_errors
def test_whichever_process_is_killed_streams_can_be_opened_again_and_most_live_on(world: StreamWorld) -> None:
    a_stream_lives_through_the_death_of_the_agent_and_of_the_helper(world)
    whichever_process_is_killed_streams_can_be_opened_again(world)


def whichever_process_is_killed_streams_can_be_opened_again(world: StreamWorld) -> None:
    hidden = world.hidden
    for victim in ("warren.engine.rootless", "warren.engine.userspace", "warren.l4"):
        kill(hidden, victim)
        wait(world.visitor, lambda: works(world), lambda victim=victim: f"{victim}: {agent_status(hidden)}")
    process = world.network.nodes["hidden"].process
    process.signal(SIGKILL)
    process.wait(30)
    assert works(world, 10)  # nothing hangs on the agent
    world.restart(hidden)
    assert works(world, 10)


def a_stream_lives_through_the_death_of_the_agent_and_of_the_helper(world: StreamWorld) -> None:
    hidden, visitor = world.hidden, world.visitor
    with visitor.socket() as stream:
        stream.settimeout(PATIENCE_S)
        stream.connect((world.address(world.gateways[0]), PORT))
        stream.sendall((1).to_bytes(8) + (6).to_bytes(8) + b"abc")
        kill(hidden, "warren.engine.rootless")
        process = world.network.nodes["hidden"].process
        process.signal(SIGKILL)
        process.wait(30)
        world.restart(hidden)
        stream.sendall(b"def")
        stream.shutdown(socket.SHUT_WR)
        said = b""
        while piece := stream.recv(4096):
            said += piece
    assert said.endswith(b"abcdef")


def a_source_that_is_not_listed_and_one_that_is_too_fast_are_refused_at_once(world: StreamWorld) -> None:
    gateway, visitor = world.gateways[0], world.visitor
    outside = world.address(gateway)
    at = ["--service", "hashes", "--at", "member:gw1"]
    world.connector("closed", *at, "--listen", "*:7001", "--source", "198.51.100.0/24")
    world.connector("slow", *at, "--listen", "*:7002", "--rate", "1")
    for name in ("closed", "slow"):
        world.wait_done(gateway, f"connector {name}")
    assert visitor.call(ended_how, outside, 7001, 20.0) in {"reset", "end", "refused"}
    taken = visitor.call(one_by_one, outside, 7002, 20)
    assert 10 <= taken < 20, "ten seconds' worth at once, and one a second"
    refused = {one["id"].rpartition(" ")[2]: one["refused"] for one in streams(gateway)}
    assert refused["closed"] == {"source": 1}
    assert refused["slow"] == {"rate": 20 - taken}


def an_authority_makes_nobody_a_bridge_and_nobody_listen_where_root_would(world: StreamWorld) -> None:
    gateway, hidden = world.gateways[0], world.hidden
    add = ["service", "add", "home"]
    literal = f"[{world.network.address(hidden)}]:{PORT}"
    said = world.network.warren(world.server, *add, "literal", "--at", "member:gw1", "--target", literal).stderr
    assert "is an address of this network, where members do not lead unless their operators name it" in said
    world.service("named", "--at", "member:gw1", "--target", f"hidden.home.internal:{PORT}", "--port", "7003")
    world.connector("low", "--service", "hashes", "--at", "member:hidden", "--listen", "1023")
    for host, task, reason in (
        (gateway, "service literal", "is an address of network home, where no service leads unless the operator"),
        (gateway, "service named", "hidden.home.internal leads to "),
        (gateway, "service named", "is an address of network home, where no service leads unless the operator"),
        (hidden, "connector low", '[connectors] allow = ["127.0.0.1:1023", "127.0.0.1:1024-65535"]'),
    ):
        wait(
            host,
            lambda host=host, task=task, reason=reason: reason in world.task(host, task).get("reason", ""),
            lambda host=host, task=task: str(world.task(host, task)),
        )
    whoever_administers_the_network_is_told_where_a_connector_does_not_work(world)


def whoever_administers_the_network_is_told_where_a_connector_does_not_work(world: StreamWorld) -> None:
    gateway, hidden = world.gateways[0], world.hidden
    said = world.network.warren(gateway, "forward", str(PORT), "hashes", check=False)
    assert (said.returncode, "is taken by connector public of home" in said.stderr) == (1, True)

    def listed() -> str:
        return world.network.warren(world.server, "connector", "list", "home").stderr

    problem = f"low: at {hidden.name}: this node listens on loopback below port 1024 only if its operator names"
    wait(hidden, lambda: problem in listed(), listed)


def what_the_policy_forbids_is_refused_at_once_with_the_reason(world: StreamWorld) -> None:
    gateway, visitor = world.gateways[0], world.visitor
    file = world.server.directory / "home.toml"
    file.write_text(
        'network = "home"\n\n[[policy]]\naction = "deny"\nfrom = ["member:gw1"]\nto = ["service:hashes"]\n\n'
        '[[policy]]\naction = "allow"\nfrom = ["members"]\nto = ["members"]\n'
    )
    world.network.warren(world.server, "network", "apply", str(file), "--yes")
    wait(visitor, lambda: not works(world), lambda: "the policy")
    assert visitor.call(ended_how, world.address(gateway), PORT, 8.0) in {"reset", "refused"}
    assert "policy" in world.task(gateway, "connector public")["reason"]


@pytest.mark.logs_errors
def test_a_service_that_two_members_serve_goes_on_when_the_nearer_one_stops(lab: Lab) -> None:
    world = StreamWorld(lab, members=("near",))
    world.start()
    near, hidden = world.members[0], world.hidden
    for host in (near, hidden):
        host.begin(serve_hashes, "127.0.0.1", PORT)
    world.service("hashes", "--at", "member:hidden", "--at", "member:near", "--target", f"127.0.0.1:{PORT}")
    world.connector("public", "--service", "hashes", "--at", "member:gw1", "--listen", f"*:{PORT}")
    wait(world.visitor, lambda: works(world), lambda: str(agent_status(world.gateways[0])))
    kill(near, "warren")
    assert works(world, 20)


def datagrams_are_carried_and_answered(world: StreamWorld) -> None:
    gateway, hidden, visitor = world.gateways[0], world.hidden, world.visitor
    hidden.begin(serve_echo_datagrams, "127.0.0.1", 7007)
    world.service("echo", "--at", "member:hidden", "--target", "127.0.0.1:7007", "--protocol", "udp")
    world.connector("echo", "--service", "echo", "--at", "member:gw1", "--listen", "*:7007")
    world.wait_done(gateway, "connector echo")
    wait(
        visitor,
        lambda: visitor.call(datagram_answers, world.address(gateway), 7007, [b"x"])[0],
        lambda: str(agent_status(gateway)),
    )
    sent = [bytes([number]) * (1 + 97 * number) for number in range(12)]
    assert visitor.call(datagram_answers, world.address(gateway), 7007, sent) == sent


def streams(host: Host) -> list[dict[str, object]]:
    """What the agent says of the entries of its stream process."""
    return list(agent_status(host)["streams"])
