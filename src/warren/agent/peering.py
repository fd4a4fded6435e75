"""The peers of one network as the engine has them: kept as wanted, each at the address and by the key that works."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from warren import log
from warren.agent.candidates import outside
from warren.agent.desired import WantedPeer
from warren.agent.peers import Course, KeyTrial, tunnel_change
from warren.agent.world import DataPlane
from warren.identity.keys import PrivateKey, PublicKey
from warren.model.tunnel import IPNetwork, PeerStatus, TransportAddress
from warren.paths.candidates import Underlay, rank, reaches
from warren.paths.endpoints import SESSION_S, EndpointChooser, State

POLL_S: Final = 3.0
"""How often the engine is asked how the peers are, at most; a large network is asked less often."""
POLL_PER_PEER_S: Final = 0.01
SOON_S: Final = 1.0
"""After a change the engine is asked again this soon."""
GREETED_MAX: Final = 64
"""Peers that are called when a data plane of a returning node begins: they may still send to sessions that ended with
the one before, and would find out after 15 s. Not all of a large network at once.
"""
GREET_S: Final = 10.0
_NEWS_PER_MINUTE: Final = 20
_NS: Final = 1_000_000_000

_log = log.get("agent")


@dataclass(frozen=True, slots=True)
class Here:
    """What of this node counts for reaching others."""

    underlay: Underlay
    candidates: tuple[TransportAddress, ...]
    overlays: tuple[IPNetwork, ...]
    """Where an encrypted packet must not go: into a tunnel."""
    private_key: PrivateKey
    listen_port: int
    known: bool
    """Others know this node's key, so that it makes sense to call them."""
    informed: bool
    """What peers announce is known: a coordinator is connected, or was until a moment ago."""


@dataclass(slots=True)
class _Known:
    """A peer's machines, and what they were last told."""

    chooser: EndpointChooser
    trial: KeyTrial
    told: tuple[object, ...] = ()
    status: PeerStatus | None = None
    said: State = "unknown"


class Peering:
    """Single owner. ``now`` is a clock that never goes back, ``wall_ns`` what handshakes are dated with."""

    def __init__(self, network: str, *, returns: bool) -> None:
        """``returns``: the others know this node from before, so that it makes sense to call them at once."""
        self.holders: dict[PublicKey, bytes] = {}
        """Whose each key in the engine is."""
        self._network = network
        self._returns = returns
        self._greets = False
        self._greeted: frozenset[bytes] = frozenset()
        self._greet_until = 0.0
        self._peers: dict[bytes, _Known] = {}
        self._asked_at: float | None = None
        self._hurry = False
        self._news = _News(network)

    def forget_engine(self) -> None:
        """Another data plane begins: it knows nobody."""
        self._peers.clear()
        self.holders.clear()
        self._greets, self._greeted = False, frozenset()

    async def settle(
        self, engine: DataPlane, wanted: Mapping[bytes, WantedPeer], here: Here, now: float, wall_ns: int
    ) -> bool:
        """Ask the engine how it is and tell it what is to change; returns whether anything was.

        Raises Unreachable or OperationFailed; nothing is then changed.
        """
        status = await engine.status()
        present = {peer.public_key: peer for peer in status.peers}
        self._recognise(wanted, present)
        self._greets |= self._returns and status.private_key is None  # it has just begun: nothing was adopted
        self._greet(wanted, here, now)
        courses = {node: self._course(peer, here, present, now, wall_ns) for node, peer in wanted.items()}
        change = tunnel_change(wanted, courses, self.holders, status, here.private_key, here.listen_port)
        if change is not None:
            await engine.configure(change)
        self.holders = {courses[node].key: node for node in wanted}
        self._news.flush(now)
        self._asked_at = now
        self._hurry = change is not None
        return change is not None

    def _recognise(self, wanted: Mapping[bytes, WantedPeer], present: Collection[PublicKey]) -> None:
        """Whose the keys are that the engine has: what was told to it, else what the documents say (an adoption)."""
        for node in self._peers.keys() - wanted.keys():
            del self._peers[node]
        for node, peer in wanted.items():
            if node not in self._peers:
                announced = peer.next_key is not None and peer.next_key in present and peer.key not in present
                key = peer.next_key if announced and peer.next_key is not None else peer.key
                self._peers[node] = _Known(EndpointChooser(), KeyTrial(key))
                self.holders.setdefault(key, node)

    def _greet(self, wanted: Mapping[bytes, WantedPeer], here: Here, now: float) -> None:
        if self._greets and here.known and wanted:
            self._greets = False
            self._greet_until = now + GREET_S
            self._greeted = frozenset(islice((node for node, peer in wanted.items() if peer.candidates), GREETED_MAX))
        elif self._greeted and now >= self._greet_until:
            self._greeted = frozenset()

    def _course(
        self, peer: WantedPeer, here: Here, present: Mapping[PublicKey, PeerStatus], now: float, wall_ns: int
    ) -> Course:
        known = self._peers[peer.node]
        chooser = known.chooser
        status = present.get(known.trial.key)
        told = (peer.candidates, here.underlay, here.candidates, here.overlays)
        if status is not None:
            known.status = status
            chooser.observe(status, wall_ns, now)
        if told != known.told:
            known.told = told
            ranked = rank(outside(peer.candidates, here.overlays), here.underlay)
            initiate = bool(ranked) and not reaches(here.candidates, peer.candidates)
            chooser.offer(ranked, must_initiate=initiate)
        alive = status is not None and bool(status.last_handshake_ns) and _age_s(status, wall_ns) < SESSION_S
        doubtful = chooser.state == "unreachable" or not here.informed
        key = known.trial.choose(peer, alive=alive, doubtful=doubtful, now=now)
        self._tell(known, peer)
        if not here.known:
            return Course(key)
        return Course(key, chooser.wanted(), chooser.must_initiate or (peer.node in self._greeted and not alive))

    def _tell(self, known: _Known, peer: WantedPeer) -> None:
        state = known.chooser.state
        if state != known.said:
            if state == "connected":
                where = known.status.endpoint if known.status is not None else None
                self._news.tell(f"{peer.name} is connected{f' at {where}' if where else ''}")
            elif state == "unreachable":
                self._news.tell(f"{peer.name} does not answer")
            known.said = state

    def ask_now(self) -> None:
        """Have :meth:`settle` due at once."""
        self._asked_at = None

    def due_at(self) -> float:
        """When :meth:`settle` is due at the latest."""
        if self._asked_at is None:
            return 0.0
        pause = SOON_S if self._hurry else max(POLL_S, POLL_PER_PEER_S * len(self._peers))
        deadlines = (known.chooser.next_deadline() for known in self._peers.values())
        soonest = min((at for at in deadlines if at is not None), default=None)
        usual = self._asked_at + pause
        return usual if soonest is None else max(self._asked_at + SOON_S / 4, min(usual, soonest))

    def seen(self, node: bytes) -> tuple[State, PeerStatus | None]:
        """How a wanted peer is, and what the engine said of it last."""
        known = self._peers.get(node)
        return ("unknown", None) if known is None else (known.chooser.state, known.status)

    def signature(self) -> Sequence[object]:
        """Changes when a peer's state or endpoint does: then it is worth a report."""
        return [
            (node, known.chooser.state, None if known.status is None else known.status.endpoint)
            for node, known in self._peers.items()
        ]


def _age_s(status: PeerStatus, wall_ns: int) -> float:
    return (wall_ns - status.last_handshake_ns) / _NS


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
