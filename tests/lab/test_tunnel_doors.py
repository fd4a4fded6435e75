"""The doors to rtnetlink and nftables against the kernel, inside a lab host."""

from __future__ import annotations

import asyncio
import subprocess
from ipaddress import ip_address

import pytest

from tests.support.netlink_conformance import SCENARIOS
from warren.errors import OperationFailed
from warren.lab import Lab
from warren.linux.netlink import open_netlink
from warren.linux.nft import LibNft, Table
from warren.tunnel.firewall import forget, protect


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _conforms(name: str) -> None:
    async def scenario() -> None:
        async with open_netlink() as netlink:
            await SCENARIOS[name](netlink, "tun0")

    _ip("tuntap", "add", "tun0", "mode", "tun")
    asyncio.run(scenario())


@pytest.mark.parametrize("name", SCENARIOS)
def test_netlink_conforms(lab: Lab, name: str) -> None:
    lab.host("h").call(_conforms, name)


def _nft_list() -> str:
    return subprocess.run(["nft", "-s", "-p", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def _one_transaction() -> None:
    nft = LibNft()
    assert nft.tables() == frozenset()
    document = protect("home", 4, 51820, (ip_address("10.0.0.1"),))
    nft.run(document)
    nft.run(protect("home", 6, 51820, (ip_address("fd00::1"),)))
    assert nft.tables() == {Table("ip", "warren-home"), Table("ip6", "warren-home")}
    before = _nft_list()
    nft.run(document)
    assert sorted(_nft_list().splitlines()) == sorted(before.splitlines()), "putting it in place again changes nothing"
    for line in (
        'iifname != "home" ip daddr 10.0.0.1 fib saddr type != local drop',
        'iifname != "home" ip6 daddr fd00::1 fib saddr type != local drop',
        "meta l4proto 17 meta mark set ct mark",
        "meta l4proto 17 meta mark 0x0000ca6c ct mark set meta mark",
    ):
        assert line in before
    broken = {"add": {"rule": {"family": "ip", "table": "absent", "chain": "c", "expr": []}}}
    with pytest.raises(OperationFailed, match="nftables refuses the rules: No such file or directory"):
        nft.run([*forget(Table("ip", "warren-home")), broken])
    assert "ip daddr 10.0.0.1" in _nft_list(), "the first half of the document has not happened"
    for family in ("ip", "ip6"):
        nft.run(forget(Table(family, "warren-home")))
        nft.run(forget(Table(family, "warren-home")))
    assert _nft_list() == ""


def test_an_nft_document_is_one_transaction(lab: Lab) -> None:
    lab.host("h").call(_one_transaction)
