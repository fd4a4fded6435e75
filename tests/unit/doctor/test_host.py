from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from warren.doctor.host import look_at_kernel, look_at_network
from warren.doctor.observed import Nic
from warren.linux.netlink_memory import MemoryNetlink
from warren.linux.netlink_values import Address, Route
from warren.linux.sysctl import MemorySysctls


def seen(sysctls: dict[str, str] | None = None) -> tuple[Nic, ...]:
    return asyncio.run(look(sysctls or {}))


async def look(sysctls: dict[str, str]) -> tuple[Nic, ...]:
    netlink = MemoryNetlink({"lo": 65536, "eth0": 1500, "w-home": 1420, "eth1": 1500})
    for name in ("lo", "eth0", "w-home"):
        await netlink.set_link(name, up=True)
    for interface, text in [("lo", "127.0.0.1/8"), ("eth0", "192.168.1.10/24"), ("eth0", "fe80::1/64")]:
        await netlink.add_address(Address(interface, ip_interface(text)))
    await netlink.add_route(Route(ip_network("0.0.0.0/0"), "eth0", gateway=ip_address("192.168.1.1")))
    nics, gateways = await look_at_network(netlink, ("w-*",), MemorySysctls(sysctls))
    assert [str(gateway.address) for gateway in gateways] == ["192.168.1.1"]
    return nics


def test_only_interfaces_that_are_up_and_lead_to_others_are_looked_at() -> None:
    (nic,) = seen()
    assert (nic.name, nic.addresses, nic.gateways) == ("eth0", ("192.168.1.10/24",), ("192.168.1.1",))


@pytest.mark.parametrize(
    ("accept", "forwarding", "heeded"), [("1", "0", True), ("1", "1", False), ("2", "1", True), ("0", "0", False)]
)
def test_advertisements_are_heeded_as_the_kernel_says(accept: str, forwarding: str, heeded: bool) -> None:
    settings = {"net/ipv6/conf/eth0/accept_ra": accept, "net/ipv6/conf/eth0/forwarding": forwarding}
    assert seen(settings)[0].accepts_advertisements is heeded
    assert seen()[0].accepts_advertisements is None


def test_the_kernel_is_looked_at_without_changing_anything() -> None:
    settings = {
        "net/core/rmem_max": "212992",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv4/conf/eth0/rp_filter": "1",
        "net/ipv4/conf/eth1/rp_filter": "2",
    }
    sysctls = MemorySysctls(settings)
    kernel = look_at_kernel(["eth0", "eth1"], sysctls)
    assert sysctls.values == settings
    assert kernel.release
    assert kernel.strict_reverse_path == ("eth0",)
    assert kernel.receive_buffer_bytes == 212_992
    assert kernel.clock_synchronised in {True, False, None}
