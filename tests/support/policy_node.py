"""A node under test inside a lab host: its overlay interface, its LAN and its underlay are TUNs in the test's hands.

A packet that is written to a TUN has been received, judged, delivered or passed on before the write returns, and what
the kernel answers waits at once: nothing here waits for anything.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Network
from pathlib import Path
from typing import Self

from warren.identity.signing import SigningKey
from warren.l3.firewall import Own, ruleset
from warren.l3.refusals import refusals
from warren.linux.nft import LibNft
from warren.model.documents import Membership, NetworkSpec, Rule
from warren.model.members import Member
from warren.model.policy import Flow, resolve, verdict
from warren.model.services import Service
from warren.model.serving import service_addresses

INTERFACE = "home"
PREFIX6, PREFIX4 = "fd11:2233:4455", "10.7.0"
STRANGER = {4: "198.51.100.7", 6: "2001:db8:99::7"}
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_PACKET_BYTES_MAX = 65_535
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv6/icmp/ratelimit": "0",
}


class Tun:
    """A TUN interface: what is written to it the kernel receives, what the kernel sends is read from it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))

    def inject(self, packet: bytes) -> None:
        os.write(self.fd, packet)

    def sent(self) -> list[bytes]:
        """What the kernel has sent out by it since the last call."""
        packets = []
        while True:
            try:
                packets.append(os.read(self.fd, _PACKET_BYTES_MAX))
            except BlockingIOError:
                return packets


def member(index: int, name: str, tags: Sequence[str] = (), routes: Sequence[str] = ()) -> Member:
    """Member ``index`` of the network of these tests; its addresses are those of :func:`address`."""
    return Member(
        Membership(
            network=bytes(32),
            version=1,
            node=SigningKey(bytes([index]) * 32).verify_key.raw,
            name=name,
            prefix6=f"{PREFIX6}:{index:x}::/64",
            address4=address(index, 4),
            tags=tuple(tags),
            routes=tuple(routes),
            not_before=0,
            not_after=2**39,
        )
    )


def address(index: int, version: int) -> str:
    return f"{PREFIX6}:{index:x}::1" if version == 6 else f"{PREFIX4}.{index}"


def network(policy: Iterable[Rule], services: Iterable[Service] = ()) -> NetworkSpec:
    return NetworkSpec(
        network=bytes(32),
        version=1,
        name="home",
        prefix6=f"{PREFIX6}::/48",
        prefix4=f"{PREFIX4}.0/24",
        policy=tuple(policy),
        services=tuple(services),
    )


class PolicyNode:
    """Member ``me`` of ``members``, with three TUNs: the overlay, the LAN behind it, and the underlay."""

    def __init__(self, me: Member, members: Sequence[Member], services: Sequence[Service] = ()) -> None:
        self.me = me
        self.members = members
        self.services = services
        for name, value in _SYSCTLS.items():
            Path("/proc/sys", name).write_text(value)
        self.overlay, self.lan, self.underlay = Tun(INTERFACE), Tun("lan"), Tun("uplink")
        own4 = me.address4
        configuration = [
            f"address add {me.address6}/128 dev {INTERFACE}",
            f"address add {own4}/32 dev {INTERFACE}",
            *(f"address add {served}/128 dev {INTERFACE}" for served in service_addresses(services, (me,))),
            "address add 192.168.5.1/24 dev lan",
            "address add fd55::1/64 dev lan",
            "address add 203.0.113.1/24 dev uplink",
            "address add 2001:db8::1/64 dev uplink",
            *(f"link set {tun} up" for tun in (INTERFACE, "lan", "uplink")),
            f"route add {PREFIX6}::/48 dev {INTERFACE}",
            f"route add {PREFIX4}.0/24 dev {INTERFACE}",
            # A stranger whom the engine let in by mistake would be answered.
            *(f"route add {stranger} dev {INTERFACE}" for stranger in STRANGER.values()),
        ]
        for one in members:
            if one is not me:
                configuration += [f"route add {route} dev {INTERFACE}" for route in one.routes]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(configuration) + "\n", text=True, check=True)
        self.nft = LibNft()
        self._listeners: dict[int, socket.socket] = {}
        self.drain()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners.values():
            listener.close()

    @property
    def own(self) -> Own:
        served = service_addresses(self.services, (self.me,))
        return Own((self.me.address6, *served), self.me.address4, self.me.routes, (IPv6Network(f"{PREFIX6}::/48"),))

    def enforce(self, policy: Iterable[Rule] | None) -> None:
        """Load the table for that policy; None: for one that cannot be trusted."""
        rules = None if policy is None else resolve(network(policy, self.services), self.members)
        self.nft.run(ruleset(INTERFACE, self.own, rules))

    def refuse(self, policy: Iterable[Rule]) -> None:
        """The same, with the table that tells this side."""
        self.enforce(policy)
        self.nft.run(refusals(INTERFACE, self.own, resolve(network(policy, self.services), self.members)))

    def expects(self, policy: Iterable[Rule], flow: Flow) -> bool:
        return verdict(network(policy, self.services), self.members, flow).allowed

    def listen(self, port: int) -> socket.socket:
        """A UDP socket on that port, for both IP versions; one for each port."""
        if port not in self._listeners:
            listener = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            listener.setblocking(False)
            listener.bind(("::", port))
            self._listeners[port] = listener
        return self._listeners[port]

    def received(self, port: int) -> bool:
        """Whether a datagram has come to :meth:`listen`'s socket; takes it."""
        try:
            self._listeners[port].recv(_PACKET_BYTES_MAX)
        except BlockingIOError:
            return False
        return True

    def drain(self) -> None:
        for tun in (self.overlay, self.lan, self.underlay):
            tun.sent()
