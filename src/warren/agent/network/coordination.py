"""What a node knows of a network, and how it stands with the coordinators: the documents, their time, the link.

Events of the link are noted when they come and taken in the network's next turn; documents are believed by their
signatures, whoever brought them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from warren import log
from warren.agent.clock import KeptTime, NetworkClock
from warren.agent.state import NetworkState
from warren.agent.world import Link, World
from warren.api.node_events import (
    Connected,
    Disconnected,
    Event,
    Published,
    Refused,
    RelayAccessReceived,
    UpdateReceived,
)
from warren.errors import MalformedPacket, problem_line
from warren.identity.signing import VerifyKey
from warren.model.documents import Coordinator, NodeRecord
from warren.model.envelope import unpack_envelope_untrusted
from warren.model.netmap import Applied, NetworkMap
from warren.model.tunnel import IPAddress
from warren.model.verified import Verified
from warren.proto.control.messages import Refused as Problem
from warren.proto.control.messages import RelayCredential, Report

INFORMED_S: Final = 60.0
"""So long after a connection was lost the node counts as knowing what others announced."""
_EVENTS_MAX: Final = 256

_log = log.get("agent")


@dataclass
class LinkStanding:
    """How the node stands with its coordinators. Moments on the host's wall clock."""

    connected: bool = False
    url: str = ""
    since_s: float | None = None
    error: str = ""
    refused: str = ""
    """The kind of the last refusal; empty since one was a success."""
    observed: str = ""
    report_every_s: float = 60.0


@dataclass
class News:
    """What the events since the last turn have brought."""

    documents: bool = False
    """The map is another one."""
    connected: bool = False
    relay_access: bool = False
    """The credentials for relays are others."""
    refused: Refused | None = None


def why(refused: Problem) -> str:
    """A refusal in one sentence: what, why, what to do."""
    return problem_line(refused.title, refused.detail, refused.remedy)


class Coordination:
    """Single owner. ``name`` is the network's, as far as it is known."""

    def __init__(
        self, network: VerifyKey, world: World, state: NetworkState, name: str, coordinators: Sequence[Coordinator]
    ) -> None:
        self.documents = NetworkMap(network)
        self.standing = LinkStanding()
        self.clock = NetworkClock(state.settings.time, world.boot)
        self.name = name
        self.coordinators = tuple(coordinators) or state.settings.coordinators
        """Those of the NetworkSpec once it is known, before that those of the ticket."""
        self.link: Link | None = None
        self.relay_access: tuple[RelayCredential, ...] = ()
        """What is needed to use the relays of the NetworkSpec."""
        self._world = world
        self._events: deque[Event] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self._published = 0
        self._carried: deque[bytes] = deque(maxlen=_EVENTS_MAX)
        self._informed_until = world.clock() + INFORMED_S
        self._load(state)

    def _load(self, state: NetworkState) -> None:
        told = len(state.warnings)
        revision, envelopes = state.documents()
        self.relay_access = state.relay_access()
        for warning in state.warnings[told:]:
            _log.warning("%s: %s", self.name, warning)
        if envelopes:
            applied = self.documents.apply(revision=revision, whole=True, more=False, put=envelopes, drop=())
            self._tell_refusals(applied, "a cache")
        self._take_spec()

    # The link

    def note(self, event: Event) -> None:
        """Something came; :meth:`take` deals with it."""
        self._events.append(event)
        if len(self._events) >= _EVENTS_MAX:
            self._room.clear()

    async def room(self) -> None:
        """Returns when more events may be noted: until then the coordinator waits too."""
        await self._room.wait()

    def publish(self, record: Verified[NodeRecord]) -> None:
        if self.link is not None:
            self.link.publish(record)

    def report(self, report: Report) -> None:
        if self.link is not None:
            self.link.report(report)

    def signal(self, node: bytes, data: bytes) -> bool:
        """To another member, by the coordinator. False: none is connected."""
        return self.link is not None and self.link.signal(node, data)

    def learned(self, envelope: bytes) -> None:
        """A member sent a document; :meth:`take` looks whether it is worth anything."""
        self._carried.append(envelope)

    def network_changed(self) -> None:
        """What was in vain may work now."""
        if self.link is not None and not self.standing.connected:
            self.link.retry_now()

    # Time

    @property
    def network_s(self) -> float:
        """The time in the network, seconds since 1970."""
        return self.clock.now(self._world.wall_clock(), self._world.clock())

    def kept_time(self) -> KeptTime:
        return self.clock.keep(self._world.wall_clock(), self._world.clock())

    # What is known

    @property
    def informed(self) -> bool:
        """What peers announce is known: a coordinator is connected, or was until a moment ago."""
        return self.standing.connected or self._world.clock() < self._informed_until

    @property
    def up_to_date(self) -> bool:
        """A coordinator is connected, and nothing that it is telling is half here."""
        return self.standing.connected and not self.documents.staging

    def has_told(self, version: int) -> bool:
        """Whether a coordinator is connected, and has this node's record of that version."""
        return self.standing.connected and self._published >= version

    @property
    def observed(self) -> IPAddress | None:
        """The address from which the coordinator sees this node."""
        with contextlib.suppress(ValueError):
            return ip_address(self.standing.observed)
        return None

    # Events

    def take(self) -> News:
        """Deal with what was noted."""
        news = News()
        while self._events:
            event = self._events.popleft()
            match event:
                case Connected():
                    self._connected(event)
                    news.connected = True
                case UpdateReceived(update):
                    applied = self.documents.apply(
                        revision=update.revision, whole=update.whole, more=update.more, put=update.put, drop=update.drop
                    )
                    self._tell_refusals(applied, "the coordinator")
                    news.documents |= bool(applied.changed or applied.dropped)
                case Published(version):
                    self._published = max(self._published, version)
                case Disconnected(why, retry_in_s):
                    self._disconnected(why, final=retry_in_s is None)
                case Refused():
                    self._refused(event)
                    news.refused = event
                case RelayAccessReceived(credentials):
                    self.relay_access = credentials
                    news.relay_access = True
                case _:
                    pass  # signals are dealt with when they come
        self._room.set()
        news.documents |= self._take_carried()
        if news.documents:
            self._take_spec()
        return news

    def _take_carried(self) -> bool:
        """Records that members sent. While an update of the coordinator is half here, they wait."""
        put = []
        while self._carried and not self.documents.staging:
            with contextlib.suppress(MalformedPacket):
                envelope = unpack_envelope_untrusted(self._carried.popleft())
                put += [envelope] if envelope.kind == NodeRecord.KIND else []
        if not put:
            return False
        applied = self.documents.apply(revision=self.documents.revision, whole=False, more=False, put=put, drop=())
        return bool(applied.changed)

    def _connected(self, event: Connected) -> None:
        wall_s = self._world.wall_clock()
        self.documents.abandon()
        self.clock.tell(event.time_s, wall_s, self._world.clock())
        self.standing = LinkStanding(
            connected=True,
            url=event.url,
            since_s=wall_s,
            observed=event.observed,
            report_every_s=event.report_every_s,
        )
        _log.info("%s: connected to the coordinator at %s", self.name, event.url)
        warning = self.clock.warning()
        if warning:
            _log.warning("%s: %s", self.name, warning)

    def _disconnected(self, why: str, *, final: bool) -> None:
        standing = self.standing
        if standing.connected or standing.since_s is None:
            if final:  # nobody waits for another connection
                _log.info("%s: the coordinator is not spoken to any more: %s", self.name, why)
            else:
                _log.warning("%s: no coordinator is connected, what is known goes on: %s", self.name, why)
            self._informed_until = self._world.clock() + INFORMED_S
            standing.since_s = self._world.wall_clock()
        standing.connected = False
        standing.error = standing.error if standing.refused else why

    def _refused(self, event: Refused) -> None:
        if self.standing.refused != event.refused.kind:
            _log.warning("%s: the coordinator refuses this node: %s", self.name, why(event.refused))
        self.standing.connected = False
        self.standing.since_s = self._world.wall_clock()
        self.standing.error, self.standing.refused = why(event.refused), event.refused.kind

    def _tell_refusals(self, applied: Applied, carrier: str) -> None:
        if applied.refused_count:
            first = applied.refused[0]
            what = f"{applied.refused_count} documents of {carrier} were refused"
            _log.warning("%s: %s, the first, a %s: %s", self.name, what, first.kind, first.reason)

    def _take_spec(self) -> None:
        spec = self.documents.spec
        if spec is not None:
            self.name = spec.name
            self.coordinators = spec.coordinators or self.coordinators
        if self.link is not None:
            self.link.coordinators = self.coordinators
            self.link.members = len(self.documents.members())
