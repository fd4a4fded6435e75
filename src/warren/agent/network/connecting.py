"""Ties the reach of one network to the agent: what it is told each turn, and what it tells in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from warren import log
from warren.agent.candidates import Surroundings, outside
from warren.agent.network.desired import Wanted, WantedPeer
from warren.agent.network.ground import Ground
from warren.agent.network.peering import Peering
from warren.agent.network.relay_places import relay_places
from warren.errors import WarrenError
from warren.identity.keys import PublicKey
from warren.model.netmap import Member
from warren.model.tunnel import IPAddress, TransportAddress
from warren.paths import values as paths
from warren.paths.candidates import rank
from warren.proto.control.messages import SIGNAL_BYTES_MAX
from warren.proto.turn.credentials import member_password
from warren.reach.doors import Bridge, Doors, PeerFacts
from warren.reach.gather import HostAddress, host_bases
from warren.reach.keys import CheckKeys, mapping_secret
from warren.reach.portmap import Gateway
from warren.reach.portmap_gateways import gateways_of
from warren.reach.proxy import proxy_from, proxy_from_environment
from warren.reach.reach import Reach
from warren.reach.relay_values import RelayPlace, Transport

_log = log.get("agent")


class Connecting:
    """Single owner."""

    def __init__(self, ground: Ground, *, returns: bool) -> None:
        """``returns``: the node was a member before, so that others may know where it was."""
        self.wake = ground.wake
        self._node = ground.key.verify_key
        self._shared = shared = ground.shared
        self._coordination = ground.coordination
        self._keyring = ground.keyring
        self._plane = ground.plane
        self._check_keys = CheckKeys(ground.network.raw)
        self._surroundings = Surroundings()
        self._facts: tuple[object, ...] = ()
        self._port = 0
        self._due: dict[bytes, None] = {}
        self._pointing: asyncio.Task[None] | None = None
        self._engine: object = None
        world = shared.world
        doors = Doors(
            clock=world.clock,
            alarm=world.alarm,
            random=world.urandom,
            resolve=self._resolve,
            open_bridge=self._open_bridge,
            tcp_mapped=world.tcp_mapped,
            punch_tcp=world.punch_tcp,
        )
        settings = paths.Settings(hard=shared.config.hard_nat)
        self._ports = world.port_mapping(
            port=lambda: self._port,
            gateways=self._gateways,
            changed=self._ways_in_changed,
            enabled=lambda: shared.config.port_mapping and self._port > 0,
            secret=mapping_secret(ground.key, ground.network.raw),
        )
        self._mapping_for: object = None
        name = self._coordination.name
        self.reach = Reach(name, self._node.raw, doors, self, settings)
        self.peering = Peering(name, self.reach, returns=returns)

    # Each turn

    async def listen(self) -> None:
        """Be heard by the data plane that runs. Raises Unreachable, OperationFailed."""
        engine = self._plane.engine
        if engine is None or (engine is self._engine and self.reach.listens):
            return
        self._engine = engine
        await self.reach.use(engine, self.wake)

    def keep(self, want: Wanted, surroundings: Surroundings, port: int, *, known: bool) -> None:
        """Tell reach what it is to know. ``known``: others have this node's key, so that checks make sense."""
        self._surroundings = surroundings
        config = self._shared.config
        indices = {link.name: link.index for link in surroundings.links}
        addresses = (
            HostAddress(address.value.ip, indices.get(address.interface, 0), address.lasting)
            for address in surroundings.usable()
            if not config.ignores(address.interface)
        )
        around = paths.Surroundings(
            on_link=surroundings.on_link(),
            nat64=surroundings.nat64,
            link_mtu=tuple((link.index, link.mtu) for link in surroundings.links if link.up),
            overlays=self._shared.overlays(),
        )
        self.reach.set_bases(host_bases(addresses, self._shared.overlays()), around, port)
        self._keep_ways_in(port)
        self._keep_relays(want)
        if known:
            self._keep_peers(want)

    def _keep_ways_in(self, port: int) -> None:
        facts = (port, self._surroundings.routes, self._surroundings.addresses, self._shared.config.port_mapping)
        if facts != self._mapping_for:
            self._mapping_for, self._port = facts, port
            self._ports.start()
            self._ports.refresh()

    def _gateways(self) -> Sequence[Gateway]:
        around = self._surroundings
        return gateways_of(around.links, around.addresses, around.routes)

    def _ways_in_changed(self) -> None:
        held = self._ports.mapped
        verified = [one.address for one in held if one.verified]
        self.reach.set_ways_in(verified, [one.address for one in held if not one.verified])
        self.wake()

    def _keep_relays(self, want: Wanted) -> None:
        if want.spec is None or want.state != "up" or not self._shared.config.relays:
            self.reach.set_relays(())
            return
        credentials = {one.relay: one for one in self._coordination.relay_access}
        self.reach.set_relays(relay_places(want.spec, want.members, self._node, credentials, self._check_key))

    def users(self, want: Wanted) -> dict[str, str]:
        """Names and passwords of the members for a relay on this node."""
        found = {}
        for member in want.members:
            key = None if member.key == self._node else self._check_key(member)
            if key is not None:
                found[str(member.key)] = member_password(key)
        return found

    def _check_key(self, member: Member) -> bytes | None:
        if member.wireguard_key is None:
            return None
        keys = self._check_keys.of((self._keyring.private,), (member.wireguard_key,))
        return keys[0] if keys else None

    def _keep_peers(self, want: Wanted) -> None:
        own = self._keyring.privates
        turned = self.peering.turned(want.peers)
        facts = (want.peers, self._shared.overlays(), own, turned)
        if self._facts and all(a is b or a == b for a, b in zip(facts, self._facts, strict=True)):
            return
        self._facts = facts
        self._check_keys.keep(own, (key for peer in want.peers.values() for key in _keys(peer)))
        self.reach.set_peers(self._facts_of(peer, turned=peer.node in turned) for peer in want.peers.values())

    def _facts_of(self, peer: WantedPeer, *, turned: bool) -> PeerFacts:
        keys = _keys(peer)[::-1] if turned else _keys(peer)
        return PeerFacts(
            node=peer.node,
            keys=keys,
            check_keys=self._check_keys.of(self._keyring.privates, keys),
            candidates=outside(peer.candidates, self._shared.overlays()),
            nat=peer.nat,
        )

    async def close(self) -> None:
        """Give back what relays hold for this node; the data plane goes on."""
        pointing, self._pointing = self._pointing, None
        if pointing is not None:
            pointing.cancel()
            await asyncio.gather(pointing, return_exceptions=True)
        await self.reach.close()
        await self._ports.close()

    async def _resolve(self, hosts: Sequence[str]) -> Sequence[IPAddress]:
        """Addresses that this host can send to, through its network's NAT64 where it must."""
        found = await self._shared.world.resolve_hosts(hosts)
        places = rank((TransportAddress(ip, 1) for ip in found), self._surroundings.underlay())
        return tuple(place.ip for place in places)

    async def _open_bridge(self, place: RelayPlace, transport: Transport, port: Callable[[], int]) -> Bridge:
        """Through the proxy that the config names, else the one of the environment."""
        world, url = self._shared.world, self._shared.config.proxy
        proxy = proxy_from_environment(world.environment) if url is None else proxy_from(url)
        return await world.open_bridge(place, transport, port, proxy)

    # In between (reach/doors.py, Owner)

    def course_changed(self, node: bytes) -> None:
        self._due[node] = None
        if self._pointing is None or self._pointing.done():
            self._pointing = asyncio.create_task(self._point(), name="courses")

    async def _point(self) -> None:
        while self._due and (engine := self._plane.engine) is not None:
            nodes, self._due = list(self._due), {}
            try:
                await self.peering.point(engine, nodes)
            except WarrenError as error:
                _log.debug("%s: paths are set with the next turn: %s", self._coordination.name, error)
        self.wake()

    def reach_changed(self) -> None:
        self.wake()

    def send_signal(self, node: bytes, data: bytes) -> bool:
        return len(data) <= SIGNAL_BYTES_MAX and self._coordination.signal(node, data)

    def observed(self, address: TransportAddress, source: IPAddress) -> None:
        self._ports.observed(address, source)

    def came_in_by(self, address: TransportAddress) -> None:
        self._ports.confirm(address)

    def learned(self, envelope: bytes) -> None:
        self._coordination.learned(envelope)
        self.wake()


def _keys(peer: WantedPeer) -> tuple[PublicKey, ...]:
    return (peer.key,) if peer.next_key is None else (peer.key, peer.next_key)
