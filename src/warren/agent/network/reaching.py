"""Makes host, engine and names what one network wants them to be. Each part that fails is told, and tried again."""

from __future__ import annotations

from typing import Final

from warren import log
from warren.agent.candidates import Reachability, Surroundings, candidates, reachability
from warren.agent.network.apply import Host
from warren.agent.network.connecting import Connecting
from warren.agent.network.desired import Wanted
from warren.agent.network.due import RETRY_S, Due
from warren.agent.network.ground import Ground
from warren.agent.network.peering import Here
from warren.agent.network.plan import Item, Mtu, PathMtu, Policy, Up
from warren.agent.network.relay_places import may_relay
from warren.agent.network.relaying import Relaying
from warren.agent.network.subnets import Subnets, transparent_port
from warren.errors import OperationFailed, WarrenError
from warren.l3.firewall import ruleset
from warren.l3.table import PolicyTable
from warren.model.documents import Candidate
from warren.model.netmap import Member
from warren.model.tunnel import IPAddress
from warren.reach.gather import all_candidates

AUDIT_S: Final = 60.0
"""How often the host is looked at although nothing tells of a change: nftables tells of none."""
KNOWN_WITHIN_S: Final = 1.0
"""Then a node that has joined calls others, whether its record came back or not."""
KNOWN_LATER_S: Final = 0.1
"""How much later than this node the others have its record, and act on it."""
_PORTS: Final = range(32_768, 60_999)
_FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}

_log = log.get("agent")

_NOT_PUBLIC: Final = (
    "this node cannot relay, since nobody has seen that others reach it from outside: if they do, name its address in "
    "agent.toml, [public] addresses"
)


class Reaching:
    """Single owner; used while there is a data plane."""

    def __init__(self, ground: Ground, connecting: Connecting) -> None:
        self.plane = ground.plane
        self.connecting = connecting
        self.peering = connecting.peering
        self._network = ground.network
        self._shared = ground.shared
        self._world = ground.shared.world
        self._state = ground.state
        self._coordination = ground.coordination
        self._keyring = ground.keyring
        self._ledger = ground.ledger
        self._saver = ground.saver
        self._host: Host | None = None
        rootless = self._world.choice.engine == "rootless"
        self._subnets = (
            Subnets(self._world.inside, self._world.nft, transparent_port(ground.network)) if rootless else None
        )
        self._served: object = None
        self.relaying = Relaying(
            self._coordination.name,
            self._shared.state / "relay",
            self._world.make_relay,
            self._ledger,
            ground.wake,
            self._world.clock,
        )
        self._mtus: tuple[PathMtu, ...] = ()
        self._listen_port = 0
        self._known = False
        self._known_at: float | None = None

    def use_interface(self, interface: str) -> None:
        world = self._world
        self._host = Host(interface, world.inside, world.nft, world.sysctls, self._ledger)

    async def forget_interface(self, interface: str) -> None:
        """Another name is used from now on: the table of the one before is nobody's if there is no such interface."""
        if all(link.name != interface for link in await self._world.inside.links()):
            PolicyTable(self._world.nft, interface).remove()

    def engine_is_new(self) -> None:
        """Another data plane has begun; it knows nothing, and its interface has nothing."""
        self.peering.forget_engine()
        self._served = None

    def config_changed(self) -> None:
        self._listen_port = 0

    async def reach(self, want: Wanted, own: Member | None, surroundings: Surroundings, due: Due) -> None:
        """Do what is due. Raises WarrenError when the host cannot be looked at, or the data plane does not answer."""
        now = self._world.clock()
        self._ledger.settle("engine helper", self._world.helper_trouble())
        mtus = self._path_mtus(want, surroundings.mtu())
        if mtus != self._mtus:
            self._mtus, due.host = mtus, True
        if self._host is not None and (due.host or due.take("host", now)):
            due.host = False
            await self._make_host(self._host, want, surroundings)
            if self._ledger.failing():
                due.again("host", now + RETRY_S)
            due.again("audit", now + AUDIT_S)
        self._see_known(own, due, now)
        await self._settle_peers(want, surroundings, due, now)
        await self._keep_relaying(want, own, surroundings)
        if due.names or due.take("dns", now):
            due.names = False
            await self._serve_names(want, due, now)

    async def _keep_relaying(self, want: Wanted, own: Member | None, surroundings: Surroundings) -> None:
        """Relay for others where the operator wants it, the network lets it, and others can come."""
        wanted = self._shared.config.relay
        if wanted is None or want.spec is None or want.state != "up" or own is None or not may_relay(want.spec, own):
            await self.relaying.keep(None, 0, {})
        elif self.reachability(surroundings) == "public":
            await self.relaying.keep(wanted, self.port(), self.connecting.users(want))
        elif self.relaying.offer is None:
            self._ledger.failed("relay", _NOT_PUBLIC)

    def reachability(self, surroundings: Surroundings) -> Reachability:
        """How this node is connected, as far as is known."""
        found = self.connecting.reach.situation()
        return reachability(surroundings, self._shared.config, self._coordination.observed, found)

    async def remove(self) -> list[str]:
        """Take away what was made; returns what failed, one sentence each."""
        failures = []
        await self.relaying.close()
        try:
            if self._served is not None:
                await self._world.names.stop(self.plane.interface)
        except WarrenError as error:
            failures.append(str(error))
        try:
            await self.plane.close()
            if self._host is not None:
                self._host.table.remove()
            if self._subnets is not None:
                await self._subnets.keep(self.plane.interface, ())
        except WarrenError as error:
            failures.append(str(error))
        return failures

    # The host

    async def _make_host(self, host: Host, want: Wanted, surroundings: Surroundings) -> None:
        interface = self.plane.interface
        items: list[Item] = [Policy(interface, "in place"), Mtu(interface, surroundings.mtu()), *want.addresses]
        items += want.service_addresses
        items += [Up(interface), *want.routes, *self._mtus]
        policy, closed = ruleset(interface, want.own, want.rules), ruleset(interface, want.own, None)
        await host.reach(items, policy, closed)
        if self._subnets is None:
            self._check_forwarding(want)
            return
        try:
            await self._subnets.keep(interface, want.own.routes)
        except OperationFailed as error:
            self._ledger.failed("subnets", error)
        else:
            self._ledger.done("subnets") if want.own.routes else self._ledger.forget("subnets")

    def _path_mtus(self, want: Wanted, usual: int) -> tuple[PathMtu, ...]:
        """For the peers whose paths take less than ``usual``: their own addresses, not what is behind them."""
        reach, interface = self.connecting.reach, self.plane.interface
        return tuple(
            PathMtu(network, interface, mtu)
            for node, peer in want.peers.items()
            if (mtu := reach.mtu(node)) is not None and mtu < usual
            for network in peer.own
        )

    def _check_forwarding(self, want: Wanted) -> None:
        """Subnets behind this node are reached only if the host passes packets on; the operator switches that on."""
        if self._world.choice.engine == "rootless":
            return  # nothing is passed on by the nest's kernel
        versions = sorted({network.version for network in want.own.routes})
        off = [_FORWARDING[version] for version in versions if self._world.sysctls.get(_FORWARDING[version]) == "0"]
        if off:
            settings = " ".join(f"{name.replace('/', '.')}=1" for name in off)
            self._ledger.failed("forwarding", f"this host passes no packets on; run `sysctl -w {settings}`")
        elif versions:
            self._ledger.done("forwarding")
        else:
            self._ledger.forget("forwarding")

    # The peers

    def _see_known(self, own: Member | None, due: Due, now: float) -> None:
        """Whoever does not know this node's key yet ignores its handshakes, and the next try is seconds away. So a
        node that has just joined calls nobody before its record has come back from the coordinator.
        """
        if self._known:
            return
        first = self._known_at is None
        if self._known_at is None:
            self._known_at = now + KNOWN_WITHIN_S
        if own is not None and own.wireguard_key == self._keyring.public:
            self._known_at = min(self._known_at, now if first else now + KNOWN_LATER_S)
        self._known = now >= self._known_at
        due.again("call", self._known_at)
        if self._known:
            due.at.pop("call", None)

    async def _settle_peers(self, want: Wanted, surroundings: Surroundings, due: Due, now: float) -> None:
        engine = self.plane.engine
        if engine is None:
            return
        await self.connecting.listen()
        self.connecting.keep(want, surroundings, self.port(), known=self._known)
        here = Here(
            private_key=self._keyring.private,
            listen_port=self.port(),
            informed=self._coordination.informed,
            known=self._known,
        )
        try:
            await self.peering.settle(engine, want.peers, here, now, int(self._world.wall_clock() * 1e9))
        except OperationFailed as error:
            self._ledger.failed("peers", error)
            due.again("peers", now + RETRY_S)
            if (await engine.status()).listen_port != self.port() and not self._stated_port():
                self._choose_port()  # somebody else has it
        else:
            due.at.pop("peers", None)
            self._ledger.done("peers")

    def candidates(self, surroundings: Surroundings) -> tuple[Candidate, ...]:
        """Of this node: what shows in the host, then what others see."""
        own = candidates(surroundings, self._shared.config, self.port(), self._shared.overlays())
        return all_candidates(own, self.connecting.reach.candidates())

    def port(self) -> int:
        """The port this node listens on: the stated one, else one that was chosen once and is kept."""
        if not self._listen_port:
            self._listen_port = self._stated_port() or self._state.settings.listen_port
            if not self._listen_port:
                self._choose_port()
            self._shared.ports[self._network] = self._listen_port
        return self._listen_port

    def _stated_port(self) -> int | None:
        return self._shared.config.port_for(self._coordination.name)

    def _choose_port(self) -> None:
        others = {port for network, port in self._shared.ports.items() if network != self._network}
        self._listen_port = self._world.random.choice([port for port in _PORTS if port not in others])
        self._shared.ports[self._network] = self._listen_port
        self._saver.note(self._world.clock(), listen_port=self._listen_port)

    # Names

    async def _serve_names(self, want: Wanted, due: Due, now: float) -> None:
        spec = want.spec
        try:
            if spec is None or not want.members or not self._shared.config.wants_dns(self._coordination.name):
                if self._served is not None:
                    await self._world.names.stop(self.plane.interface)
                self._served = None
                self._ledger.forget("dns")
                return
            content = (want.addresses, spec.name, spec.suffix, spec.services, _named(want))
            if content != self._served:
                addresses: list[IPAddress] = [address.value.ip for address in want.addresses]
                await self._world.names.serve(self.plane.interface, addresses, spec, want.members)
                self._served = content
            self._ledger.done("dns")
        except OperationFailed as error:
            self._ledger.failed("dns", error)
            due.again("dns", now + RETRY_S)


def _named(want: Wanted) -> tuple[object, ...]:
    return tuple((member.name, member.address6, member.address4, member.tags) for member in want.members)
