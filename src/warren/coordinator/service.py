"""The coordinator's use cases, whoever asks: the REST API, the nodes' sessions, or a simulation.

Everything an administrator may ask takes an :class:`Actor`, made by :meth:`Service.actor` and by nothing else; an
actor of one network is told ``not-found`` of all others. Everything a node may ask takes its network and key as they
were proved on the connection. What is refused is a :class:`~warren.coordinator.problems.Problem`, and nothing of it was
done. A method that writes returns when the write is on the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from warren import log
from warren.coordinator.audit import Audit
from warren.coordinator.core import Core, Options
from warren.coordinator.enrolment import Enrolment
from warren.coordinator.following import Following
from warren.coordinator.invites import Invites
from warren.coordinator.maps import Maps, Packed
from warren.coordinator.members import Members
from warren.coordinator.metrics import Metrics
from warren.coordinator.networks import Networks
from warren.coordinator.problems import Problem
from warren.coordinator.relays import Relays
from warren.coordinator.rows import FactRow
from warren.coordinator.services import Services
from warren.coordinator.sessions import Sessions, SessionToken
from warren.coordinator.store import Store
from warren.coordinator.tokens import Tokens
from warren.coordinator.upkeep import Upkeep
from warren.coordinator.wakes import Wake
from warren.coordinator.work import Work
from warren.identity.signing import SigningKey
from warren.model.documents import Relay
from warren.model.envelope import Envelope
from warren.proto.control.administration import (
    Actor,
    ConnectorEntry,
    ConnectorRequest,
    Event,
    Invite,
    InviteRequest,
    Member,
    MemberChange,
    MemberStatus,
    Network,
    NetworkRequest,
    NetworkStatus,
    NewInvite,
    NewToken,
    RelayEntry,
    RelayRequest,
    Revoked,
    ServiceEntry,
    ServiceRequest,
    Token,
    TokenRequest,
)
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan
from warren.proto.control.messages import RelayAccess, Report, Update, unpack_to_node_untrusted

__all__ = ["Options", "Packed", "Problem", "Service", "SessionToken", "Wake"]

_IDENTITY: Final = "identity"
_log = log.get("coordinator")


class Service:
    """Owns the store it is given. One event loop; :meth:`start` before all else, :meth:`close` at the end."""

    def __init__(
        self,
        store: Store,
        *,
        urls: tuple[str, ...],
        wall_clock: Callable[[], float],
        random: Callable[[int], bytes],
        options: Options | None = None,
    ) -> None:
        """``urls``: where nodes reach this replica (https). ``wall_clock``: seconds since 1970. ``random``: that many
        bytes, unpredictable (``os.urandom``).
        """
        self._core = Core(store, urls=urls, wall_clock=wall_clock, random=random, options=options or Options())
        self._tokens = Tokens(self._core)
        self._networks = Networks(self._core)
        self._invites = Invites(self._core)
        self._relays = Relays(self._core)
        self._enrolment = Enrolment(self._core)
        self._sessions = Sessions(self._core)
        self._services = Services(self._core, self._sessions)
        self._members = Members(self._core, self._sessions)
        self._maps = Maps(self._core, self._sessions)
        self._upkeep = Upkeep(self._core, self._sessions, self._maps)
        self._following = Following(self._core, self._sessions, self._maps)
        self._audit = Audit(self._core)
        self._core.changed = self._maps.changed
        self._started = False

    async def start(self) -> None:
        """Find or make the coordinator's identity, enter this replica, and listen to the others. Problem
        ``unavailable``.
        """
        self._core.identity = SigningKey(await self._core.write(self._identity))
        await self._upkeep.begin()
        await self._core.store.listen(self._following.heard)
        await self._maps.catch_up()
        self._started = True

    async def close(self) -> None:
        """Finish what was begun, leave, and close the store."""
        try:
            if self._started:
                await self._upkeep.end()
        except Problem as problem:
            _log.warning("the others will find out by themselves that this coordinator stopped: %s", problem)
        finally:
            await self._following.close()
            await self._core.close()
            await self._core.store.close()

    def stopping(self) -> None:
        """Sessions end from now on because this coordinator does: :meth:`close` writes them off all at once."""
        self._sessions.ending = True

    async def run(self) -> None:
        """Heartbeat, renewals and sweeps when they are due, until cancelled; beside it nobody need call those."""
        await self._upkeep.run()

    @property
    def identity(self) -> SigningKey:
        """The coordinator's own key, shared by its replicas. After :meth:`start`."""
        return self._core.identity

    @property
    def replica(self) -> str:
        return self._core.replica

    @property
    def metrics(self) -> Metrics:
        return self._core.metrics

    async def ready(self) -> None:
        """Problem ``unavailable`` when the database does not answer."""
        async with self._core.read() as work:
            await work.get(FactRow, _IDENTITY)

    async def _identity(self, work: Work) -> bytes:
        row = await work.get(FactRow, _IDENTITY)
        if row is None:
            row = FactRow(name=_IDENTITY, value=self._core.random(32))
            await work.put(row)
            work.event("coordinator", "coordinator.create", None, str(SigningKey(row.value).verify_key))
        return row.value

    # Tokens

    async def first_token(self) -> str | None:
        """The secret of an admin token, if this database never had any; else None. Show it once."""
        return await self._tokens.first()

    async def local_token(self, label: str, ttl_s: int) -> NewToken:
        """An admin token for who holds the database itself, as when the last one was lost. Needs no :meth:`start`, so
        that it can be asked for beside a running coordinator.
        """
        return await self._tokens.local(label, ttl_s)

    async def actor(self, secret: str) -> Actor:
        return await self._tokens.actor(secret)

    async def create_token(self, actor: Actor, request: TokenRequest) -> NewToken:
        return await self._tokens.create(actor, request)

    async def tokens(self, actor: Actor) -> tuple[Token, ...]:
        return await self._tokens.list(actor)

    async def revoke_token(self, actor: Actor, token_id: str) -> Token:
        return await self._tokens.revoke(actor, token_id)

    # Networks

    async def create_network(self, actor: Actor, request: NetworkRequest) -> Network:
        return await self._networks.create(actor, request)

    async def networks(self, actor: Actor) -> tuple[Network, ...]:
        return await self._networks.list(actor)

    async def network(self, actor: Actor, ref: str) -> Network:
        return await self._networks.get(actor, ref)

    async def desired_state(self, actor: Actor, ref: str) -> DesiredState:
        return await self._networks.desired_state(actor, ref)

    async def plan(self, actor: Actor, ref: str, wanted: DesiredState) -> Plan:
        return await self._networks.plan(actor, ref, wanted)

    async def apply(self, actor: Actor, ref: str, request: ApplyRequest) -> Plan:
        return await self._networks.apply(actor, ref, request)

    # Invites

    async def create_invite(self, actor: Actor, ref: str, request: InviteRequest) -> NewInvite:
        return await self._invites.create(actor, ref, request)

    async def invites(self, actor: Actor, ref: str) -> tuple[Invite, ...]:
        return await self._invites.list(actor, ref)

    async def revoke_invite(self, actor: Actor, ref: str, invite_id: str) -> Invite:
        return await self._invites.revoke(actor, ref, invite_id)

    # Relays

    async def add_relay(self, actor: Actor, ref: str, request: RelayRequest) -> RelayEntry:
        return await self._relays.add(actor, ref, request)

    async def relays(self, actor: Actor, ref: str) -> tuple[RelayEntry, ...]:
        return await self._relays.list(actor, ref)

    async def remove_relay(self, actor: Actor, ref: str, name: str) -> RelayEntry:
        return await self._relays.remove(actor, ref, name)

    async def offer_own_relay(self, relay: Relay, secret: bytes) -> None:
        await self._relays.offer_own(relay, secret)

    async def withdraw_own_relay(self, name: str) -> None:
        await self._relays.withdraw_own(name)

    # Services and connectors

    async def add_service(self, actor: Actor, ref: str, request: ServiceRequest) -> ServiceEntry:
        return await self._services.add(actor, ref, request)

    async def services(self, actor: Actor, ref: str) -> tuple[ServiceEntry, ...]:
        return await self._services.list(actor, ref)

    async def remove_service(self, actor: Actor, ref: str, name: str) -> ServiceEntry:
        return await self._services.remove(actor, ref, name)

    async def add_connector(self, actor: Actor, ref: str, request: ConnectorRequest) -> ConnectorEntry:
        return await self._services.add_connector(actor, ref, request)

    async def connectors(self, actor: Actor, ref: str) -> tuple[ConnectorEntry, ...]:
        return await self._services.connectors(actor, ref)

    async def remove_connector(self, actor: Actor, ref: str, name: str) -> ConnectorEntry:
        return await self._services.remove_connector(actor, ref, name)

    # Members

    async def members(self, actor: Actor, ref: str) -> tuple[Member, ...]:
        return await self._members.list(actor, ref)

    async def member(self, actor: Actor, ref: str, member: str) -> MemberStatus:
        return await self._members.get(actor, ref, member)

    async def change_member(self, actor: Actor, ref: str, member: str, change: MemberChange) -> Member:
        return await self._members.change(actor, ref, member, change)

    async def revoke_member(self, actor: Actor, ref: str, member: str) -> Revoked:
        return await self._members.revoke(actor, ref, member)

    async def revocations(self, actor: Actor, ref: str) -> tuple[Revoked, ...]:
        return await self._members.revocations(actor, ref)

    async def status(self, actor: Actor, ref: str) -> NetworkStatus:
        return await self._members.status(actor, ref)

    async def events(
        self, actor: Actor, ref: str | None, after: int | None = None, limit: int = 100
    ) -> tuple[Event, ...]:
        return await self._audit.list(actor, ref, after, limit)

    # Nodes

    async def enrol(self, network: bytes, node: bytes, secret: bytes, name: str) -> None:
        await self._enrolment.enrol(network, node, secret, name)

    async def admit(self, network: bytes, node: bytes) -> None:
        """Let a member in again, its lease renewed when that is due. While the database is away, members whom this
        replica knew before are let in by memory, and nobody else. Problem ``unknown-network``, ``not-a-member``,
        ``revoked``, ``unavailable``.
        """
        try:
            await self._enrolment.admit(network, node)
        except Problem as problem:
            if problem.kind != "unavailable" or not self._maps.holds_lease(network, node):
                raise

    async def connected(self, network: bytes, node: bytes, observed: str) -> SessionToken:
        """A node that was admitted has a session here now, from the address ``observed``; an older one of it ends. By
        memory while the database is away, as for :meth:`admit`, and written when it is back.
        """
        try:
            return await self._sessions.connected(network, node, observed)
        except Problem as problem:
            if problem.kind != "unavailable" or not self._maps.holds_lease(network, node):
                raise
            return self._sessions.remember(network, node, observed)

    async def disconnected(self, session: SessionToken) -> None:
        await self._sessions.disconnected(session)

    async def publish(self, network: bytes, node: bytes, record: Envelope) -> int:
        return await self._enrolment.publish(network, node, record)

    async def report(self, network: bytes, node: bytes, report: Report) -> None:
        """Written within seconds; that of a node without a session here is passed over."""
        self._sessions.report(network, node, report)

    async def leave(self, network: bytes, node: bytes) -> None:
        await self._enrolment.leave(network, node)

    async def packed_updates_since(self, network: bytes, since: int) -> tuple[Packed, ...]:
        """What brings a node from ``since`` to now, as it goes on the wire; made once for all who stand there."""
        return await self._maps.updates_since(network, since)

    async def updates_since(self, network: bytes, since: int) -> tuple[Update, ...]:
        """The same as values."""
        parts = [unpack_to_node_untrusted(part.message) for part in await self._maps.updates_since(network, since)]
        return tuple(part for part in parts if isinstance(part, Update))

    async def relay_access(self, network: bytes, node: bytes) -> RelayAccess:
        """What a member needs to use the relays; the same value as long as nothing has changed."""
        return await self._relays.access(network, node)

    async def send_signal(self, network: bytes, sender: bytes, to: bytes, data: bytes) -> bool:
        return await self._sessions.send_signal(network, sender, to, data)

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[Wake]]:
        """Wakes from now on, of all networks. The iteration ends with :meth:`close`."""
        return self._core.hub.watch()

    # Upkeep

    async def heartbeat(self) -> None:
        await self._upkeep.heartbeat()

    async def renew_due(self) -> int:
        return await self._upkeep.renew_due()

    async def sweep(self) -> int:
        return await self._upkeep.sweep()
