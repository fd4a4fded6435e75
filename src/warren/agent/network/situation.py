"""The situation of one network of this node: what the rest of the agent asks of it. Nothing here changes the host."""

from __future__ import annotations

from warren.agent.candidates import own_places
from warren.agent.network.desired import Wanted
from warren.agent.network.explaining import explanation
from warren.agent.network.parts import Parts
from warren.agent.network.status import membership, report
from warren.agent.streams.directory import Directory
from warren.agent.streams.order import Class, Nearness, nearness
from warren.model.netmap import Member
from warren.model.tunnel import IPAddress
from warren.proto.control.local import Explanation, Membership
from warren.proto.control.messages import Report, Task


class Situation:
    """Read from the parts at each question, so it is of now, or of the last turn where that says so."""

    def __init__(self, parts: Parts) -> None:
        self.network = parts.ground.network
        self._parts = parts
        self._node = parts.ground.key.verify_key.raw
        self._wake = parts.ground.wake
        self._coordination = parts.ground.coordination
        self._ledger = parts.ground.ledger
        self._plane = parts.ground.plane
        self._connecting = parts.connecting
        self._reaching = parts.reaching
        self._telling = parts.telling
        self._wanting = parts.wanting
        self._directory: Directory | None = None
        self._directory_of: tuple[object, ...] = (None, None, None)

    @property
    def name(self) -> str:
        """The network's name."""
        return self._coordination.name

    @property
    def interface(self) -> str:
        """Empty until there was one."""
        return self._plane.interface

    @property
    def wanted(self) -> Wanted:
        """What the network asks of this node, as the last turn found it."""
        return self._wanting.now

    @property
    def own(self) -> Member | None:
        """The node as a member; None: it is none, as far as is known."""
        return self._coordination.documents.member(self._node)

    # Membership

    @property
    def enrolling(self) -> bool:
        """It was started with a ticket, and is no member yet."""
        return self._parts.enrol is not None

    @property
    def needs_ticket(self) -> bool:
        """The node is no member any more, or its lease has ended without a coordinator to renew it."""
        strange = self._coordination.standing.refused in {"not-a-member", "unknown-network"}
        strange = strange or not self._coordination.coordinators
        return self.revoked or strange or self.wanted.state == "expired"

    @property
    def revoked(self) -> bool:
        """The node's key is good for nothing any more: coming back takes another."""
        return self.wanted.state == "revoked" or self._coordination.standing.refused == "revoked"

    @property
    def heard(self) -> bool:
        """A coordinator has said yes or no to the node, the last time that it was asked."""
        standing = self._coordination.standing
        return standing.connected or bool(standing.refused) or not self._coordination.coordinators

    @property
    def settled(self) -> bool:
        """It is known what the network wants, or nobody will say so soon."""
        return self.wanted.state != "starting" or (self.heard and not self.enrolling)

    @property
    def why_not_joined(self) -> str:
        failed = next((task.reason for task in self._ledger.tasks() if task.state == "failed"), "")
        waiting = "the coordinator has not sent the network's documents yet" if self.own is None else failed
        return self._coordination.standing.error or waiting or "it is not up yet"

    # Members and services

    @property
    def directory(self) -> Directory | None:
        """Who is called what, and serves what; the same object as long as that stays so. None: it is not known."""
        facts = (self.wanted, self.own, self.name)
        if any(one is not other for one, other in zip(facts, self._directory_of, strict=True)):
            self._directory_of, self._directory = facts, Directory.of(self.name, self.wanted, self.own)
        return self._directory

    def addresses_of(self, name: str) -> tuple[str, ...]:
        """The overlay addresses of the live member or the service that ``name`` means, the nearest first; none when it
        means nobody here.
        """
        directory = self.directory
        return () if directory is None else directory.addresses(name, self.nearness)

    def nearness(self, node: bytes) -> Nearness:
        """How near another member is, or this one."""
        if node == self._node:
            return Nearness(Class.SELF, 0.0)
        state, seen = self._connecting.peering.seen(node)
        place = self._connecting.reach.place(node)
        return nearness(state, place, seen)

    def own_ips(self) -> tuple[IPAddress, ...]:
        """Where others reach this node outside the overlay, as far as is known."""
        if not self._plane.interface:
            return ()
        return own_places(self._reaching.candidates(self._parts.surroundings))

    # For people, and for the coordinator

    def tell_tasks(self, tasks: tuple[Task, ...]) -> None:
        """How it stands with the streams of this network, for status and report."""
        if tasks != self._telling.stream_tasks:
            self._telling.stream_tasks = tasks
            self._wake()

    def explain(self, name: str) -> Explanation | None:
        """How it stands with the live member that ``name`` means; None: it means nobody else here."""
        directory = self.directory
        member = None if directory is None else directory.member(name)
        return None if member is None else explanation(self._telling.view(self.wanted, self.own), member.name)

    def status(self) -> Membership:
        """For the people on this host, as the last turn found it."""
        return membership(self._telling.view(self.wanted, self.own))

    def report(self) -> Report:
        """For the coordinator (R12)."""
        return report(self._telling.view(self.wanted, self.own))
