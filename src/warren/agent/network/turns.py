"""The turns of one network: what is to be done for it each time that something happened, one thing after the other.

A turn that meets nothing new changes nothing; one that fails in a part says so, does the rest, and tries that part
again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from warren import log
from warren.agent import naming
from warren.agent.network.coordination import why
from warren.agent.network.due import RETRY_S
from warren.agent.network.ending import Ending
from warren.agent.network.parts import Parts
from warren.agent.network.reaching import AUDIT_S
from warren.agent.network.situation import Situation
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.l3.refusals import Refusals
from warren.model.netmap import Member
from warren.proto.control.local import Joined

_END: Final = {
    "expired": "the lease of this node has ended, so it talks to nobody; it goes on when the coordinator renews it",
    "revoked": "this node was revoked; it is no member any more",
}

_log = log.get("agent")


class Turns:
    """Brings host, engine and coordinator to agree with the documents. Single owner."""

    def __init__(self, parts: Parts, situation: Situation, refused: Callable[[], None]) -> None:
        """``refused`` is called when an enrolment was refused for good; ``joined`` then has the reason."""
        self.joined: asyncio.Future[Joined] = asyncio.get_running_loop().create_future()
        """The node is a member and its interface is up; or WarrenError, why it will not be one."""
        self._refused = refused
        self._parts = parts
        self._situation = situation
        ground = parts.ground
        self._network = ground.network
        self._shared = ground.shared
        self._clock = ground.shared.world.clock
        self._state = ground.state
        self._coordination = ground.coordination
        self._keyring = ground.keyring
        self._ledger = ground.ledger
        self._saver = ground.saver
        self._plane = ground.plane
        self._peering = parts.connecting.peering
        self._reaching = parts.reaching
        self._telling = parts.telling
        self._wanting = parts.wanting
        self._due = parts.due
        world = ground.shared.world
        refusals = Refusals(world.nft, lambda: situation.interface)
        self._ending = Ending(lambda: situation.name, world.tcp, refusals)

    async def end_connections(self) -> None:
        """The node has left the network: nothing that is open in it goes on."""
        await self._ending.everything()

    async def close(self) -> None:
        """Stop ending connections that the policy forbids."""
        await self._ending.close()

    async def take(self) -> float:
        """Do what is to be done now; returns the seconds until something is due by time alone."""
        parts, situation = self._parts, self._situation
        self._take_news()
        try:
            if self._due.host or self._due.take("audit", self._now):
                parts.surroundings = await self._shared.surroundings()
                self._due.host = True
            await self._keep_plane()
            self._turn_keys()
            self._want()
            if self._plane.runs:
                await self._reaching.reach(situation.wanted, situation.own, parts.surroundings, self._due)
                self._ending.follow(situation.wanted, situation.directory, informed=self._coordination.up_to_date)
        except WarrenError as error:
            self._ledger.failed("data plane", error)
            self._due.again("retry", self._now + RETRY_S)
            if isinstance(error, Unreachable):
                await self._plane.doubt()
        else:
            if self._plane.runs:
                self._ledger.done("data plane")
                self._plane.trust()
                self._due.at.pop("retry", None)
        if situation.own is not None and self._coordination.documents.spec is not None:
            if self._plane.runs:
                self._telling.publish(situation.own, parts.surroundings)
            self._saver.save(self._coordination, situation.wanted.claims, self._now)
        self._see_joined()
        self._telling.report(situation.wanted, situation.own, self._due)
        return self._pause()

    @property
    def _now(self) -> float:
        return self._clock()

    def _pause(self) -> float:
        now, network_s = self._now, self._coordination.network_s
        moments = [*self._due.at.values(), self._saver.due_at(), self._plane.retry_at]
        if self._plane.runs:
            moments.append(self._peering.due_at())
            turn_at = self._keyring.next_turn_at(self._shared.config)
            moments.append(None if turn_at is None else now + max(RETRY_S, turn_at - network_s))
        if self._wanting.until is not None:
            moments.append(now + self._wanting.until - network_s)
        return max(0.0, min((at for at in moments if at is not None), default=now + AUDIT_S) - now)

    def _take_news(self) -> None:
        news, name = self._coordination.take(), self._situation.name
        if news.documents:
            self._saver.documents_due = True
            self._wanting.documents_changed()
        self._saver.relay_access_due |= news.relay_access
        if news.connected:
            self._telling.connected(self._due)
        if news.refused is not None and news.refused.final and self._situation.enrolling and not self.joined.done():
            self.joined.set_exception(OperationFailed(f"{name} cannot be joined: {why(news.refused.refused)}"))
            self._refused()
        if news.refused is not None and news.refused.refused.kind == "key-taken":
            self._change_keys(lambda: self._keyring.replace(name))

    async def _keep_plane(self) -> None:
        """There is a data plane as soon as the node is a member, and again when one has died."""
        if self._situation.own is None or self._coordination.documents.spec is None:
            return
        if not self._plane.interface:
            await self._find_plane(self._situation.own)
        if self._plane.due():
            await self._plane.start(self._parts.surroundings.mtu())
            self._reaching.engine_is_new()
            self._due.host = self._due.names = True

    async def _find_plane(self, own: Member) -> None:
        before = self._state.settings.interface
        names = [before, *naming.interface_names(self._situation.name, self._network)]
        others = self._shared.other_interfaces(self._network)
        adopted = await self._plane.find(names, others, self._keyring.known(own.record))
        interface = self._plane.interface
        self._shared.interfaces[self._network] = interface
        self._reaching.use_interface(interface)
        if before not in {"", interface}:
            await self._reaching.forget_interface(before)
        self._saver.note(self._now, interface=interface)
        self._parts.surroundings = await self._shared.surroundings()
        if adopted:
            _log.info("%s: took over the data plane of %s, which runs already", self._situation.name, interface)

    def _turn_keys(self) -> None:
        if not self._plane.runs:
            return
        latest = self._telling.latest
        announced = latest is not None and latest.next_wireguard_key is not None
        told = latest is not None and announced and self._coordination.has_told(latest.version)
        self._change_keys(lambda: self._keyring.turn(self._shared.config, self._situation.name, told=told))

    def _change_keys(self, change: Callable[[], object]) -> None:
        try:
            change()
        except OperationFailed as error:
            self._ledger.failed("key rotation", error)
        else:
            self._ledger.done("key rotation")

    def _want(self) -> None:
        """Work out afresh what is wanted if anything it follows from is another one."""
        if not self._plane.interface:
            return
        before = self._wanting.work_out(self._plane.interface, self._parts.surroundings)
        if before is None:
            return
        now, name = self._wanting.now, self._situation.name
        self._due.names = True
        self._due.host |= now.of_host() != before.of_host()
        self._shared.claim(self._network, name, now.claims)
        for warning in sorted(set(now.warnings) - set(before.warnings)):
            _log.warning("%s: %s", name, warning)
        if now.state != before.state and now.state in _END:
            _log.warning("%s: %s", name, _END[now.state])

    def _see_joined(self) -> None:
        situation = self._situation
        own, want, interface = situation.own, situation.wanted, self._plane.interface
        if self.joined.done() or own is None or want.state != "up" or not self._plane.runs:
            return
        if situation.enrolling and not self._coordination.standing.connected:
            return  # what is up is what it was before the ticket
        addresses = tuple(str(address.value) for address in want.addresses)
        told = ", ".join(str(address.value.ip) for address in want.addresses)
        verb = "joined" if situation.enrolling else "is up"
        _log.info("%s: %s as %s (%s), interface %s", situation.name, verb, own.name, told, interface)
        self._parts.enrol = None
        self.joined.set_result(Joined(network=situation.name, name=own.name, interface=interface, addresses=addresses))
