"""A stateful NAT64 with its DNS for a lab's router, out of programs others wrote: tayga, nftables and dnsmasq.

tayga translates statelessly, giving each IPv6 host an IPv4 address of a pool (RFC 7915); masquerading the pool makes it
the NAT64 that access networks have (RFC 6146). dnsmasq answers ``ipv4only.arpa`` as such a network's DNS64 does
(RFC 7050), and nothing else.
"""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import Final

from warren.lab.router import Router

_DEVICE: Final = "nat64"
_POOL: Final = "192.168.255.0/24"
_POOL_OWN: Final = "192.168.255.1"
_OWN6: Final = "fd64::1"  # the source of tayga's own ICMPv6 messages
_KNOWN: Final = ("192.0.0.170", "192.0.0.171")  # RFC 7050 §2.2


def start_nat64(router: Router, prefix: IPv6Network, *, interface: str) -> None:
    """Make ``router`` translate what is sent to ``prefix`` (a /96) and leaves by ``interface``, and answer DNS queries.

    Hosts need a route to the prefix through the router, and its address as name server. Raises OperationFailed when a
    program is missing (Debian packages tayga, dnsmasq-base).
    """
    directory = router.directory / _DEVICE
    directory.mkdir()
    config = directory / "tayga.conf"
    lines = [f"tun-device {_DEVICE}", f"prefix {prefix}", f"ipv4-addr {_POOL_OWN}", f"ipv6-addr {_OWN6}"]
    config.write_text("\n".join([*lines, f"dynamic-pool {_POOL}", f"data-dir {directory}", ""]))
    router.run(["tayga", "--mktun", "--config", str(config)])
    router.ip(f"link set {_DEVICE} up", f"route add {_POOL} dev {_DEVICE}", f"route add {prefix} dev {_DEVICE}")
    router.nat(interface, "port-restricted")
    router.start(["tayga", "--nodetach", "--config", str(config)])
    records = [f"--host-record=ipv4only.arpa,{known},{prefix.network_address + _number(known)}" for known in _KNOWN]
    options = ["--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--user=root", "--pid-file="]
    router.start(["dnsmasq", *options, *records])


def _number(address: str) -> int:
    return int.from_bytes(bytes(map(int, address.split("."))), "big")
