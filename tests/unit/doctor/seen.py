"""Observations for tests: a healthy host behind an easy NAT, and changes of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from warren.doctor.observed import Family, Kernel, NatSeen, Nic, Observed

HEALTHY_KERNEL = Kernel(release="6.12", clock_synchronised=True, receive_buffer_bytes=8 << 20)
LAN = Nic(
    name="eth0",
    mtu=1500,
    addresses=("192.168.1.10/24",),
    gateways=("192.168.1.1",),
    advertisements=0,
    accepts_advertisements=True,
)


def nat(**changes: Any) -> NatSeen:
    """Behind an easy NAT; None for ``mapped``: nobody answered."""
    usual: dict[str, Any] = {
        "local": "192.168.1.10:40000",
        "mapped": "198.51.100.1:40000",
        "translated": True,
        "mapping": "eim",
        "filtering": "apdf",
        "allocation": "preserving",
        "hairpin": False,
        "answered": ("203.0.113.1:3478",),
        "discovery": "203.0.113.1:3478",
    }
    return NatSeen(**{**usual, **changes})


def family(version: Literal[4, 6] = 4, **changes: Any) -> Family:
    usual: dict[str, Any] = {"asked": ("203.0.113.1:3478",), "nat": nat(), "path_mtu": 1500}
    return Family(version=version, **{**usual, **changes})


NO_IPV6 = Family(version=6)
OPEN4 = family(
    nat=nat(local="198.51.100.1:1", mapped="198.51.100.1:1", translated=False, filtering="eif", hairpin=None)
)
OPEN6 = family(6, nat=nat(local="[2001:db8::1]:1", mapped="[2001:db8::1]:1", translated=False, filtering="eif"))
FIREWALLED6 = msgspec.structs.replace(
    OPEN6, nat=nat(local="[2001:db8::1]:1", mapped="[2001:db8::1]:1", translated=False, filtering="apdf", hairpin=None)
)
SILENT4 = family(nat=nat(mapped=None, translated=None, mapping=None, filtering=None, answered=(), discovery=None))


def observed(**changes: Any) -> Observed:
    usual: dict[str, Any] = {"nics": (LAN,), "ipv4": family(), "gateways": (), "kernel": HEALTHY_KERNEL}
    return Observed(**{**usual, **changes})
