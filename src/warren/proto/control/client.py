"""The node's end of a connection to a coordinator (:mod:`messages`), without the connection.

::

               Welcome                  Accepted                 leave()
    WAITING ─────────────▶ PROVING ──────────────▶ OPEN ───────────────────▶ LEAVING
       │    proof sent        │                     │ Update, Published,        │ end()
       │                      │                     │ Signal, Undeliverable     │
       └──────── Refused, anything else, a timeout, end() ──────────▶ ENDED ◀───┘

Every failure is terminal and told by :class:`Ended`; the owner then makes a new session on a new connection. The
session trusts the coordinator with nothing but the order of things: documents are verified by who takes the events.

Records, reports and signals keep the pace that the coordinator allows: of a record or report that has to wait only the
latest counts, of signals the latest few. ``now`` is a monotonic clock in seconds.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.envelope import Envelope
from warren.proto.control import messages, pacing
from warren.proto.control.client_events import (
    Ended,
    Event,
    Opened,
    Published,
    RefusedByCoordinator,
    RelayAccessReceived,
    SignalReceived,
    SignalUndeliverable,
    UpdateReceived,
)
from warren.proto.wireguard.timers import Deadline

WELCOME_WITHIN_S: Final = 10.0
ANSWER_WITHIN_S: Final = 40.0
"""A little more than a coordinator takes to decide."""
SIGNALS_WAITING_MAX: Final = 256
_SHARE: Final = 0.5  # of the coordinator's pace: delays on the way make even a slow stream arrive in bunches


class State(enum.Enum):
    """Where a session stands."""

    WAITING = "the coordinator has not greeted"
    PROVING = "the coordinator has not answered the proof"
    OPEN = "a member"
    LEAVING = "the coordinator is forgetting this node"
    ENDED = "over"


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """What makes a node a member: the secret of its ticket, and the name it would like."""

    secret: bytes = field(repr=False)
    name: str


class ClientSession:
    """One connection of one node in one network. Single owner; ENDED is final."""

    def __init__(
        self,
        *,
        network: VerifyKey,
        key: SigningKey,
        certificate_sha256: bytes,
        now: float,
        since: int = 0,
        enrol: EnrolRequest | None = None,
        version: str = "",
    ) -> None:
        """``certificate_sha256``: of the certificate that this very connection was made to. ``since``: the revision of
        the map that the node has. With ``enrol`` it becomes a member, without it is one.
        """
        self.state = State.WAITING
        self._network = network
        self._key = key
        self._certificate_sha256 = certificate_sha256
        self._since = since
        self._enrol = enrol
        self._version = version
        self._outbox: list[bytes] = []
        self._events: list[Event] = []
        self._deadline: Deadline | None = Deadline(now + WELCOME_WITHIN_S, State.WAITING.value)
        self._record: Envelope | None = None
        self._report: messages.Report | None = None
        self._signals: deque[messages.Signal] = deque(maxlen=SIGNALS_WAITING_MAX)
        self._publish_pace = pacing.Allowance(pacing.PUBLISH, now, share=_SHARE)
        self._report_pace = pacing.Allowance(pacing.REPORT, now, share=_SHARE)
        self._signal_pace = pacing.Allowance(pacing.SIGNAL, now, share=_SHARE)

    def __repr__(self) -> str:
        return f"ClientSession({self._key.verify_key.short} in {self._network.short}, {self.state.name})"

    # The five verbs

    def receive(self, message: bytes | memoryview, now: float) -> None:
        """Take one WebSocket message of the coordinator. Never raises for what is in it."""
        if self.state is State.ENDED:
            return
        try:
            received = messages.unpack_to_node_untrusted(message)
        except MalformedPacket as error:
            self._end(f"the coordinator sent something that does not parse: {error}")
            return
        match (self.state, received):
            case (_, messages.Refused()):
                self._events.append(RefusedByCoordinator(received))
                self._end(f"refused: {received.detail or received.title}")
            case (State.WAITING, messages.Welcome()):
                self._prove(received, now)
            case (State.PROVING, messages.Accepted()):
                self.state = State.OPEN
                self._events.append(Opened(received.time, received.observed, received.report_every_s))
                self._flush(now)
            case (State.OPEN, messages.Update()):
                self._events.append(UpdateReceived(received))
            case (State.OPEN, messages.Published()):
                self._events.append(Published(received.version))
            case (State.OPEN, messages.Signal()):
                self._events.append(SignalReceived(received.node, received.data))
            case (State.OPEN, messages.Undeliverable()):
                self._events.append(SignalUndeliverable(received.to))
            case (State.OPEN, messages.RelayAccess()):
                self._events.append(RelayAccessReceived(received.credentials))
            case (State.LEAVING, _):
                pass  # it was on its way already
            case _:
                self._end(f"the coordinator sent {type(received).__name__} out of place: {self.state.value}")

    def handle_timeout(self, now: float) -> None:
        """Call at :meth:`next_deadline`; earlier does nothing."""
        if self._deadline is None or now < self._deadline.at:
            return
        if self.state is State.OPEN:
            self._flush(now)
        else:
            self._end(f"the coordinator is too slow: {self._deadline.why}")

    def next_deadline(self) -> Deadline | None:
        return self._deadline

    def take_transmits(self) -> list[bytes]:
        """The WebSocket messages to send, oldest first; each is handed out once."""
        taken, self._outbox = self._outbox, []
        return taken

    def take_events(self) -> list[Event]:
        """What has happened, oldest first; each is handed out once."""
        taken, self._events = self._events, []
        return taken

    # What the node says. Before it is a member again it waits; after the end it is lost.

    def publish(self, record: Envelope, now: float) -> None:
        """Have this NodeRecord, signed by the node, take the place of the one before."""
        self._record = record
        self._flush(now)

    def report(self, report: messages.Report, now: float) -> None:
        """Tell how the node is; of more peers than fit into a message, only the first."""
        self._report = report
        self._flush(now)

    def signal(self, to: bytes, data: bytes, now: float) -> None:
        """Pass ``data`` on to the member ``to``; it may get lost. Raises ValueError for more than SIGNAL_BYTES_MAX."""
        if len(data) > messages.SIGNAL_BYTES_MAX:
            raise ValueError(f"a signal of {len(data)} bytes; {messages.SIGNAL_BYTES_MAX} are the most")
        self._signals.append(messages.Signal(node=to, data=data))
        self._flush(now)

    def leave(self, now: float) -> bool:
        """Give the membership up; the coordinator ends the connection when it is done. False: not connected now."""
        if self.state is not State.OPEN:
            return False
        self.state = State.LEAVING
        self._send(messages.Leave())
        self._deadline = Deadline(now + ANSWER_WITHIN_S, State.LEAVING.value)
        return True

    def end(self, why: str) -> None:
        """The connection is lost or no longer wanted."""
        if self.state is not State.ENDED:
            self._end(why)

    def _prove(self, welcome: messages.Welcome, now: float) -> None:
        if welcome.protocol != messages.PROTOCOL_VERSION:
            theirs, ours = welcome.protocol, messages.PROTOCOL_VERSION
            self._end(f"the coordinator speaks protocol {theirs}, this node {ours}: update Warren on the older side")
            return
        self.state = State.PROVING
        self._deadline = Deadline(now + ANSWER_WITHIN_S, State.PROVING.value)
        binding = (self._network, welcome.nonce, self._certificate_sha256)
        if self._enrol is None:
            self._send(
                messages.Authenticate(
                    protocol=messages.PROTOCOL_VERSION,
                    network=self._network.raw,
                    node=self._key.verify_key.raw,
                    signature=self._key.sign(messages.authentication_bytes(*binding)),
                    since=self._since,
                    version=self._version,
                )
            )
        else:
            self._send(
                messages.Enrol(
                    protocol=messages.PROTOCOL_VERSION,
                    network=self._network.raw,
                    node=self._key.verify_key.raw,
                    signature=self._key.sign(messages.enrolment_bytes(*binding, self._enrol.secret)),
                    secret=self._enrol.secret,
                    name=self._enrol.name,
                    version=self._version,
                )
            )

    def _flush(self, now: float) -> None:
        if self.state is not State.OPEN:
            return
        if self._record is not None and self._publish_pace.take(now):
            self._send(messages.Publish(record=self._record))
            self._record = None
        if self._report is not None and self._report_pace.take(now):
            self._send(fitting(self._report))
            self._report = None
        while self._signals and self._signal_pace.take(now):
            self._send(self._signals.popleft())
        self._deadline = self._next_flush(now)

    def _next_flush(self, now: float) -> Deadline | None:
        waiting = [
            Deadline(pace.ready_at(now), why)
            for pending, pace, why in (
                (self._record, self._publish_pace, "a record waits for its turn"),
                (self._report, self._report_pace, "a report waits for its turn"),
                (self._signals, self._signal_pace, "a signal waits for its turn"),
            )
            if pending
        ]
        return min(waiting, default=None)

    def _end(self, why: str) -> None:
        self.state = State.ENDED
        self._deadline = None
        self._events.append(Ended(why))

    def _send(self, message: messages.FromNode) -> None:
        self._outbox.append(messages.pack(message))


def fitting(report: messages.Report) -> messages.Report:
    """``report`` as far as a coordinator takes it in one message: the last peers are left out, then the last tasks."""
    while len(messages.pack(report)) > messages.NODE_MESSAGE_BYTES_MAX:
        if report.peers:
            report = msgspec.structs.replace(report, peers=report.peers[: len(report.peers) * 3 // 4])
        elif report.tasks:
            report = msgspec.structs.replace(report, tasks=report.tasks[: len(report.tasks) * 3 // 4])
        else:
            report = msgspec.structs.replace(report, interfaces=())
    return report
