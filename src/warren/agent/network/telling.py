"""What a node says of itself: its record to the members, its report to the coordinator, its status to the host."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from warren.agent.candidates import Surroundings, disagreements
from warren.agent.network.desired import Wanted
from warren.agent.network.due import Due
from warren.agent.network.ground import Ground
from warren.agent.network.reaching import Reaching
from warren.agent.network.records import Content, OwnRecord
from warren.agent.network.status import View, report
from warren.errors import OperationFailed
from warren.model.documents import Candidate, NodeRecord
from warren.model.envelope import pack_envelope
from warren.model.netmap import Member
from warren.model.tunnel import TransportAddress
from warren.paths.values import RemoteCandidate
from warren.proto.control.messages import Task

REPORT_SOON_S: Final = 1.0
"""After a change: more of them come together."""


class Telling:
    """Single owner."""

    def __init__(self, ground: Ground, reaching: Reaching) -> None:
        self._network = ground.network
        self._shared = ground.shared
        self._world = ground.shared.world
        self._key = ground.key
        self._state = ground.state
        self._coordination = ground.coordination
        self._keyring = ground.keyring
        self._ledger = ground.ledger
        self._saver = ground.saver
        self._reaching = reaching
        self._record = OwnRecord(ground.key, ground.network, ground.state.settings.record_version)
        self._surroundings = Surroundings()
        self._reported: object = None
        self._started = self._world.clock()
        self.stream_tasks: tuple[Task, ...] = ()
        """What the network wants of streams, and how it stands with that."""

    @property
    def latest(self) -> NodeRecord | None:
        """The last record made in this run."""
        return None if self._record.latest is None else self._record.latest.document

    def connected(self, due: Due) -> None:
        """A coordinator is there again: it may have missed something."""
        if self._record.latest is not None:
            self._coordination.publish(self._record.latest)
        due.again("report", self._world.clock() + REPORT_SOON_S)

    def publish(self, own: Member, surroundings: Surroundings) -> None:
        """Make and publish another record if it is to say something else."""
        self._surroundings = surroundings
        reach = self._reaching.connecting.reach
        found = self._reaching.candidates(surroundings)
        how = self._reaching.reachability(surroundings)
        offer = self._reaching.relaying.offer
        try:
            content = Content(self._keyring.public, self._keyring.next_public, found, how, reach.nat(), offer)
        except OperationFailed as error:
            self._ledger.failed("record", error)
            return
        if not self._record.is_due(content, own.record):
            return
        version = self._record.next_version(own.record)
        self._saver.note(self._world.clock(), record_version=version)
        record = self._record.make(content, version, own.record)
        places = tuple(RemoteCandidate(one.kind, _address(one)) for one in found)
        reach.set_record(pack_envelope(record.envelope), places, content.nat)
        self._coordination.publish(record)
        if self._record.contested:
            copied = "its state was copied; let one of the two join anew"
            self._ledger.failed("record", f"another agent publishes with this node's key: {copied}")
        else:
            self._ledger.done("record")

    def report(self, want: Wanted, own: Member | None, due: Due) -> None:
        """Tell the coordinator how the node is: soon after something changed, and as often as it likes."""
        standing, now = self._coordination.standing, self._world.clock()
        if not standing.connected:
            return
        peers = self._reaching.peering.signature()
        facts = (self._tasks(), want.state, peers, self._surroundings.addresses)
        if facts != self._reported and "report soon" not in due.at:
            due.again("report soon", now + REPORT_SOON_S)
        if due.take("report", now) | due.take("report soon", now):
            self._reported = facts
            self._coordination.report(report(self.view(want, own)))
            due.again("report", now + standing.report_every_s)

    def _tasks(self) -> tuple[Task, ...]:
        return (*self._ledger.tasks(), *self.stream_tasks)

    def view(self, want: Wanted, own: Member | None) -> View:
        config, coordination, reaching = self._shared.config, self._coordination, self._reaching
        spec = coordination.documents.spec
        plane = reaching.plane
        clock = coordination.clock.warning()
        warnings = [
            *self._state.warnings,
            *want.warnings,
            *disagreements(config.stated, self._surroundings, coordination.observed),
            *([clock] if clock else []),
        ]
        return View(
            network=self._network,
            node=self._key.verify_key,
            name=coordination.name,
            own=own,
            spec=spec,
            wanted=want,
            degraded=self._ledger.failing() or bool(plane.interface and not plane.runs),
            interface=plane.interface,
            engine=self._shared.world.choice.engine,
            listen_port=reaching.port() if plane.interface else 0,
            key=self._keyring.public if plane.interface else None,
            revision=coordination.documents.revision,
            reachability=reaching.reachability(self._surroundings),
            stated=config.stated.lines(),
            candidates=tuple(str(_address(one)) for one in reaching.candidates(self._surroundings))
            if plane.interface
            else (),
            standing=coordination.standing,
            offset_s=coordination.clock.offset_s,
            tasks=self._tasks(),
            peering=reaching.peering,
            warnings=tuple(warnings),
            surroundings=self._surroundings,
            uptime_s=self._world.clock() - self._started,
            wall_s=self._world.wall_clock(),
            now=self._world.clock(),
            reach=reaching.connecting.reach,
        )


def _address(candidate: Candidate) -> TransportAddress:
    return TransportAddress(ip_address(candidate.address), candidate.port)
