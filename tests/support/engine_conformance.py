"""What every engine must do, as scenarios that run against any of them.

A :class:`Bench` makes engines that can reach each other and lets the scenario act as the hosts behind them. A
scenario never waits for silence: to show that a packet is dropped it sends another after it and expects that one
alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from ipaddress import ip_network
from typing import Protocol

import pytest

from tests.support.packets import udp_packet
from warren.engine.base import Engine
from warren.errors import OperationFailed, Unreachable
from warren.identity.keys import PresharedKey, PrivateKey
from warren.model.tunnel import PeerChange, TransportAddress, TunnelChange


class Bench(Protocol):
    """The surroundings of a scenario."""

    async def engine(self, name: str) -> Engine:
        """A new engine whose interface is up."""

    async def address(self, engine: Engine) -> TransportAddress:
        """Where the other engines reach it."""

    async def inject(self, engine: Engine, packet: bytes) -> None:
        """The engine's host sends an IP packet into the tunnel."""

    async def expect(self, engine: Engine, packet: bytes) -> None:
        """Wait until ``packet`` is the next that the engine delivers to its host; fail on any other or on none."""

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until it is; fail when it does not become so."""

    async def relay(self, forward: Forward) -> TransportAddress:
        """A host that answers each datagram with those that ``forward`` makes of it; where the engines reach it."""


Forward = Callable[[bytes, TransportAddress], list[tuple[bytes, TransportAddress]]]
"""Takes a datagram and where it came from; returns datagrams and where they go."""
Scenario = Callable[[Bench], Awaitable[None]]
SCENARIOS: list[Scenario] = []

_A4, _B4, _A6, _B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"


def _scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


def key(name: str) -> PrivateKey:
    """A private key that depends on ``name`` only."""
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def peer(name: str, *allowed: str, endpoint: TransportAddress | None = None, **more: object) -> PeerChange:
    return PeerChange(
        key(name).public_key(),
        endpoint=endpoint,
        allowed_ips=tuple(ip_network(text) for text in allowed),
        **more,  # type: ignore[arg-type]
    )


async def pair(bench: Bench, psk: PresharedKey | None = None) -> tuple[Engine, Engine]:
    """Engines ``a`` and ``b`` that know each other; only ``a`` knows where ``b`` is."""
    a, b = await bench.engine("a"), await bench.engine("b")
    where = await bench.address(b)
    await a.configure(
        TunnelChange(key("a"), peers=(peer("b", f"{_B4}/32", f"{_B6}/128", endpoint=where, preshared_key=psk),))
    )
    await b.configure(TunnelChange(key("b"), peers=(peer("a", f"{_A4}/32", f"{_A6}/128", preshared_key=psk),)))
    return a, b


@_scenario
async def an_engine_has_a_name_and_satisfies_the_protocol(bench: Bench) -> None:
    engine = await bench.engine("a")
    assert isinstance(engine, Engine)
    assert engine.interface


@_scenario
async def packets_of_both_families_travel_both_ways(bench: Bench) -> None:
    a, b = await pair(bench)
    for source, destination in ((_A4, _B4), (_A6, _B6)):
        there = udp_packet(source, destination, b"there")
        back = udp_packet(destination, source, b"back")
        await bench.inject(a, there)
        await bench.expect(b, there)
        await bench.inject(b, back)
        await bench.expect(a, back)


@_scenario
async def a_pair_with_a_preshared_key_talks(bench: Bench) -> None:
    a, b = await pair(bench, PresharedKey(b"\x05" * 32))
    packet = udp_packet(_A4, _B4, b"with psk")
    await bench.inject(a, packet)
    await bench.expect(b, packet)


@_scenario
async def what_was_configured_is_what_status_says(bench: Bench) -> None:
    a, b = await pair(bench, PresharedKey(b"\x05" * 32))
    await a.configure(TunnelChange(peers=(PeerChange(key("b").public_key(), persistent_keepalive_s=25),)))
    status = await a.status()
    assert status.private_key == key("a")
    (other,) = status.peers
    assert other.public_key == key("b").public_key()
    assert other.preshared_key == PresharedKey(b"\x05" * 32)
    assert other.endpoint == await bench.address(b)
    assert set(other.allowed_ips) == {ip_network(f"{_B4}/32"), ip_network(f"{_B6}/128")}
    assert other.persistent_keepalive_s == 25


@_scenario
async def counters_and_the_handshake_time_show_traffic(bench: Bench) -> None:
    a, b = await pair(bench)
    packet = udp_packet(_A4, _B4, b"x" * 1000)
    assert (await a.status()).peers[0].last_handshake_ns == 0
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    assert (await a.status()).peers[0].last_handshake_ns > 0
    assert (await a.status()).peers[0].tx_bytes > 1000
    assert (await b.status()).peers[0].rx_bytes > 1000


@_scenario
async def the_endpoint_of_a_peer_is_learned_from_its_authenticated_packets(bench: Bench) -> None:
    a, b = await pair(bench)
    assert (await b.status()).peers[0].endpoint is None
    packet = udp_packet(_A4, _B4, b"hello")
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    assert (await b.status()).peers[0].endpoint == await bench.address(a)


@_scenario
async def a_peer_that_moves_to_another_port_is_followed(bench: Bench) -> None:
    a, b = await pair(bench)
    first, second, back = (udp_packet(*way, b"roam") for way in ((_A4, _B4), (_A6, _B6), (_B4, _A4)))
    await bench.inject(a, first)
    await bench.expect(b, first)
    before = await bench.address(a)
    await a.configure(TunnelChange(listen_port=0))
    assert await bench.address(a) != before
    await bench.inject(a, second)
    await bench.expect(b, second)
    assert (await b.status()).peers[0].endpoint == await bench.address(a)
    await bench.inject(b, back)
    await bench.expect(a, back)


@_scenario
async def an_inner_source_that_is_not_the_peers_is_dropped(bench: Bench) -> None:
    a, b = await pair(bench)
    for source, destination in (("10.77.0.9", _B4), (_B4, _B4), ("127.0.0.1", _B4), ("fd77::9", _B6), ("::1", _B6)):
        await bench.inject(a, udp_packet(source, destination, b"spoofed"))
    honest = udp_packet(_A4, _B4, b"honest")
    await bench.inject(a, honest)
    await bench.expect(b, honest)
    assert (await b.statistics())["inner_spoofed"] == 5


@_scenario
async def a_destination_that_no_peer_has_is_dropped(bench: Bench) -> None:
    a, b = await pair(bench)
    await bench.inject(a, udp_packet(_A4, "10.99.0.1", b"nowhere"))
    packet = udp_packet(_A4, _B4, b"somewhere")
    await bench.inject(a, packet)
    await bench.expect(b, packet)


@_scenario
async def a_removed_peer_is_gone_at_once(bench: Bench) -> None:
    a, b = await pair(bench)
    packet = udp_packet(_A4, _B4, b"before")
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    await b.configure(TunnelChange(peers=(PeerChange(key("a").public_key(), remove=True),)))
    assert (await b.status()).peers == ()
    await bench.inject(a, udp_packet(_A4, _B4, b"after"))
    await b.configure(TunnelChange(peers=(peer("a", f"{_A4}/32"),)))
    assert (await b.status()).peers[0].rx_bytes == 0


@_scenario
async def a_key_that_changes_with_its_sessions_kept_makes_no_handshake(bench: Bench) -> None:
    a, b = await pair(bench)
    first = udp_packet(_A4, _B4, b"before")
    await bench.inject(a, first)
    await bench.expect(b, first)
    handshakes = (await b.statistics())["handshakes_completed"]
    await a.configure(TunnelChange(key("a2"), keep_sessions=True))
    for number in range(2):
        there, back = udp_packet(_A4, _B4, b"there %d" % number), udp_packet(_B4, _A4, b"back %d" % number)
        await bench.inject(a, there)
        await bench.expect(b, there)
        await bench.inject(b, back)
        await bench.expect(a, back)
        if number == 0:
            await b.configure(TunnelChange(peers=(_renamed("a", "a2"),)))
    (known,) = (await b.status()).peers
    assert known.public_key == key("a2").public_key()
    assert set(known.allowed_ips) == {ip_network(f"{_A4}/32"), ip_network(f"{_A6}/128")}
    assert (await b.statistics())["handshakes_completed"] == handshakes


@_scenario
async def a_renamed_peer_makes_its_next_session_with_the_new_key(bench: Bench) -> None:
    a, b = await pair(bench, PresharedKey(b"\x05" * 32))
    first, second = udp_packet(_A4, _B4, b"first"), udp_packet(_A4, _B4, b"second")
    await bench.inject(a, first)
    await bench.expect(b, first)
    await b.configure(TunnelChange(peers=(_renamed("a", "a2"),)))
    before = (await b.statistics())["handshakes_completed"]
    await a.configure(TunnelChange(key("a2")))
    await bench.inject(a, second)
    await bench.expect(b, second)
    assert (await b.statistics())["handshakes_completed"] == before + 1


def _renamed(old: str, new: str) -> PeerChange:
    return PeerChange(key(new).public_key(), renamed_from=key(old).public_key(), update_only=True)


@_scenario
async def an_impossible_rename_is_refused_and_nothing_changes(bench: Bench) -> None:
    a, _ = await pair(bench)
    await a.configure(TunnelChange(peers=(peer("c", "10.3.0.0/16"),)))
    before = await a.status()
    for old, new in (("nobody", "d"), ("b", "c"), ("b", "a")):
        rename = PeerChange(key(new).public_key(), renamed_from=key(old).public_key())
        with pytest.raises(OperationFailed):
            await a.configure(TunnelChange(listen_port=0, fwmark=7, peers=(peer("d", "10.4.0.0/16"), rename)))
        assert await a.status() == before


@_scenario
async def the_initiator_of_a_handshake_knows_its_round_trip(bench: Bench) -> None:
    a, b = await pair(bench)
    assert (await a.status()).peers[0].handshake_rtt_ns == 0
    packet = udp_packet(_A4, _B4, b"round trip")
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    assert 0 < (await a.status()).peers[0].handshake_rtt_ns < 10**9
    assert (await b.status()).peers[0].handshake_rtt_ns == 0


@_scenario
async def update_only_makes_no_peer(bench: Bench) -> None:
    engine = await bench.engine("a")
    await engine.configure(TunnelChange(key("a"), peers=(peer("b", "10.0.0.0/8", update_only=True),)))
    assert (await engine.status()).peers == ()


@_scenario
async def replace_peers_forgets_those_not_named(bench: Bench) -> None:
    engine = await bench.engine("a")
    await engine.configure(TunnelChange(key("a"), peers=(peer("b", "10.1.0.0/16"), peer("c", "10.2.0.0/16"))))
    await engine.configure(TunnelChange(replace_peers=True, peers=(peer("d", "10.3.0.0/16"),)))
    assert [p.public_key for p in (await engine.status()).peers] == [key("d").public_key()]


@_scenario
async def an_allowed_ip_moves_to_the_peer_named_last(bench: Bench) -> None:
    engine = await bench.engine("a")
    await engine.configure(TunnelChange(key("a"), peers=(peer("b", "10.1.0.0/16"), peer("c", "10.1.0.0/16"))))
    allowed = {p.public_key: p.allowed_ips for p in (await engine.status()).peers}
    assert allowed == {key("b").public_key(): (), key("c").public_key(): (ip_network("10.1.0.0/16"),)}


@_scenario
async def allowed_ips_are_added_removed_and_replaced(bench: Bench) -> None:
    engine = await bench.engine("a")
    name = key("b").public_key()
    await engine.configure(TunnelChange(key("a"), peers=(peer("b", "10.1.0.0/16"),)))
    await engine.configure(TunnelChange(peers=(peer("b", "fd01::/64"),)))
    assert set((await engine.status()).peers[0].allowed_ips) == {ip_network("10.1.0.0/16"), ip_network("fd01::/64")}
    await engine.configure(TunnelChange(peers=(PeerChange(name, removed_allowed_ips=(ip_network("10.1.0.0/16"),)),)))
    assert (await engine.status()).peers[0].allowed_ips == (ip_network("fd01::/64"),)
    await engine.configure(TunnelChange(peers=(peer("b", "10.9.0.0/24", replace_allowed_ips=True),)))
    assert (await engine.status()).peers[0].allowed_ips == (ip_network("10.9.0.0/24"),)


@_scenario
async def a_taken_port_is_refused_and_nothing_changes(bench: Bench) -> None:
    a, b = await pair(bench)
    before = await a.status()
    taken = (await bench.address(b)).port
    if (await bench.address(a)).ip != (await bench.address(b)).ip:
        return  # on underlays of their own two engines may have the same port
    with pytest.raises(OperationFailed):
        await a.configure(TunnelChange(listen_port=taken, private_key=key("other"), replace_peers=True))
    assert await a.status() == before


@_scenario
async def a_closed_engine_is_unreachable_and_closes_twice(bench: Bench) -> None:
    engine = await bench.engine("a")
    await engine.close()
    await engine.close()
    with pytest.raises(Unreachable):
        await engine.status()
