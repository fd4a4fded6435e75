"""A data plane, a resolver and a world for tests of the controller; nothing of it leaves this process."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from warren.errors import OperationFailed, Unreachable
from warren.identity.keys import PrivateKey, PublicKey
from warren.linux.netlink_memory import MemoryNetlink
from warren.linux.nft import MemoryNft
from warren.linux.sysctl import MemorySysctls
from warren.model.tunnel import PeerChange, PeerStatus, TransportAddress, TunnelChange, TunnelStatus
from warren.tunnel.fields import Endpoint
from warren.tunnel.host import Doors
from warren.tunnel.items import Dns
from warren.tunnel.world import World


def private_key(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


def public_key(name: str) -> PublicKey:
    return private_key(name).public_key()


class FakePlane:
    """Keeps what it is told; its interface exists in the memory netlink as long as it runs."""

    def __init__(self, interface: str, netlink: MemoryNetlink) -> None:
        self.interface = interface
        self.netlink = netlink
        self.changes: list[TunnelChange] = []
        self.present = TunnelStatus(None, 0, 0)
        self.refusal: str | None = None
        self.ours = True
        self.ended = asyncio.Event()

    async def configure(self, change: TunnelChange) -> None:
        self._check()
        if self.refusal is not None:
            raise OperationFailed(self.refusal)
        self.changes.append(change)
        self.present = apply(self.present, change)

    async def status(self) -> TunnelStatus:
        self._check()
        return self.present

    async def statistics(self) -> Mapping[str, int]:
        return {"handshakes": 0} if self.ours else {}

    async def close(self) -> None:
        await self.die()

    async def die(self) -> None:
        await self.netlink.remove_link(self.interface)
        self.ended.set()

    async def wait_closed(self) -> None:
        await self.ended.wait()

    def _check(self) -> None:
        if self.ended.is_set():
            raise Unreachable("the data plane has ended")


def apply(status: TunnelStatus, change: TunnelChange) -> TunnelStatus:
    """What a status becomes by a change, as the UAPI has it."""
    peers = {} if change.replace_peers else {peer.public_key: peer for peer in status.peers}
    for wanted in change.peers:
        _apply_peer(peers, wanted)
    return TunnelStatus(
        change.private_key or status.private_key,
        status.listen_port or 40000 if change.listen_port is None else change.listen_port,
        status.fwmark if change.fwmark is None else change.fwmark,
        tuple(peers.values()),
    )


def _apply_peer(peers: dict[PublicKey, PeerStatus], wanted: PeerChange) -> None:
    key = wanted.public_key
    if wanted.remove or (wanted.update_only and key not in peers):
        peers.pop(key, None)
        return
    old = peers.get(key) or PeerStatus(key, None, None, (), 0, 0, 0, 0)
    kept = () if wanted.replace_allowed_ips else old.allowed_ips
    for other in [other for other in peers if other != key]:
        stolen = tuple(network for network in peers[other].allowed_ips if network not in wanted.allowed_ips)
        peers[other] = replace(peers[other], allowed_ips=stolen)
    peers[key] = replace(
        old,
        preshared_key=wanted.preshared_key or old.preshared_key,
        endpoint=wanted.endpoint or old.endpoint,
        allowed_ips=tuple(dict.fromkeys((*kept, *wanted.allowed_ips))),
        persistent_keepalive_s=old.persistent_keepalive_s
        if wanted.persistent_keepalive_s is None
        else wanted.persistent_keepalive_s,
    )


class FakeResolver:
    def __init__(self) -> None:
        self.present: dict[str, Dns] = {}

    async def set(self, dns: Dns) -> None:
        self.present[dns.interface] = dns

    async def unset(self, interface: str) -> None:
        self.present.pop(interface, None)


@dataclass
class FakeHost:
    """A host in memory, with the world that a controller sees of it."""

    netlink: MemoryNetlink = field(default_factory=lambda: MemoryNetlink({"lo": 65536, "eth0": 1500}))
    nft: MemoryNft = field(default_factory=MemoryNft)
    sysctls: MemorySysctls = field(default_factory=lambda: MemorySysctls({"net/ipv4/conf/all/src_valid_mark": "0"}))
    resolver: FakeResolver = field(default_factory=FakeResolver)
    names: dict[str, tuple[TransportAddress, ...]] = field(default_factory=dict)
    planes: list[FakePlane] = field(default_factory=list)
    failing_starts: int = 0
    now: float = 1000.0

    def world(self) -> World:
        doors = Doors(self.netlink, self.sysctls, lambda: self.nft, lambda: self.resolver)
        return World(doors, self, self.resolve, lambda: self.now, lambda: int(self.now * 1e9))

    @property
    def plane(self) -> FakePlane:
        return self.planes[-1]

    async def start(self, interface: str, mtu: int) -> FakePlane:
        if self.failing_starts:
            self.failing_starts -= 1
            raise OperationFailed("the data plane did not start")
        self.netlink.add_link(interface, mtu)
        self.planes.append(FakePlane(interface, self.netlink))
        return self.plane

    async def attach(self, interface: str) -> FakePlane:
        if not self.planes or self.plane.ended.is_set():
            raise Unreachable(f"no data plane answers for interface {interface}")
        return self.plane

    async def resolve(self, endpoint: Endpoint) -> tuple[TransportAddress, ...]:
        if endpoint.ip is not None:
            return (TransportAddress(endpoint.ip, endpoint.port),)
        if endpoint.host not in self.names:
            raise OperationFailed(f"{endpoint.host} cannot be resolved")
        return self.names[endpoint.host]
