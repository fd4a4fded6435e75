"""aioice, an ICE agent that this project did not write (RFC 8445), by way of our relay: its STUN, its TURN client."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from pathlib import Path

import aioice
import pytest

from warren.relay.config import RelayConfig
from warren.relay.process import RelayProcess

PATIENCE_S = 30.0


def config(state: Path) -> RelayConfig:
    loopback = ip_network("127.0.0.0/8")
    return RelayConfig(udp_port=0, tcp_port=0, users={"ice": "a password of it"}, allow_peers=(loopback,), state=state)


def agent(*, controlling: bool, port: int, transport: str) -> aioice.Connection:
    return aioice.Connection(
        ice_controlling=controlling,
        turn_server=("127.0.0.1", port),
        turn_username="ice",
        turn_password="a password of it",
        turn_transport=transport,
        use_ipv6=False,
    )


async def introduce(one: aioice.Connection, other: aioice.Connection) -> None:
    """Each learns the relayed candidates of the other, and no others."""
    for here, there in ((one, other), (other, one)):
        there.remote_username, there.remote_password = here.local_username, here.local_password
        for candidate in here.local_candidates:
            if candidate.type == "relay":
                await there.add_remote_candidate(candidate)
        await there.add_remote_candidate(None)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_ice_agents_talk_over_their_allocations_at_our_relay(tmp_path: Path, transport: str) -> None:
    async def scenario() -> None:
        relay = RelayProcess(config(tmp_path))
        ready = await relay.start()
        port = ready.udp_port if transport == "udp" else ready.tcp_port
        assert port is not None
        agents = [agent(controlling=first, port=port, transport=transport) for first in (True, False)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*(one.gather_candidates() for one in agents))
                assert all(any(c.type == "relay" for c in one.local_candidates) for one in agents)
                await introduce(*agents)
                await asyncio.gather(*(one.connect() for one in agents))
                for number in range(20):
                    await agents[0].send(b"question %d" % number)
                    assert await agents[1].recv() == b"question %d" % number
                    await agents[1].send(b"answer %d" % number)
                    assert await agents[0].recv() == b"answer %d" % number
            assert (await relay.counters())["allocations"] == 2
        finally:
            await asyncio.gather(*(one.close() for one in agents))
            await relay.stop()

    asyncio.run(scenario())
