"""Split DNS by a real systemd-resolved, unpacked from Debian's package, on a lab host."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.rcode
import pytest

from tests.support.name_servers import NameServer, ask, output_of, records, response_to
from tests.support.policy_node import Tun, address, member, network
from tests.support.resolved import Resolved, unpack_resolved
from warren.dns.names import records as zone_of
from warren.dns.resolved import ResolvedDns
from warren.dns.resolver import Resolver
from warren.dns.split import ResolvConfDns, choose
from warren.errors import OperationFailed
from warren.lab import Lab

STUB = "127.0.0.53"
ELSEWHERE = "203.0.113.53"
ME = address(1, 6)
ZONE = zone_of(network(()), [member(1, "me"), member(2, "laptop")])


@pytest.fixture
def resolved(lab: Lab, request: pytest.FixtureRequest) -> Resolved:
    assert request.config.cache is not None
    files = unpack_resolved(request.config.cache.mkdir("systemd-resolved"))
    if isinstance(files, str):
        pytest.skip(files)
    return Resolved(lab.host("h"), files)


Check = Callable[[Resolver, NameServer], Coroutine[Any, Any, None]]


def _on_a_host(check: Check, resolvectl: str) -> None:
    """With the overlay's interface, and another with a name server that answers everything."""
    os.environ["RESOLVECTL"] = resolvectl
    tuns = [Tun("home"), Tun("uplink")]
    for command in (
        f"address add {ME}/128 dev home",
        f"address add {address(1, 4)}/32 dev home",
        "link set home up",
        f"address add {ELSEWHERE}/24 dev uplink",
        "link set uplink up",
    ):
        subprocess.run(["ip", *command.split()], check=True)

    async def run() -> None:
        async with asyncio.timeout(90), _resolver() as resolver:
            upstream = NameServer(ELSEWHERE, lambda query: [response_to(query, "192.0.2.1")])
            async with upstream:
                await output_of(resolvectl, "dns", "uplink", ELSEWHERE)
                await check(resolver, upstream)

    asyncio.run(run())
    assert tuns


@asynccontextmanager
async def _resolver() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    resolver.serve({"home": ZONE})
    await resolver.listen([ip_address(ME)])
    try:
        yield resolver
    finally:
        await resolver.close()


async def _names_are_split(resolver: Resolver, upstream: NameServer) -> None:
    split = await choose(resolver.forward_to)
    assert isinstance(split, ResolvedDns)
    assert split.description == "systemd-resolved, by its interface on D-Bus"
    await split.engage("home", ip_address(ME), ZONE.domains)
    for tcp in (False, True):
        assert records(await ask(STUB, "laptop.home.internal", tcp=tcp)) == [address(2, 6)]
        assert records(await ask(STUB, "laptop.home.internal", "A", tcp=tcp)) == [address(2, 4)]
    assert (await ask(STUB, "ghost.home.internal")).rcode() == dns.rcode.NXDOMAIN
    for version in (4, 6):
        reverse = ip_address(address(2, version)).reverse_pointer
        assert records(await ask(STUB, reverse, "PTR")) == ["laptop.home.internal."]
    assert (await output_of("getent", "ahostsv6", "laptop.home.internal")).split()[0] == address(2, 6)
    assert not upstream.asked, "our names are nobody else's business"
    resolvectl = os.environ["RESOLVECTL"]
    assert "10.7.0.2" in await output_of(resolvectl, "query", "-4", "laptop.home.internal")
    assert not await output_of(resolvectl, "query", "laptop"), "the domain is not searched"
    assert records(await ask(STUB, "www.example.org", "A")) == ["192.0.2.1"]
    assert set(upstream.names) == {"www.example.org."}
    resolver.serve({"home": zone_of(network(()), [member(3, "laptop")])})
    await split.engage("home", ip_address(ME), ZONE.domains)
    assert records(await ask(STUB, "laptop.home.internal")) == [address(3, 6)], "what it had kept is forgotten"
    await split.restore()
    assert records(await ask(STUB, "laptop.home.internal", "A")) == ["192.0.2.1"], "as it was before"
    await split.restore()


async def _what_others_change_is_put_right(resolver: Resolver, upstream: NameServer) -> None:
    split = await choose(resolver.forward_to)
    await split.engage("home", ip_address(ME), ZONE.domains)
    await split.check()
    other = ResolvedDns()
    await other.engage("home", ip_address(ELSEWHERE), ("example.org",))
    upstream.asked.clear()
    assert (await ask(STUB, "laptop.home.internal", "A")).rcode() == dns.rcode.NOERROR
    assert upstream.asked
    await split.check()
    assert records(await ask(STUB, "laptop.home.internal", "A")) == [address(2, 4)]
    subprocess.run(["ip", "link", "set", "home", "name", "aside"], check=True)
    with pytest.raises(OperationFailed, match="there is no interface home"):
        await split.check()
    subprocess.run(["ip", "link", "set", "aside", "name", "home"], check=True)
    await split.disengage("home")
    await split.check()
    assert records(await ask(STUB, "laptop.home.internal", "A")) == ["192.0.2.1"]


async def _an_interface_that_is_not_there_is_named(resolver: Resolver, _: NameServer) -> None:
    split = await choose(resolver.forward_to)
    with pytest.raises(OperationFailed, match="there is no interface ghost"):
        await split.engage("ghost", ip_address(ME), ZONE.domains)
    with pytest.raises(OperationFailed, match=r"systemd-resolved refuses SetLinkDNS: .*loopback"):
        await split.engage("lo", ip_address(ME), ZONE.domains)
    await split.engage("home", ip_address(ME), ZONE.domains)
    subprocess.run(["ip", "link", "delete", "home"], check=True)
    with pytest.raises(OperationFailed, match="there is no interface home"):
        await split.check()
    await split.disengage("home")
    await split.restore()


async def _programs_that_do_not_ask_it_need_the_file(resolver: Resolver, _: NameServer) -> None:
    Path("/etc/resolv.conf").write_text(f"nameserver {ELSEWHERE}\n")
    split = await choose(resolver.forward_to)
    assert isinstance(split, ResolvConfDns)
    assert "systemd-resolved runs, but this host's programs do not ask it" in split.description
    await split.engage("home", ip_address(ME), ZONE.domains)
    assert (await output_of("getent", "ahostsv6", "laptop.home.internal")).split()[0] == address(2, 6)
    assert (await output_of("getent", "ahostsv4", "www.example.org")).split()[0] == "192.0.2.1"
    await split.restore()


@pytest.mark.parametrize(
    "check",
    [
        _names_are_split,
        _what_others_change_is_put_right,
        _an_interface_that_is_not_there_is_named,
        _programs_that_do_not_ask_it_need_the_file,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_with_systemd_resolved(lab: Lab, resolved: Resolved, check: Check) -> None:
    lab.hosts["h"].call(_on_a_host, check, str(resolved.client), timeout=100)
