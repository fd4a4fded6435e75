"""What the machines of all peers of one node share: identity, randomness, pacing, and what is to be sent and told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.paths.checks import TRANSACTION_BYTES, Receipt, Request, label_of, seal_answer, seal_request
from warren.paths.events import Check, Event
from warren.paths.nat import Situation
from warren.paths.pacing import Bucket
from warren.paths.values import Base, RemoteCandidate, Settings, Surroundings

if TYPE_CHECKING:
    from warren.paths.hard import Hard
    from warren.paths.pair import Pair
    from warren.paths.peer import PeerPaths

TRANSMITS_MAX: Final = 8192
"""A driver takes them after every call; only a stuck one lets them pile up, and then the oldest are the least use."""
EVENTS_MAX: Final = 8192
ANSWERS_MAX: Final = 1024
"""Paths to which an answer waits to be taken: one for each, the newest."""
TRANSACTIONS_MAX: Final = 65_536
"""Of all peers; beyond it the oldest are forgotten."""


SEEN_BY_MAX: Final = 16
"""Servers and peers of which it is remembered how they see one base."""


class Waiting(NamedTuple):
    """A check that waits for its answer."""

    peer: PeerPaths
    pair: Pair | None
    """None: a probe of a port (paths/hard.py)."""
    base: Base
    remote: TransportAddress
    key: bytes
    sent_at: float
    size: int
    """The inner packet size that it probes, or 0."""


class Context:
    """Owned by Connectivity."""

    def __init__(self, *, node: bytes, random: Callable[[int], bytes], settings: Settings, now: float) -> None:
        self.node = node
        self.label = label_of(node)
        self.random = random
        self.settings = settings
        self.epoch = int.from_bytes(random(8))
        self.bases: tuple[Base, ...] = ()
        self.around = Surroundings()
        self.nat = ""
        self.candidates: tuple[RemoteCandidate, ...] = ()
        self.record = b""
        self.mapped: dict[Base, dict[TransportAddress, tuple[TransportAddress, float]]] = {}
        """What each server said of each base, and when."""
        self.pacer = Bucket(settings.node_checks_per_s, settings.node_checks_per_s / 8, now)
        self.transactions: dict[bytes, Waiting] = {}
        self.signals_sent = 0
        self.signals: dict[bytes, tuple[bool, int]] = {}
        """Nodes to be signalled: whether an answer is asked for, and open sockets."""
        self.hard_busy: set[Hard] = set()
        self.kept: dict[bytes, None] = {}
        """Peers whose idle paths are kept open, the one used last at the end."""
        self.transmits: deque[Check] = deque(maxlen=TRANSMITS_MAX)
        self.answers: dict[tuple[Base, TransportAddress, bool], Check] = {}
        self.events: deque[Event] = deque(maxlen=EVENTS_MAX)

    def keep(self, node: bytes) -> None:
        """``node`` is used: of too many, the path that was unused for longest is left to itself."""
        self.kept.pop(node, None)
        self.kept[node] = None
        if len(self.kept) > self.settings.kept_alive_max:
            del self.kept[next(iter(self.kept))]

    def was_mapped(self, base: Base, address: TransportAddress, seen_by: TransportAddress, now: float) -> None:
        """``seen_by`` saw packets from ``base`` come from ``address``."""
        seen = self.mapped.setdefault(base, {})
        seen.pop(seen_by, None)
        while len(seen) >= SEEN_BY_MAX:
            seen.pop(next(iter(seen)))
        seen[seen_by] = (address, now)

    def situation(self) -> Situation | None:
        """What we tell of our own NAT."""
        try:
            return Situation.from_text_untrusted(self.nat) if self.nat else None
        except MalformedPacket:
            return None

    def send_check(
        self,
        peer: PeerPaths,
        base: Base,
        remote: TransportAddress,
        now: float,
        *,
        pair: Pair | None = None,
        nominates: bool = False,
        size: int = 0,
        length: int = 0,
        whole: bool = True,
    ) -> bytes:
        """Send a request and wait for its answer; returns its transaction. ``whole``: one with a ``length`` must not be
        fragmented.
        """
        transaction = self.random(TRANSACTION_BYTES)
        key = peer.keys[0]
        peer.order += 1
        data = seal_request(
            key=key,
            transaction=transaction,
            receiver=peer.label,
            sender=self.label,
            controlling=peer.controlling,
            nominates=nominates,
            relayed=base.kind == "relay",
            epoch=self.epoch,
            order=peer.order,
            length=length,
        )
        self.transmits.append(Check(base, remote, data, dont_fragment=bool(length) and whole))
        if len(self.transactions) >= TRANSACTIONS_MAX:
            self.transactions.pop(next(iter(self.transactions)))
        self.transactions[transaction] = Waiting(peer, pair, base, remote, key, now, size)
        return transaction

    def answer(
        self, base: Base, remote: TransportAddress, key: bytes, request: Request, receipt: Receipt | None
    ) -> None:
        """One answer waits for each path: whoever floods a path with requests gets the last one answered."""
        if len(self.answers) < ANSWERS_MAX:
            data = seal_answer(key, request.transaction, remote, self.epoch, receipt)
            self.answers[base, remote, request.padded] = Check(base, remote, data)

    def take_transmits(self) -> list[Check]:
        taken = [*self.answers.values(), *self.transmits]
        self.answers.clear()
        self.transmits.clear()
        return taken

    def take_events(self) -> list[Event]:
        taken = list(self.events)
        self.events.clear()
        return taken

    def uplink_of(self, base: Base) -> int:
        """The index of the interface by which what leaves from ``base`` leaves this host; 0: it is not known."""
        if base.kind != "relay":
            return base.interface
        return next((interface for name, interface in self.around.relay_uplinks if name == base.relay), 0)

    def link_mtu(self, base: Base) -> int:
        return next((mtu for interface, mtu in self.around.link_mtu if interface == base.interface), 1500)
