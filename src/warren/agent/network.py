"""One network of this node: keeps host, engine and coordinator in agreement with the documents.

All work is done in one task, one thing after the other (:meth:`NetworkRunner.turn`). Whatever happens elsewhere (a
document arrives, a link goes down, the data plane ends, a command) only leaves a note and wakes that task. A turn that
meets nothing new changes nothing; one that fails in a part says so, does the rest, and tries that part again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from warren import log
from warren.agent import naming
from warren.agent.coordination import why
from warren.agent.ending import Ending
from warren.agent.ground import Enrolment
from warren.agent.network_parts import NetworkParts
from warren.agent.reaching import AUDIT_S, RETRY_S
from warren.agent.shared import Shared
from warren.agent.state import NetworkState
from warren.agent.world import Link
from warren.api.node_events import Event, SignalReceived
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.identity.signing import VerifyKey
from warren.l3.refusals import Refusals
from warren.model.netmap import Member
from warren.proto.control.local import Joined

TURN_PAUSE_MAX_S: Final = 1.0
REFRESH_WITHIN_S: Final = 2.0
_END: Final = {
    "expired": "the lease of this node has ended, so it talks to nobody; it goes on when the coordinator renews it",
    "revoked": "this node was revoked; it is no member any more",
}

_log = log.get("agent")


class NetworkRunner(NetworkParts):
    """:meth:`run` it as a task; it ends after :meth:`stop`, or when an enrolment was refused."""

    def __init__(
        self, network: VerifyKey, shared: Shared, state: NetworkState, enrolment: Enrolment | None = None
    ) -> None:
        super().__init__(network, shared, state, enrolment)
        self.stopping = asyncio.Event()
        """:meth:`run` is to end, and not to be run again."""
        self.turned: Callable[[], None] = _nothing
        """Called after each turn."""
        self._turned = asyncio.Event()
        self._ending = Ending(lambda: self.name, shared.world.tcp, Refusals(shared.world.nft, lambda: self.interface))

    # From outside

    async def refresh(self) -> None:
        """Returns when a turn has asked the engine, so that :meth:`status` is of now; or soon, when that takes long."""
        self._peering.ask_now()
        self._turned.clear()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH_WITHIN_S):
                await self._turned.wait()

    def stop(self) -> None:
        """End :meth:`run`; the host stays as it is until :meth:`remove`."""
        self.stopping.set()
        self._wake.set()

    def network_changed(self) -> None:
        """Links, addresses or routes of the host may have changed."""
        self._due.host = True
        self._coordination.network_changed()
        self._connecting.reach.network_changed()
        self._wake.set()

    def filter_changed(self) -> None:
        """Somebody may have taken the policy's rules away."""
        self._due.host = True
        self._wake.set()

    def config_changed(self) -> None:
        """The local config is another one."""
        self._due.host = self._due.names = True
        self._reaching.config_changed()
        self._wake.set()

    def note(self, event: Event) -> None:
        """Something came from the link; the next turn deals with it, but for signals, which are in a hurry."""
        if isinstance(event, SignalReceived):
            self._connecting.reach.signal_received(event.node, event.data)
            return
        self._coordination.note(event)
        self._wake.set()

    def use_link(self, link: Link) -> None:
        """What is said to the coordinator goes by ``link`` from now on; what comes is to be given to :meth:`note`."""
        self._coordination.link = link

    async def run(self) -> None:
        """Keep the network until :meth:`stop`, or until an enrolment is refused, of which ``joined`` then tells."""
        link = self._world.open_link(
            network=self.network,
            node=self._key,
            coordinators=self._coordination.coordinators,
            since=lambda: self._coordination.documents.revision,
            enrol=self._enrol,
            proxy=self._shared.config.proxy,
        )
        async with link:
            self.use_link(link)
            reader = asyncio.create_task(self._read(link), name=f"events of {self.name}")
            try:
                while not self.stopping.is_set():
                    if reader.done():
                        reader.result()  # raises what ended it, if that was an error
                    self._wake.clear()
                    began_s = time.process_time()
                    pause = await self.turn()
                    # Many changes at once are one turn's work: turns may take half of a core at most.
                    await asyncio.sleep(min(TURN_PAUSE_MAX_S, time.process_time() - began_s))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._wake.wait()
            finally:
                self._coordination.link = None
                reader.cancel()
                await asyncio.gather(reader, return_exceptions=True)
                await self.let_go()

    async def _read(self, link: Link) -> None:
        async for event in link.events():
            self.note(event)
            await self._coordination.room()

    async def leave(self) -> None:
        """Give the membership up. Raises Unreachable or OperationFailed; the node is then still a member."""
        if self._coordination.link is None:
            raise OperationFailed(f"{self.name} is not running; try again")
        await self._coordination.link.leave()
        await self._ending.everything()

    async def let_go(self) -> None:
        """Stop looking after the data plane; it goes on."""
        await self._reaching.relaying.close()
        await self._ending.close()
        await self._connecting.close()
        await self._plane.let_go()

    async def remove(self) -> list[str]:
        """Take away what was made in the host; returns what failed, one sentence each."""
        await self._connecting.close()
        failures = await self._reaching.remove()
        self._shared.release(self.network)
        return failures

    # A turn

    async def turn(self) -> float:
        """Do what is to be done now; returns the seconds until something is due by time alone."""
        self._take_news()
        try:
            if self._due.host or self._due.take("audit", self._now):
                self._surroundings = await self._shared.surroundings()
                self._due.host = True
            await self._keep_plane()
            self._turn_keys()
            self._want()
            if self._plane.runs:
                await self._reaching.reach(self.wanted, self.own, self._surroundings, self._due)
                self._ending.follow(self.wanted, self.directory, informed=self._coordination.up_to_date)
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
        if self.own is not None and self._coordination.documents.spec is not None:
            if self._plane.runs:
                self._telling.publish(self.own, self._surroundings)
            self._saver.save(self._coordination, self.wanted.claims, self._now)
        self._see_joined()
        self._telling.report(self.wanted, self.own, self._due)
        self._turned.set()
        self.turned()
        return self._pause()

    @property
    def _now(self) -> float:
        return self._world.clock()

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
        news = self._coordination.take()
        if news.documents:
            self._saver.documents_due = True
            self._wanting.documents_changed()
        self._saver.relay_access_due |= news.relay_access
        if news.connected:
            self._telling.connected(self._due)
        if news.refused is not None and news.refused.final and self.enrolling and not self.joined.done():
            self.joined.set_exception(OperationFailed(f"{self.name} cannot be joined: {why(news.refused.refused)}"))
            self.stopping.set()
        if news.refused is not None and news.refused.refused.kind == "key-taken":
            self._change_keys(lambda: self._keyring.replace(self.name))

    async def _keep_plane(self) -> None:
        """There is a data plane as soon as the node is a member, and again when one has died."""
        if self.own is None or self._coordination.documents.spec is None:
            return
        if not self._plane.interface:
            await self._find_plane(self.own)
        if self._plane.due():
            await self._plane.start(self._surroundings.mtu())
            self._reaching.engine_is_new()
            self._due.host = self._due.names = True

    async def _find_plane(self, own: Member) -> None:
        before = self.state.settings.interface
        names = [before, *naming.interface_names(self.name, self.network)]
        others = self._shared.other_interfaces(self.network)
        adopted = await self._plane.find(names, others, self._keyring.known(own.record))
        interface = self._plane.interface
        self._shared.interfaces[self.network] = interface
        self._reaching.use_interface(interface)
        if before not in {"", interface}:
            await self._reaching.forget_interface(before)
        self._saver.note(self._now, interface=interface)
        self._surroundings = await self._shared.surroundings()
        if adopted:
            _log.info("%s: took over the data plane of %s, which runs already", self.name, interface)

    def _turn_keys(self) -> None:
        if not self._plane.runs:
            return
        latest = self._telling.latest
        announced = latest is not None and latest.next_wireguard_key is not None
        told = latest is not None and announced and self._coordination.has_told(latest.version)
        self._change_keys(lambda: self._keyring.turn(self._shared.config, self.name, told=told))

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
        before = self._wanting.work_out(self._plane.interface, self._surroundings)
        if before is None:
            return
        self._due.names = True
        self._due.host |= self.wanted.of_host() != before.of_host()
        self._shared.claim(self.network, self.name, self.wanted.claims)
        for warning in sorted(set(self.wanted.warnings) - set(before.warnings)):
            _log.warning("%s: %s", self.name, warning)
        if self.wanted.state != before.state and self.wanted.state in _END:
            _log.warning("%s: %s", self.name, _END[self.wanted.state])

    def _see_joined(self) -> None:
        own = self.own
        if self.joined.done() or own is None or self.wanted.state != "up" or not self._plane.runs:
            return
        if self.enrolling and not self._coordination.standing.connected:
            return  # what is up is what it was before the ticket
        addresses = tuple(str(address.value) for address in self.wanted.addresses)
        told = ", ".join(str(address.value.ip) for address in self.wanted.addresses)
        verb = "joined" if self.enrolling else "is up"
        _log.info("%s: %s as %s (%s), interface %s", self.name, verb, own.name, told, self.interface)
        self._enrol = None
        self.joined.set_result(Joined(network=self.name, name=own.name, interface=self.interface, addresses=addresses))


def _nothing() -> None:
    pass
