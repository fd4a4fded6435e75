"""The coordinator's end of one node's connection (:mod:`messages`), without the connection.

::

              Authenticate, Enrol                accept()                  Leave
    PROVING ──────────────────────▶ DECIDING ────────────────▶ OPEN ─────────────────▶ LEAVING
       │     (the proof holds)         │                        │ Publish, Report,        │
       │                               │ refuse()               │ Signal                  │ end()
       └───────────── anything else, a bad proof, a timeout, too much ───────────▶ ENDED ◀┘

Until the proof of the node's key holds, nothing of a message but its proof is looked at, and nothing is kept. Every
failure is terminal: what went wrong is sent as Refused, :class:`Ended` is told, and the session takes nothing any
more. Who the node is comes from the proof alone (:attr:`ServerSession.node`), never from a later message.

The owner moves bytes: each WebSocket message into :meth:`~ServerSession.receive`, :meth:`~ServerSession.take_transmits`
out, :meth:`~ServerSession.take_events` to the service, whose answers come back by :meth:`~ServerSession.accept`,
:meth:`~ServerSession.refuse`, :meth:`~ServerSession.published` … ; it closes the connection once Ended is told and the
last transmits are sent. ``now`` is a monotonic clock in seconds.
"""

from __future__ import annotations

import enum
from typing import Final

from warren.errors import MalformedPacket
from warren.identity.signing import VerifyKey
from warren.model.documents import NodeRecord
from warren.proto.control import pacing
from warren.proto.control.messages import (
    NONCE_BYTES,
    PROTOCOL_VERSION,
    Accepted,
    Authenticate,
    Enrol,
    Leave,
    Publish,
    Published,
    Refused,
    RelayAccess,
    Report,
    Signal,
    ToNode,
    Undeliverable,
    Update,
    Welcome,
    authentication_bytes,
    enrolment_bytes,
    pack,
    unpack_from_node_untrusted,
)
from warren.proto.control.server_events import (
    AuthenticateWanted,
    Ended,
    EnrolWanted,
    Event,
    LeaveWanted,
    PublishWanted,
    Reported,
    SignalWanted,
)
from warren.proto.wireguard.timers import Deadline

PROVE_WITHIN_S: Final = 10.0
DECIDE_WITHIN_S: Final = 30.0
OUTBOX_BYTES_MAX: Final = 32 << 20
"""What may wait for a node that does not read: the map of 16,000 members twice."""
TEXT_CHARACTERS_MAX: Final = 256
SENTENCE_CHARACTERS_MAX: Final = 1024


class State(enum.Enum):
    """Where a session stands."""

    PROVING = "the node has not proved its key"
    DECIDING = "the proof holds, the service is asked whether the node may come in"
    OPEN = "a member"
    LEAVING = "the node gave its membership up, the service is told"
    ENDED = "over"


class ServerSession:
    """One node's connection. Single owner; ENDED is final."""

    def __init__(
        self, *, nonce: bytes, certificate_sha256: bytes, time_s: float, now: float, version: str = ""
    ) -> None:
        """``nonce``: 32 fresh random bytes, for this session only. ``certificate_sha256``: of the certificate that
        this very connection was served with. ``time_s``: the wall clock. The Welcome is the first transmit.
        """
        if len(nonce) != NONCE_BYTES or len(certificate_sha256) != 32:
            raise ValueError("a session needs a nonce of 32 bytes and the SHA-256 of its certificate")
        self.state = State.PROVING
        self.network = b""
        """The network and the node that were proved; empty before."""
        self.node = b""
        self.since = 0
        """The revision that the node stands at once everything handed to :meth:`update` has arrived."""
        self.pending_bytes = 0
        """How much waits in the outbox."""
        self._nonce = nonce
        self._certificate_sha256 = certificate_sha256
        self._outbox: list[bytes] = []
        self._events: list[Event] = []
        self._deadline: Deadline | None = Deadline(now + PROVE_WITHIN_S, "the node has not proved its key")
        self._messages = pacing.Allowance(pacing.MESSAGES, now)
        self._publishes = pacing.Allowance(pacing.PUBLISH, now)
        self._reports = pacing.Allowance(pacing.REPORT, now)
        self._signals = pacing.Allowance(pacing.SIGNAL, now)
        self._send(Welcome(protocol=PROTOCOL_VERSION, nonce=nonce, time=time_s, version=version))

    def __repr__(self) -> str:
        who = VerifyKey(self.node).short if self.node else "nobody yet"
        return f"ServerSession({who}, {self.state.name})"

    # The five verbs

    def receive(self, message: bytes | memoryview, now: float) -> None:
        """Take one WebSocket message of the node. Never raises for what is in it."""
        if self.state is State.ENDED:
            return
        if not self._messages.take(now):
            self._fail("limit", "too many messages", "send fewer messages", retry_after_s=60.0)
            return
        try:
            received = unpack_from_node_untrusted(message, authenticated=self.state is not State.PROVING)
        except MalformedPacket as error:
            self._fail("protocol", f"a message does not parse: {error}", "update Warren")
            return
        match (self.state, received):
            case (State.PROVING, Authenticate()):
                self._authenticate(received, now)
            case (State.PROVING, Enrol()):
                self._enrol(received, now)
            case (State.OPEN, Publish()):
                self._publish(received, now)
            case (State.OPEN, Report()):
                self._report(received, now)
            case (State.OPEN, Signal()):
                self._signal(received, now)
            case (State.OPEN, Leave()):
                self._leave(now)
            case _:
                name = type(received).__name__
                self._fail("protocol", f"{name} is out of place: {self.state.value}", "update Warren")

    def handle_timeout(self, now: float) -> None:
        """Call at :meth:`next_deadline`; earlier does nothing."""
        if self._deadline is None or now < self._deadline.at:
            return
        if self.state is State.PROVING:
            self._fail("protocol", f"no proof came within {PROVE_WITHIN_S:.0f} s", "", retry_after_s=1.0)
        else:
            self._fail("unavailable", "the coordinator could not decide in time", "try again", retry_after_s=5.0)

    def next_deadline(self) -> Deadline | None:
        return self._deadline

    def take_transmits(self) -> list[bytes]:
        """The WebSocket messages to send, oldest first; each is handed out once."""
        taken, self._outbox, self.pending_bytes = self._outbox, [], 0
        return taken

    def take_events(self) -> list[Event]:
        """What has happened, oldest first; each is handed out once."""
        taken, self._events = self._events, []
        return taken

    # The service's answers. Each is passed over when the session has ended meanwhile, as sessions do.

    def accept(self, *, observed: str, time_s: float, report_every_s: float = 60.0) -> bool:
        """The node is a member: the answer to EnrolWanted or AuthenticateWanted. False: the session has ended.

        Raises ValueError when no proof has been verified (a bug of the caller).
        """
        if self.state is State.ENDED:
            return False
        if self.state is not State.DECIDING:
            raise ValueError(f"nothing to accept: {self.state.value}")
        self.state = State.OPEN
        self._deadline = None
        observed = observed[:TEXT_CHARACTERS_MAX]
        self._send(Accepted(time=time_s, observed=observed, report_every_s=report_every_s))
        return True

    def refuse(
        self, kind: str, title: str, detail: str = "", remedy: str = "", retry_after_s: float | None = None
    ) -> None:
        """End the session in any state, telling the node why (:class:`~messages.Refused` lists the kinds)."""
        if self.state is State.ENDED:
            return
        refused = Refused(
            kind=kind[:TEXT_CHARACTERS_MAX],
            title=title[:TEXT_CHARACTERS_MAX],
            detail=detail[:SENTENCE_CHARACTERS_MAX],
            remedy=remedy[:SENTENCE_CHARACTERS_MAX],
            retry_after_s=retry_after_s,
        )
        self._outbox.append(pack(refused))
        self.pending_bytes += len(self._outbox[-1])
        self._end(f"refused ({kind}): {detail or title}")

    def end(self, why: str) -> None:
        """The connection is lost, or has nothing more to say."""
        if self.state is not State.ENDED:
            self._end(why)

    def update(self, update: Update, packed: bytes | None = None) -> None:
        """Send a change of the map, and have :attr:`since` follow. ``packed``: what ``pack(update)`` gives, made once
        for many sessions. One that the node has already, because two wakes crossed, is passed over.

        The parts of one change must come one after another.
        """
        if self.state is not State.OPEN or (update.revision <= self.since and not update.whole):
            return
        self._queue(pack(update) if packed is None else packed)
        if not update.more:
            self.since = update.revision

    def published(self, version: int) -> None:
        """The record of that version is stored."""
        if self.state is State.OPEN:
            self._send(Published(version=version))

    def signal(self, sender: bytes, data: bytes) -> None:
        """Hand on what ``sender``, another member, has for this node."""
        if self.state is State.OPEN:
            self._send(Signal(node=sender, data=data))

    def relay_access(self, access: RelayAccess) -> None:
        """What the node needs to use the relays, in place of what it was given before."""
        if self.state is State.OPEN:
            self._send(access)

    def undeliverable(self, to: bytes) -> None:
        """``to``, for whom SignalWanted was, is not connected."""
        if self.state is State.OPEN:
            self._send(Undeliverable(to=to))

    # From the node

    def _authenticate(self, message: Authenticate, now: float) -> None:
        network = VerifyKey(message.network)
        signed = authentication_bytes(network, self._nonce, self._certificate_sha256)
        if self._is_proved(message, signed):
            self.since = message.since
            self._decide(AuthenticateWanted(message.network, message.node, message.since, message.version), now)

    def _enrol(self, message: Enrol, now: float) -> None:
        network = VerifyKey(message.network)
        signed = enrolment_bytes(network, self._nonce, self._certificate_sha256, message.secret)
        if self._is_proved(message, signed):
            wanted = EnrolWanted(message.network, message.node, message.secret, message.name, message.version)
            self._decide(wanted, now)

    def _is_proved(self, message: Authenticate | Enrol, signed: bytes) -> bool:
        if message.protocol != PROTOCOL_VERSION:
            self._fail(
                "protocol",
                f"the node speaks protocol {message.protocol}, this coordinator {PROTOCOL_VERSION}",
                "update Warren on the older side",
            )
            return False
        if not VerifyKey(message.node).verifies(message.signature, signed):
            self._fail(
                "bad-proof",
                "the node's signature does not hold for this connection; somebody may stand in between",
                "connect to the coordinator directly, without a proxy that opens TLS",
            )
            return False
        self.network, self.node = message.network, message.node
        return True

    def _decide(self, wanted: EnrolWanted | AuthenticateWanted, now: float) -> None:
        self.state = State.DECIDING
        self._deadline = Deadline(now + DECIDE_WITHIN_S, "the service has not decided")
        self._events.append(wanted)

    def _publish(self, message: Publish, now: float) -> None:
        if not self._publishes.take(now):
            self._fail("limit", "too many records were published", "publish less often", retry_after_s=30.0)
        elif message.record.kind != NodeRecord.KIND or message.record.signer != self.node:
            self._fail("bad-proof", "a record that is not the node's own was published", "")
        else:
            self._events.append(PublishWanted(message.record))

    def _report(self, message: Report, now: float) -> None:
        if self._reports.take(now):
            self._events.append(Reported(message))
        else:
            self._fail("limit", "too many reports were sent", "report less often", retry_after_s=30.0)

    def _signal(self, message: Signal, now: float) -> None:
        if self._signals.take(now):  # else lost, as a hint may be; who sends ever more meets the limit of all messages
            self._events.append(SignalWanted(message.node, message.data))

    def _leave(self, now: float) -> None:
        self.state = State.LEAVING
        self._deadline = Deadline(now + DECIDE_WITHIN_S, "the service has not forgotten the node")
        self._events.append(LeaveWanted())

    # Ends

    def _fail(self, kind: str, detail: str, remedy: str, retry_after_s: float | None = None) -> None:
        self.refuse(kind, _TITLES[kind], detail, remedy, retry_after_s)

    def _end(self, why: str) -> None:
        self.state = State.ENDED
        self._deadline = None
        self._events.append(Ended(why))

    def _send(self, message: ToNode) -> None:
        self._queue(pack(message))

    def _queue(self, packed: bytes) -> None:
        if self.pending_bytes + len(packed) > OUTBOX_BYTES_MAX:
            self._outbox, self.pending_bytes = [], 0
            self._end("the node does not read what it is sent")
            return
        self._outbox.append(packed)
        self.pending_bytes += len(packed)


_TITLES: Final = {
    "protocol": "not understood",
    "bad-proof": "not proved",
    "limit": "too much",
    "unavailable": "not now",
}
