"""Random operations on the simulated world, from a seed: who does what, and what the model learns from the answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from tests.support.coordination_model import Model, Possible
from tests.support.coordination_node import SimNode
from tests.support.coordination_world import World
from warren.coordinator.rows import MemberRow
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Rule, Ticket
from warren.model.tickets import read_ticket
from warren.proto.control.administration import Actor, InviteRequest, MemberChange, NetworkRequest
from warren.proto.control.client import EnrolRequest, State
from warren.proto.control.desired_state import ApplyRequest, DesiredState

LEASE_S = 120
PING_TIMEOUT_S = 40.0
NODES_MAX = 9

Step = Callable[[], Awaitable[None]]


class Play:
    """One run. ``log`` is what happened, for who has to understand a failure."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.log: list[str] = []
        self.world = World(self.chance)
        self._admin = ""
        self._tickets: list[Ticket] = []
        self._count = 0

    async def begin(self) -> None:
        """A coordinator with one network and its admin's token, all acknowledged."""
        world = self.world
        await world.start()
        secret = (await world.ask(world.service.first_token())).value
        assert secret is not None
        self._admin = secret
        request = NetworkRequest(name="home", prefix4="10.7.0.0/28", lease_s=LEASE_S)
        made = (await world.ask(world.service.create_network(await self.actor(), request))).value
        assert made is not None
        self.model = Model(world, VerifyKey.from_text(made.id))
        state = (await world.ask(world.service.desired_state(await self.actor(), "home"))).value
        assert state is not None
        self.model.policy.acknowledged(state.policy)
        await self._invite()

    async def step(self) -> None:
        """Do one thing, then see that everything holds still."""
        steps, weights = zip(*self._steps(), strict=True)
        (step,) = self.chance.choices(steps, weights)
        self.log.append(step.__name__.strip("_"))
        await step()
        await self.world.turns()
        self._learn()
        self.model.check()

    async def quiesce(self) -> None:
        """Everything is healed and everybody comes back; in the end all maps are the coordinator's documents."""
        world = self.world
        for node in world.nodes:
            node.partitioned = False
        if world.is_up:
            await world.kill()
        await world.start()
        for _ in range(3):
            for node in world.nodes:
                if node.session is None:
                    world.connect(node)
            await world.settle()
            self._learn()
        self.model.check()
        self.model.check_quiet()
        connected = {wire.node.id for wire in world.wires}
        missing = [node for node in world.nodes if node.id in self.model.joined and node.id not in connected]
        assert not missing, f"members that cannot come back: {missing}"

    async def end(self) -> None:
        """Leave nothing running."""
        if self.world.is_up:
            await self.world.kill()

    async def actor(self) -> Actor:
        """The administrator, while the coordinator is up."""
        actor = (await self.world.ask(self.world.service.actor(self._admin))).value
        assert actor is not None
        return actor

    def _steps(self) -> list[tuple[Step, float]]:
        return [
            (self._move, 30),
            (self._settle, 8),
            (self._enrol, 10),
            (self._race, 4),
            (self._connect, 12),
            (self._publish, 10),
            (self._invite, 6),
            (self._withdraw_invite, 2),
            (self._rename, 6),
            (self._retag, 6),
            (self._policy, 4),
            (self._revoke, 2),
            (self._leave, 2),
            (self._break, 4),
            (self._partition, 2),
            (self._heal, 5),
            (self._restart_node, 2),
            (self._wait, 8),
            (self._upkeep, 8),
            (self._arm_crash, 5),
            (self._arm_failure, 2),
            (self._kill, 1),
            (self._start, 40 if not self.world.is_up else 0),
        ]

    def _learn(self) -> None:
        """Who was told that it is a member, is one."""
        for node in self.world.nodes:
            row = self.model.member(node.id)
            is_open = node.session is not None and node.session.state is State.OPEN
            if is_open and row is not None and not row.ephemeral and node.id not in self.model.revoked:
                self.model.joined.add(node.id)

    # Nodes

    async def _move(self) -> None:
        await self.world.move(self.chance.choice((0.3, 0.7, 1.0)))

    async def _settle(self) -> None:
        await self.world.settle()
        if self.world.is_up and self.world.store.has_failed():
            # What the failing database kept from being told is told with the next heartbeat, some seconds later.
            await self.world.ask(self.world.service.heartbeat())
            await self.world.settle()
        if self.world.is_up:
            self.model.check_quiet()

    async def _connect(self) -> None:
        """Everybody who is away comes back, or one who is not: its old connection may still be there."""
        if self.chance.random() < 0.2 and (node := self._any_node()) is not None:
            self.world.connect(node)
        for node in self.world.nodes:
            if node.session is None and self.chance.random() < 0.7:
                self.world.connect(node)

    async def _enrol(self) -> None:
        """A node, new or old, with any ticket that there ever was."""
        node = self._any_node() if self.chance.random() < 0.2 else self._new_node()
        if node is not None and self._tickets:
            ticket = self._tickets[-1] if self.chance.random() < 0.7 else self.chance.choice(self._tickets)
            self._offer(node, ticket)

    async def _race(self) -> None:
        """Several at once with one ticket, the newest."""
        if self._tickets:
            for _ in range(self.chance.randint(2, 3)):
                node = self._new_node()
                if node is not None:
                    self._offer(node, self._tickets[-1])
            await self.world.move()

    async def _publish(self) -> None:
        for node in self.world.nodes:
            if node.session is not None and self.chance.random() < 0.5:
                node.publish(self.world.now)

    async def _leave(self) -> None:
        connected = [node for node in self.world.nodes if node.session is not None]
        node = self.chance.choice(connected) if connected else None
        if node is not None and node.session is not None and node.session.leave(self.world.now):
            self.model.parted(node.id)

    async def _break(self) -> None:
        if self.world.wires:
            self.world.cut(self.chance.choice(self.world.wires))

    async def _partition(self) -> None:
        node = self._any_node()
        if node is not None:
            node.partitioned = True

    async def _heal(self) -> None:
        for node in self.world.nodes:
            node.partitioned = False

    async def _restart_node(self) -> None:
        node = self._any_node()
        if node is not None:
            for wire in [wire for wire in self.world.wires if wire.node is node]:
                self.world.cut(wire)
            node.restart()

    # Administrators

    async def _invite(self) -> None:
        uses = self.chance.choice((1, 1, 2, 5))
        request = InviteRequest(uses=uses, ttl_s=self.chance.choice((300, 5000)), ephemeral=self.chance.random() < 0.2)
        if (actor := await self._try_actor()) is None:
            return
        made = (await self.world.ask(self.world.service.create_invite(actor, "home", request))).value
        if made is not None:
            self._tickets.append(read_ticket(made.ticket, 0.0).document)
            self.model.invites[made.id] = uses

    async def _withdraw_invite(self) -> None:
        if self.model.invites and (actor := await self._try_actor()) is not None:
            identity = self.chance.choice(sorted(self.model.invites))
            outcome = await self.world.ask(self.world.service.revoke_invite(actor, "home", identity))
            if outcome.value is not None:
                self.model.withdrawn.setdefault(identity, self.world.now)

    async def _rename(self) -> None:
        self._count += 1
        name = self.chance.choice((f"name-{self._count}", "popular"))
        await self._change(MemberChange(name=name), self.model.names, name)

    async def _retag(self) -> None:
        self._count += 1
        tags = (f"tag-{self._count}",)
        await self._change(MemberChange(tags=tags), self.model.tags, tags)

    async def _change(self, change: MemberChange, known: dict[bytes, Possible], value: object) -> None:
        row = self._any_member()
        if row is None or (actor := await self._try_actor()) is None:
            return
        outcome = await self.world.ask(
            self.world.service.change_member(actor, "home", str(VerifyKey(row.node)), change)
        )
        was = row.tags if change.name is None else row.name
        possible = known.setdefault(row.node, Possible({was}))
        if outcome.lost:
            possible.uncertain(value)
        elif outcome.value is not None:
            possible.acknowledged(value)

    async def _policy(self) -> None:
        self._count += 1
        rule = Rule(action="allow", sources=("members",), destinations=("members",), comment=str(self._count))
        if (actor := await self._try_actor()) is None:
            return
        request = ApplyRequest(state=DesiredState(policy=(rule,)))
        outcome = await self.world.ask(self.world.service.apply(actor, "home", request))
        if outcome.lost:
            self.model.policy.uncertain((rule,))
        elif outcome.value is not None:
            self.model.policy.acknowledged((rule,))

    async def _revoke(self) -> None:
        row = self._any_member()
        if row is None or (actor := await self._try_actor()) is None:
            return
        outcome = await self.world.ask(self.world.service.revoke_member(actor, "home", str(VerifyKey(row.node))))
        if outcome.problem is None:
            self.model.parted(row.node)
        if outcome.value is not None:
            self.model.revoked[row.node] = outcome.value.lease_ended.timestamp()

    # Time, and the coordinator's process

    async def _wait(self) -> None:
        waited_s = self.chance.choice((0.5, 0.5, 5.0, 5.0, 15.0, PING_TIMEOUT_S, LEASE_S * 0.6, LEASE_S * 1.1))
        self.world.now += waited_s
        for wire in list(self.world.wires):
            wire.server.handle_timeout(self.world.now)
            if wire.node.session is not None:
                wire.node.session.handle_timeout(self.world.now)
            if waited_s >= PING_TIMEOUT_S and wire.node.partitioned:
                self.world.cut(wire)

    async def _upkeep(self) -> None:
        for name in ("heartbeat", "renew_due", "sweep"):
            if self.world.is_up:
                await self.world.ask(getattr(self.world.service, name)())

    async def _arm_crash(self) -> None:
        if self.world.is_up:
            self.world.store.crash_after(self.chance.randint(1, 60))

    async def _arm_failure(self) -> None:
        if self.world.is_up:
            self.world.store.fail_after(self.chance.randint(1, 30))

    async def _kill(self) -> None:
        if self.world.is_up:
            await self.world.kill()

    async def _start(self) -> None:
        await self.world.start()

    # Whom

    async def _try_actor(self) -> Actor | None:
        """None while the coordinator is down, or when it goes down now."""
        if not self.world.is_up:
            return None
        return (await self.world.ask(self.world.service.actor(self._admin))).value

    def _any_node(self) -> SimNode | None:
        return self.chance.choice(self.world.nodes) if self.world.nodes else None

    def _any_member(self) -> MemberRow | None:
        rows = sorted(self.model.rows(MemberRow), key=lambda row: row.node)
        return self.chance.choice(rows) if rows else None

    def _new_node(self) -> SimNode | None:
        if sum(node.is_member or node.enrol is not None for node in self.world.nodes) >= NODES_MAX:
            return None
        name = self.chance.choice(("web", "db", "popular"))
        node = SimNode(name, SigningKey(self.chance.randbytes(32)), self.model.network)
        self.world.nodes.append(node)
        return node

    def _offer(self, node: SimNode, ticket: Ticket) -> None:
        """The node joins by a ticket, unless it is a member by its own lights."""
        if not node.is_member:
            node.enrol = EnrolRequest(ticket.secret, node.name)
            self.world.connect(node)
