from __future__ import annotations

import asyncio
import shutil
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from warren.lab import Lab
from warren.lab.nat64 import start_nat64
from warren.linux.nat64 import discover_nat64

pytestmark = pytest.mark.skipif(
    not (shutil.which("tayga") and shutil.which("dnsmasq")), reason="not installed: tayga, dnsmasq"
)
PREFIX = IPv6Network("2001:db8:64::/96")


def discover() -> IPv6Network | None:
    return asyncio.run(discover_nat64())


def test_a_host_with_ipv6_only_finds_the_nat64_and_reaches_ipv4_through_it(lab: Lab) -> None:
    inside, outside, router = lab.host("inside"), lab.host("outside"), lab.router("router")
    lab.link(inside, router, "2001:db8:1::2/64", "2001:db8:1::1/64", interfaces=("eth0", "inside"))
    lab.link(outside, router, "198.51.100.2/24", "198.51.100.1/24", interfaces=("eth0", "outside"))
    start_nat64(router, PREFIX, interface="outside")
    inside.route("default", via="2001:db8:1::1")
    inside.run(["sh", "-c", "echo nameserver 2001:db8:1::1 > /etc/resolv.conf"])
    inside.wait_for(["getent", "ahostsv6", "ipv4only.arpa"])
    assert inside.call(discover) == PREFIX
    inside.wait_for(["ping", "-c1", "-W1", "2001:db8:64::198.51.100.2"])
    assert Path("/etc/resolv.conf").read_text().find("2001:db8:1::1") < 0  # the machine's own is untouched
