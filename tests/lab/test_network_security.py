"""A network with somebody hostile in it: an insider, a revoked member, a reader of logs and of the database."""

from __future__ import annotations

import base64
import re
import socket
import time
from pathlib import Path

import pytest

from tests.support.crowds import enrol
from tests.support.insiders import Outcome, claim
from tests.support.overlay import Underlay, pinged, wait_pinged
from tests.support.pings import Answers, counted
from warren.identity.signing import VerifyKey
from warren.identity.store import KeyStore
from warren.lab import Host, Lab
from warren.lab.network import Network, environment
from warren.model.tickets import read_access, read_ticket

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def underlay(lab: Lab) -> Underlay:
    return Underlay(lab)


def keys_of(network: Network, host: Host) -> tuple[KeyStore, VerifyKey]:
    store = KeyStore.open(Path(environment(host)["WARREN_STATE"]) / "keys")
    return store, VerifyKey.from_text(network.status(host)["network_id"])


# Insiders


def test_an_insider_takes_nobodys_place_whatever_its_record_says(underlay: Underlay) -> None:
    network, (alice, bob) = underlay.started("alice", "bob")
    to_alice, to_bob = network.address(alice), network.address(bob)
    wait_pinged(alice, to_bob)
    victim = network.status(bob)["wireguard_key"]
    ping = alice.start(["ping", "-n", "-i", "0.1", "-c", "150", to_bob], name="ping")
    mallory = underlay.host("mallory")
    addresses = (to_alice, to_bob, "198.51.100.1", "169.254.1.1")
    outcome = mallory.call(claim, network.ticket(), "bob", base64.b64decode(victim), addresses, timeout=150)
    assert outcome == Outcome(
        key_theft="key-taken",
        too_many_candidates="invalid",
        multicast="invalid",
        large_record="invalid",
        large_report="lost",
        flood="limit",
        absurd="published",
    )
    assert ping.wait(60) == 0
    assert counted(ping.output()) == Answers(sent=150, lost=0)
    alice.wait_for(lambda: "bob-2" in {peer["name"] for peer in network.status(alice)["peers"]})
    (peer,) = (peer for peer in network.status(alice)["peers"] if peer["name"] == "bob-2")
    assert peer["state"] in {"unreachable", "unknown", "idle"}
    assert network.status(bob)["wireguard_key"] == victim
    assert not any(host_log(network, host).count("Traceback") for host in (alice, bob))


def host_log(network: Network, host: Host) -> str:
    return network.nodes[host.name].process.output()


def test_a_packet_with_the_source_of_another_member_is_not_delivered(underlay: Underlay) -> None:
    network, (alice, bob, mallory) = underlay.started("alice", "bob", "mallory")
    to_alice = network.address(alice)
    for host in (bob, mallory):
        wait_pinged(host, to_alice)
    own, stranger = network.address(mallory), str(network.address(bob))
    mallory.ip(f"address add {stranger}/128 dev lo", "address add fd00:1234::1/128 dev lo")
    mallory.run(["nft", "flush ruleset"])  # its own agent would not let them out
    with alice.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        receiver.bind((to_alice, 0))
        receiver.settimeout(30.0)
        place = (to_alice, receiver.getsockname()[1])
        for source in (stranger, to_alice, "fd00:1234::1", own):
            with mallory.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
                sender.bind((source, 0))
                for _ in range(3):
                    sender.sendto(source.encode(), place)
        assert receiver.recvfrom(64)[0] == own.encode()  # of all that was sent, the first that arrives


# Revoked members


def test_who_was_revoked_while_away_stays_out_on_every_way_back(underlay: Underlay) -> None:
    network, (alice, bob) = underlay.started("alice", "bob")
    to_alice = network.address(alice)
    wait_pinged(bob, to_alice)
    store, key = keys_of(network, bob)
    revoked = network.status(bob)["node_id"]
    unused = network.ticket()
    assert network.nodes["bob"].process.stop(timeout=60) == 0
    network.warren(underlay.server, "network", "revoke", "home", "bob", "--yes")
    alice.wait_for(lambda: network.status(alice)["peers"] == [])
    # By an invite that nobody used, with the key that was revoked.
    assert underlay.server.call(_enrol, unused, store.node_key(key).seed) == "revoked"
    # While no coordinator can tell it, it believes its cache; nobody else does.
    assert network.coordinator is not None
    network.coordinator.kill()
    network.up(bob)
    assert pinged(bob, [to_alice], wait_s=3) == [to_alice]
    network.run_coordinator()
    bob.wait_for(lambda: network.status(bob)["state"] == "revoked", 60)
    assert pinged(bob, [to_alice], wait_s=2) == [to_alice]
    # The person who runs it may come back, with a ticket and as somebody else.
    network.warren(bob, "up", unused)
    bob.wait_for(lambda: pinged(bob, [to_alice], wait_s=1) == [], 60)
    assert str(keys_of(network, bob)[0].node_key(key).verify_key) != revoked


def _enrol(ticket: str, seed: bytes) -> str:
    import asyncio

    from warren.identity.signing import SigningKey

    return asyncio.run(enrol(ticket, "bob", SigningKey(seed)))


# Secrets


def test_no_log_and_no_table_holds_a_secret(underlay: Underlay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_DEBUG", "1")
    network = underlay.network()
    network.start()
    alice, bob = underlay.host("alice"), underlay.host("bob")
    secrets: dict[str, bytes] = {}
    tickets = []
    for host in (alice, bob):
        state = Path(environment(host)["WARREN_STATE"])
        state.mkdir(mode=0o700)
        (state / "agent.toml").write_text("[keys]\nrotate_days = 0.0001\nannounce_hours = 0.001\n")
        tickets.append(network.ticket())
        network.join(host, ticket=tickets[-1])
    note_keys(secrets, network, alice, bob)
    wait_pinged(alice, network.address(bob))
    first = network.status(alice)["wireguard_key"]
    alice.wait_for(lambda: network.status(alice)["wireguard_key"] != first, 90)
    note_keys(secrets, network, alice, bob)
    token = network.warren(underlay.server, "coordinator", "token", "create", *state_of(underlay.server)).stdout
    network.warren(underlay.server, "network", "revoke", "home", "bob", "--yes")
    bob.wait_for(lambda: network.status(bob)["state"] == "revoked", 60)
    tickets.append(network.ticket())
    network.warren(bob, "up", tickets[-1])
    note_keys(secrets, network, bob)
    assert network.coordinator is not None
    for process in (network.nodes["alice"].process, network.nodes["bob"].process, network.coordinator):
        assert process.stop(timeout=60) == 0
    now = time.time()
    for number, ticket in enumerate(tickets):
        secrets[f"ticket {number}"] = read_ticket(ticket, now).document.secret
    access = read_access(network.access).secret
    found = re.search(r"warren-access:[A-Za-z0-9_-]+", token)
    assert found is not None
    texts = {"access": access, "token": read_access(found.group()).secret}
    for log in sorted(underlay.server.artifacts.rglob("*.log")):
        content = log.read_text(errors="replace").replace(network.access, "")  # the coordinator's first words
        assert found_in(content.encode(), secrets, texts) == [], log.name
        assert "Traceback" not in content, log.name
        assert "warren-ticket:" not in content, log.name
    database = underlay.server.directory / "coordinator" / "coordinator.db"
    for file in database.parent.glob("coordinator.db*"):
        assert found_in(file.read_bytes(), secrets, texts) == []


def note_keys(secrets: dict[str, bytes], network: Network, *hosts: Host) -> None:
    for host in hosts:
        store, key = keys_of(network, host)
        secrets[f"node key of {host.name} {len(secrets)}"] = store.node_key(key).seed
        kept = store.wireguard_keys(key, 0.0)
        for one in (kept.current, kept.next):
            if one is not None:
                secrets[f"WireGuard key of {host.name} {len(secrets)}"] = one.raw


def state_of(host: Host) -> list[str]:
    return ["--state", str(host.directory / "coordinator")]


def found_in(content: bytes, secrets: dict[str, bytes], texts: dict[str, str]) -> list[str]:
    """The names of the secrets that ``content`` shows in one of the spellings that programs use."""
    found = [name for name, text in texts.items() if text.encode() in content]
    for name, raw in secrets.items():
        spellings = (raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw)[:-1])
        if any(spelling.rstrip(b"=") in content for spelling in spellings):
            found.append(name)
    return found
