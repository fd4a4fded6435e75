"""The coordinator under races, kills, a full disk and with a dead replica: real processes, real clients."""

from __future__ import annotations

import random
from collections.abc import Iterator
from signal import Signals

import pytest

from tests.support.crowds import Acknowledged, redeem_at_once, what_is_there, write_until_broken
from tests.support.overlay import Underlay, wait_pinged
from tests.support.postgres import PostgresServer, postgres_server
from warren.lab import Lab
from warren.lab.network import Network

KILLS = 12
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def network(lab: Lab) -> Network:
    return Underlay(lab).network()


@pytest.fixture
def postgres(lab: Lab) -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


def test_of_200_who_redeem_a_ticket_for_one_at_once_one_is_let_in(network: Network) -> None:
    network.run_coordinator("--connections-per-source", "1000")
    network.warren(network.server, "network", "create", "home")
    ticket = network.ticket()
    joined, refused = network.server.call(redeem_at_once, ticket, 200, timeout=90)
    assert joined == 1
    # From one address only so many may guess wrong in a row; the others are told to come back later.
    assert set(refused) <= {"ticket-used", "limit"}
    assert refused["ticket-used"] >= 1
    assert sum(refused.values()) == 199


def test_what_was_acknowledged_is_there_however_often_the_coordinator_is_killed(network: Network) -> None:
    chance = random.Random(4)
    network.start()
    ticket = network.ticket("--uses", "100000")
    before = network.server.call(what_is_there, network.access, "home", timeout=90)
    kept = Acknowledged()
    for number in range(KILLS):
        began = network.server.directory / f"began-{number}"
        writing = network.server.begin(write_until_broken, network.access, "home", ticket, number, began)
        process = network.coordinator
        assert process is not None
        network.server.wait_for(began.exists, 60)
        network.server.run(["sleep", f"{chance.random():.3f}"])
        process.signal(Signals.SIGKILL)
        process.wait(30)
        done = writing.result(90)
        kept.invites += done.invites
        kept.members += done.members
        kept.tags.update(done.tags)
        network.run_coordinator()
        now = network.server.call(what_is_there, network.access, "home", timeout=90)
        assert set(kept.invites) <= now.invites
        assert set(kept.members) <= now.members
        assert len(now.addresses) == len(set(now.addresses)), "an address was given twice"
        for member, tag in done.tags.items():
            # The write under way when the coordinator died may have happened without an answer.
            number_of = int(now.tags[member][0].rpartition("-")[2])
            assert number_of >= int(tag.rpartition("-")[2])
        assert (now.version, now.revision) >= (before.version, before.revision)
        before = now
    assert min(len(kept.invites), len(kept.members), len(kept.tags)) >= KILLS


def test_when_a_replica_dies_its_nodes_move_to_the_other_and_hear_of_changes(
    lab: Lab, postgres: PostgresServer
) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    second = underlay.host("server2")
    url = postgres.database()
    second_url = "https://198.51.100.10:8443"
    urls = ["--database", url, "--url", second_url]
    network.start(*urls)
    other = network.run_coordinator(*urls, host=second)
    alice, bob = underlay.host("alice"), underlay.host("bob")
    ticket = network.ticket("--uses", "2")
    for host in (alice, bob):
        network.join(host, ticket=ticket)
    alice.wait_for(lambda: network.knows(alice, [bob]), 60)
    wait_pinged(alice, network.address(bob))

    def link_of_alice() -> str:
        link = network.status(alice)["coordinator"]
        return str(link["url"]) if link["connected"] else ""

    at = link_of_alice()
    assert at
    victim = other if at == second_url else network.coordinator
    assert victim is not None
    victim.kill()
    alice.wait_for(lambda: link_of_alice() not in {"", at}, 60)
    survivor = underlay.server if victim is other else second
    carol = underlay.host("carol")
    network.warren(survivor, "network", "rename", "home", "bob", "robert")
    network.join(carol, ticket=network_ticket(network, survivor))
    alice.wait_for(lambda: {peer["name"] for peer in network.status(alice)["peers"]} == {"robert", "carol"}, 60)
    wait_pinged(alice, network.address(carol))


def network_ticket(network: Network, host: object) -> str:
    network.server = host  # type: ignore[assignment]  # the one that still answers
    return network.ticket()


@pytest.mark.logs_errors
def test_a_full_disk_refuses_writes_and_nothing_else(lab: Lab) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    state = underlay.server.directory / "coordinator"
    state.mkdir(mode=0o700)
    underlay.server.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(state)])
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    ticket = network.ticket("--uses", "3")
    network.join(alice, ticket=ticket)
    network.join(bob, ticket=ticket)
    alice.wait_for(lambda: network.knows(alice, [bob]), 60)
    underlay.server.run(["sh", "-c", f"head -c 4m /dev/zero > {state}/ballast; true"], check=False)
    for _ in range(200):
        done = network.warren(underlay.server, "network", "invite", "home", check=False)
        if done.returncode:
            break
    assert done.returncode in {1, 3}
    (line,) = done.stderr.strip().splitlines()
    assert "full" in line or "space" in line or "disk" in line
    assert network.warren(underlay.server, "network", "members", "home").returncode == 0
    wait_pinged(alice, network.address(bob))
    underlay.server.run(["rm", f"{state}/ballast"])
    underlay.server.wait_for(
        lambda: network.warren(underlay.server, "network", "invite", "home", check=False).returncode == 0, 60
    )
