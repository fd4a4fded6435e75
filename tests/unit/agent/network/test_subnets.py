"""Subnets behind a rootless node, in a kernel in memory."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network

from tests.unit.agent.fakes import signing_key
from warren.agent.network.subnets import Subnets, transparent_port
from warren.linux.netlink_memory import MemoryNetlink
from warren.linux.nft import MemoryNft, Table

ONE, OTHER = ip_network("192.0.2.0/24"), ip_network("2001:db8:5::/48")
TABLE = Table("inet", "warren-w-home-behind")


def test_what_is_wanted_is_set_up_once_changed_and_taken_away() -> None:
    async def run() -> None:
        netlink, nft = MemoryNetlink(), MemoryNft()
        netlink.add_link("lo", 65_536)
        await netlink.set_link("lo", up=True)
        subnets = Subnets(netlink, nft, 20_001)
        await subnets.keep("w-home", ())
        assert nft.tables() == frozenset()
        assert not any(rule.fwmark for rule in await netlink.rules())
        for prefixes in ((ONE,), (ONE,), (ONE, OTHER), (OTHER,)):
            await subnets.keep("w-home", prefixes)
            assert [route.network for route in await netlink.routes() if route.local] == list(prefixes)
            assert TABLE in nft.tables()
        assert {rule.version for rule in await netlink.rules() if rule.fwmark} == {4, 6}
        left = Subnets(netlink, nft, 20_001)  # of an agent that wants none any more
        await left.keep("w-home", ())
        assert TABLE not in nft.tables()
        await subnets.keep("w-home", (ONE,))
        again = Subnets(netlink, nft, 20_001)  # of the next agent
        await again.keep("w-home", (OTHER, ONE))
        await again.keep("w-home", ())
        assert TABLE not in nft.tables()
        assert not any(route.local for route in await netlink.routes())

    asyncio.run(run())


def test_a_network_has_its_port_for_ever() -> None:
    port = transparent_port(signing_key("home").verify_key)
    assert port == transparent_port(signing_key("home").verify_key)
    assert 20_000 <= port < 32_768
