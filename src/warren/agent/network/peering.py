"""The peers of one network as the engine has them: kept as wanted, each on the path and by the key that works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from warren import log
from warren.agent.network.desired import WantedPeer
from warren.agent.network.peers import Course, KeyTrial, pointed, tunnel_change
from warren.agent.network.watch import PeerWatch, State
from warren.agent.world import DataPlane
from warren.identity.keys import PrivateKey, PublicKey
from warren.model.tunnel import PeerStatus, TunnelChange
from warren.reach.reach import Reach

POLL_S: Final = 3.0
"""How often the engine is asked how the peers are, at most; a large network is asked less often."""
POLL_PER_PEER_S: Final = 0.01
SOON_S: Final = 1.0
"""After a change, and while there is traffic, the engine is asked again this soon: packets that go out while none come
in are the first sign of a dead path.
"""
GREETED_MAX: Final = 64
"""Peers that are called when a data plane of a returning node begins: they may still send to sessions that ended with
the one before, and would find out after 15 s. Not all of a large network at once.
"""
GREET_S: Final = 10.0
_NEWS_PER_MINUTE: Final = 20

_log = log.get("agent")


@dataclass(frozen=True, slots=True)
class Here:
    """What of this node counts for reaching others."""

    private_key: PrivateKey
    listen_port: int
    known: bool
    """Others know this node's key, so that it makes sense to call them."""
    informed: bool
    """What peers announce is known: a coordinator is connected, or was until a moment ago."""


@dataclass(slots=True)
class _Known:
    """A peer's machines, and what was last said of it."""

    trial: KeyTrial
    watch: PeerWatch = field(default_factory=PeerWatch)
    state: State = "unknown"
    said: State = "unknown"


class Peering:
    """Single owner. ``now`` is a clock that never goes back, ``wall_ns`` what handshakes are dated with."""

    def __init__(self, network: str, reach: Reach, *, returns: bool) -> None:
        """``returns``: the others know this node from before, so that it makes sense to call them at once."""
        self.holders: dict[PublicKey, bytes] = {}
        """Whose each key in the engine is."""
        self._reach = reach
        self._returns = returns
        self._greets = False
        self._greeted: frozenset[bytes] = frozenset()
        self._greet_until = 0.0
        self._peers: dict[bytes, _Known] = {}
        self._asked_at: float | None = None
        self._hurry = False
        self._active = False
        self._traffic: dict[PublicKey, tuple[int, int]] = {}
        self._news = _News(network)
        self._one_at_a_time = asyncio.Lock()

    def forget_engine(self) -> None:
        """Another data plane begins: it knows nobody. If there was one before, the others know this node from it."""
        self._returns |= bool(self._peers)
        self._peers.clear()
        self.holders.clear()
        self._greets, self._greeted = False, frozenset()

    async def settle(
        self, engine: DataPlane, wanted: Mapping[bytes, WantedPeer], here: Here, now: float, wall_ns: int
    ) -> bool:
        """Ask the engine how it is and tell it what is to change; returns whether anything was.

        Raises Unreachable or OperationFailed; nothing is then changed.
        """
        async with self._one_at_a_time:
            status = await engine.status()
            present = {peer.public_key: peer for peer in status.peers}
            self._recognise(wanted, present)
            traffic = {peer.public_key: (peer.tx_bytes, peer.rx_bytes) for peer in status.peers}
            self._active = traffic != self._traffic
            self._traffic = traffic
            self._greets |= self._returns and status.private_key is None  # it has just begun: nothing was adopted
            self._greet(wanted, here, now)
            self._reach.traffic(status, active=self._active)
            courses = {node: self._course(peer, here, present, now, wall_ns) for node, peer in wanted.items()}
            change = tunnel_change(wanted, courses, self.holders, status, here.private_key, here.listen_port)
            if change is not None:
                await engine.configure(change)
            self.holders = {courses[node].key: node for node in wanted}
        self._news.flush(now)
        self._asked_at = now
        self._hurry = change is not None
        return change is not None

    async def point(self, engine: DataPlane, nodes: Iterable[bytes]) -> None:
        """Send the packets of these peers the way that was found for them, at once.

        Raises Unreachable or OperationFailed; nothing is then changed.
        """
        async with self._one_at_a_time:
            known = [(node, self._peers[node]) for node in nodes if node in self._peers]
            courses = [self._directed(node, one.trial.key, one.watch) for node, one in known]
            changes = tuple(pointed(course) for course in courses if course.endpoint is not None)
            if changes:
                await engine.configure(TunnelChange(peers=changes))
                self._hurry = True

    def _recognise(self, wanted: Mapping[bytes, WantedPeer], present: Mapping[PublicKey, PeerStatus]) -> None:
        """Whose the keys are that the engine has: what was told to it, else what the documents say (an adoption)."""
        for node in self._peers.keys() - wanted.keys():
            del self._peers[node]
        for node, peer in wanted.items():
            if node not in self._peers:
                announced = peer.next_key is not None and peer.next_key in present and peer.key not in present
                key = peer.next_key if announced and peer.next_key is not None else peer.key
                self._peers[node] = _Known(KeyTrial(key))
                self.holders.setdefault(key, node)
                if (adopted := present.get(key)) is not None and adopted.endpoint is not None:
                    self._reach.adopt(node, adopted.endpoint, adopted.way)

    def _greet(self, wanted: Mapping[bytes, WantedPeer], here: Here, now: float) -> None:
        if self._greets and here.known and wanted:
            self._greets = False
            self._greet_until = now + GREET_S
            self._greeted = frozenset(islice((node for node, peer in wanted.items() if peer.candidates), GREETED_MAX))
            for node in self._greeted:
                self._reach.want(node)
        elif self._greeted and now >= self._greet_until:
            self._greeted = frozenset()

    def _course(
        self, peer: WantedPeer, here: Here, present: Mapping[PublicKey, PeerStatus], now: float, wall_ns: int
    ) -> Course:
        known = self._peers[peer.node]
        status = present.get(known.trial.key)
        if status is not None:
            known.watch.observe(status, wall_ns, now)
        known.state = known.watch.state(now, announced=bool(peer.candidates), lost=self._reach.lost(peer.node))
        doubtful = known.state == "unreachable" or not here.informed
        key = known.trial.choose(peer, alive=known.watch.alive, doubtful=doubtful, now=now)
        self._tell(known, peer)
        return self._directed(peer.node, key, known.watch)

    def _directed(self, node: bytes, key: PublicKey, watch: PeerWatch) -> Course:
        found = self._reach.course(node)
        if found is None:
            return Course(key)
        return Course(key, found.endpoint, node in self._greeted and not watch.alive, found.way)

    def _tell(self, known: _Known, peer: WantedPeer) -> None:
        if known.state != known.said:
            if known.state == "connected":
                path = self._reach.path(peer.node)
                self._news.tell(f"{peer.name} is connected{f', {path}' if path else ''}")
            elif known.state == "unreachable":
                why = self._reach.why(peer.node) if self._reach.lost(peer.node) else ""
                self._news.tell(f"{peer.name} does not answer{f': {why}' if why else ''}")
            known.said = known.state

    def turned(self, wanted: Mapping[bytes, WantedPeer]) -> frozenset[bytes]:
        """Peers that are known by the key that they announced."""
        return frozenset(
            node
            for node, known in self._peers.items()
            if (peer := wanted.get(node)) is not None and known.trial.key == peer.next_key
        )

    def ask_now(self) -> None:
        """Have :meth:`settle` due at once."""
        self._asked_at = None

    def due_at(self) -> float:
        """When :meth:`settle` is due at the latest."""
        if self._asked_at is None:
            return 0.0
        usual = max(SOON_S if self._active else POLL_S, POLL_PER_PEER_S * len(self._peers))
        return self._asked_at + (SOON_S if self._hurry else usual)

    def seen(self, node: bytes) -> tuple[State, PeerStatus | None]:
        """How a wanted peer is, and what the engine said of it last."""
        known = self._peers.get(node)
        return ("unknown", None) if known is None else (known.state, known.watch.seen)

    def signature(self) -> Sequence[object]:
        """Changes when a peer's state or path does: then it is worth a report."""
        return [(node, known.state, self._reach.path(node)) for node, known in self._peers.items()]


class _News:
    """Log lines about peers, a bounded number a minute; the rest is counted."""

    def __init__(self, network: str) -> None:
        self._network = network
        self._waiting: list[str] = []
        self._left = float(_NEWS_PER_MINUTE)
        self._at: float | None = None
        self._unsaid = 0

    def tell(self, line: str) -> None:
        self._waiting.append(line)

    def flush(self, now: float) -> None:
        if self._at is not None:
            self._left = min(_NEWS_PER_MINUTE, self._left + (now - self._at) * _NEWS_PER_MINUTE / 60)
        self._at = now
        if self._unsaid and self._left >= 1:
            _log.info("%s: %d more changes of peers", self._network, self._unsaid)
            self._left, self._unsaid = self._left - 1, 0
        for line in self._waiting:
            if self._left >= 1:
                self._left -= 1
                _log.info("%s: %s", self._network, line)
            else:
                self._unsaid += 1
                _log.debug("%s: %s", self._network, line)
        self._waiting.clear()
