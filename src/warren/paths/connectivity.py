"""The paths to all peers of one network: the face of this package towards the agent.

The driver feeds it what it learns (bases, peers, traffic, STUN messages) and carries out what it asks: after every call
it takes the transmits and the events, and calls ``handle_timeout`` at ``next_deadline``. Nothing here fails because of
what came from outside; bytes that are not understood or not authentic are dropped without an answer.

``now``: seconds of a clock that never goes back and goes on while the machine sleeps. Nodes are named by their 32-byte
keys. Single owner.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.paths.checks import key_of, names, read_answer_untrusted, read_request_untrusted
from warren.paths.context import Context
from warren.paths.events import Check, Event, PeerReport
from warren.paths.peer import PeerPaths
from warren.paths.reports import report
from warren.paths.signalling import Signalling
from warren.paths.values import Base, RemoteCandidate, Settings, Surroundings
from warren.proto.stun.message import Class, Message, Method, decode_untrusted
from warren.proto.wireguard.timers import Deadline

NEVER: Final = float("inf")
BASES_MAX: Final = 32
PROGRESS_S: Final = 0.001
"""A peer that was just served is not due again before: time passes in every loop."""


class Connectivity:
    """See the module."""

    def __init__(
        self, *, node: bytes, random: Callable[[int], bytes], now: float, settings: Settings | None = None
    ) -> None:
        """``node``: our own key. ``random(n)``: n bytes that nobody can foresee."""
        self._context = Context(node=node, random=random, settings=settings or Settings(), now=now)
        self._peers: dict[bytes, PeerPaths] = {}
        self._by_label: dict[str, PeerPaths] = {}
        self._signalling = Signalling(self._context, self._peers)
        self._due: list[tuple[float, int, PeerPaths]] = []
        self._entries: dict[bytes, float] = {}
        self._serial = 0

    # What the driver knows

    def set_bases(self, bases: tuple[Base, ...], now: float, around: Surroundings | None = None) -> None:
        """Everything packets can leave from now: each usable address of each interface as ``Base(address=…,
        interface=…)``, and each relay whose allocation is ready as ``Base(kind="relay", relay=name)``. At most 32, the
        better ones first. Paths of bases that are gone are left at once. The same bases again cost nothing.
        """
        bases, around = bases[:BASES_MAX], around or self._context.around
        if bases == self._context.bases and around == self._context.around:
            return
        self._context.bases, self._context.around = bases, around
        for base in [base for base in self._context.mapped if base not in bases]:
            del self._context.mapped[base]
        for peer in self._peers.values():
            peer.rebuild(now)
            self._schedule(peer, now)

    def set_mapped(
        self, base: Base, address: TransportAddress, now: float, server: TransportAddress | None = None
    ) -> None:
        """A STUN ``server`` saw packets from ``base`` come from ``address``. Each answer of each server helps to tell
        which kind of NAT there is; hints for hard NATs are made of them.
        """
        self._context.was_mapped(base, address, server or address, now)

    def set_self(self, *, record: bytes, candidates: tuple[RemoteCandidate, ...], nat: str) -> None:
        """What signals tell of us: the envelope of our present NodeRecord, its candidates and its ``nat``."""
        self._context.record, self._context.candidates, self._context.nat = record, candidates, nat

    def set_peer(
        self,
        node: bytes,
        keys: tuple[bytes, ...],
        candidates: tuple[RemoteCandidate, ...],
        nat: str,
        now: float,
    ) -> None:
        """A peer and what its NodeRecord says. ``keys``: the check keys of the two nodes, the present one first; others
        (of a WireGuard key that was or will be) are accepted, not used. The same again costs nothing.
        """
        if not keys:
            raise ValueError("a peer without a check key cannot be checked")
        peer = self._peers.get(node)
        if peer is None:
            peer = self._peers[node] = PeerPaths(self._context, node, now)
            self._by_label[peer.label] = peer
        peer.set_candidates(keys, candidates, nat, now)
        self._schedule(peer, now)

    def remove_peer(self, node: bytes) -> None:
        """Its paths are forgotten without an event but that its sockets are done."""
        peer = self._peers.pop(node, None)
        if peer is not None:
            self._by_label.pop(peer.label, None)
            self._entries.pop(node, None)
            self._signalling.forget(node)
            peer.close()

    def remotes(self, base: Base) -> set[TransportAddress]:
        """Where any pair with ``base`` sends to."""
        return {pair.remote for peer in self._peers.values() for pair in peer.pairs if pair.base == base}

    def want(self, node: bytes, now: float) -> None:
        """Packets wait for a path (PathWanted), or one is to be looked for. An unknown node: nothing happens."""
        peer = self._peers.get(node)
        if peer is not None:
            peer.want(now)
            self._after(peer, now)

    def traffic(self, node: bytes, tx_bytes: int, rx_bytes: int, now: float) -> None:
        """The counters of PeerStatus, ever growing. To be told every second of peers that send or receive: packets
        that go out while none come in are the first sign of a dead path.
        """
        peer = self._peers.get(node)
        if peer is not None:
            peer.traffic(tx_bytes, rx_bytes, now)
            self._after(peer, now)

    def is_narrow(self, node: bytes) -> bool:
        """Large packets do not get to that peer by a path that was tried, and since then have not by the one in use."""
        peer = self._peers.get(node)
        return peer is not None and peer.mtu_probes.is_narrow()

    def is_wide(self, node: bytes, since: float) -> bool:
        """A large packet got to that peer by the path in use, and was answered at ``since`` or later."""
        peer = self._peers.get(node)
        return peer is not None and peer.mtu_probes.is_wide(since)

    def heard(self, node: bytes, remote: TransportAddress, base: Base, now: float) -> None:
        """PeerHeard: an authentic WireGuard packet came from elsewhere than the selected path."""
        peer = self._peers.get(node)
        known = self._base(base)
        if peer is not None and known is not None:
            peer.heard(known, remote, now)
            self._after(peer, now)

    def network_changed(self, now: float) -> None:
        """Addresses, routes or interfaces changed, or the machine has slept: check everything that is in use anew.
        Call ``set_bases`` first if they changed.
        """
        for peer in self._peers.values():
            peer.network_changed(now)
            self._after(peer, now)

    def signal_received(self, node: bytes, data: bytes, now: float) -> None:
        """The coordinator brought a signal of ``node``."""
        peer = self._signalling.received(node, data, now)
        if peer is not None:
            self._after(peer, now)

    def sockets_opened(self, node: bytes, bases: tuple[Base, ...], now: float) -> None:
        """The sockets that SocketsWanted asked for, as ``Base(kind="socket", address=…, interface=…, socket=n)``: n is
        the driver's own number until the data plane has the socket. None of them: they could not be opened.
        """
        peer = self._peers.get(node)
        if peer is not None:
            peer.hard.sockets_opened(bases, now)
            self._after(peer, now)

    # Messages and time

    def receive(self, data: bytes, remote: TransportAddress, base: Base, now: float) -> bool:
        """A STUN message that came to ``base`` from ``remote`` (over a relay: the address that the relay names).
        False: it is none of ours.
        """
        try:
            message = decode_untrusted(data)
            known = self._base(base) or base
            match message.method, message.cls:
                case Method.BINDING, Class.REQUEST:
                    return self._request(message, remote, known, now)
                case Method.BINDING, Class.SUCCESS:
                    return self._answer(message, remote, known, now)
                case Method.CARRY, Class.INDICATION:
                    return self._indication(message, now)
        except MalformedPacket:
            pass
        return False

    def handle_timeout(self, now: float) -> None:
        """Do what is due. Nothing happens before ``next_deadline``."""
        while self._due and self._due[0][0] <= now:
            at, _, peer = heapq.heappop(self._due)
            if self._entries.get(peer.node) != at or self._peers.get(peer.node) is not peer:
                continue  # overtaken
            del self._entries[peer.node]
            peer.handle_timeout(now)
            self._after(peer, now, not_before=now + PROGRESS_S)

    def next_deadline(self) -> Deadline | None:
        while self._due and (
            self._entries.get(self._due[0][2].node) != self._due[0][0]
            or self._peers.get(self._due[0][2].node) is not self._due[0][2]
        ):
            heapq.heappop(self._due)
        return Deadline(self._due[0][0], "a check of a path is due") if self._due else None

    def take_transmits(self) -> list[Check]:
        return self._context.take_transmits()

    def take_events(self) -> list[Event]:
        return self._context.take_events()

    def explain(self, node: bytes, now: float) -> PeerReport | None:
        """How it stands with a peer; None: it is not known."""
        peer = self._peers.get(node)
        return None if peer is None else report(peer, now)

    # Inside

    def _request(self, message: Message, remote: TransportAddress, base: Base, now: float) -> bool:
        peer, key = self._sender(message)
        if peer is None or key is None:
            return False
        request = read_request_untrusted(message)
        if not peer.replies.take(now):
            return True
        self._context.answer(base, remote, key, request, peer.delivery.receipt(now))
        peer.requested(request, base, remote, now)
        self._after(peer, now)
        return True

    def _answer(self, message: Message, remote: TransportAddress, base: Base, now: float) -> bool:
        waiting = self._context.transactions.get(message.transaction)
        if waiting is None:
            return False
        if waiting.remote != remote or waiting.base != base or key_of(message, (waiting.key,)) is None:
            return False  # RFC 8445 §7.2.5.2.1: it must come by the way that the request took
        answer = read_answer_untrusted(message)
        del self._context.transactions[message.transaction]
        waiting.peer.answered(waiting, message.transaction, answer, now)
        self._after(waiting.peer, now)
        return True

    def _indication(self, message: Message, now: float) -> bool:
        peer, key = self._sender(message)
        if peer is None or key is None:
            return False
        for touched in self._signalling.indication(peer, message, now):
            self._after(touched, now)
        return True

    def _sender(self, message: Message) -> tuple[PeerPaths | None, bytes | None]:
        """Whose message it is, and the key that proves it; nothing that is not for us passes."""
        labels = names(message)
        if labels is None or labels[0] != self._context.label:
            return None, None
        peer = self._by_label.get(labels[1])
        return (None, None) if peer is None else (peer, key_of(message, peer.keys))

    def _base(self, base: Base) -> Base | None:
        """The base that we know of this kind and address; a driver need not know the interface."""
        if base.kind == "socket" or base in self._context.bases:
            return base
        same = (
            one
            for one in self._context.bases
            if (one.kind, one.address, one.relay) == (base.kind, base.address, base.relay)
            and (not base.interface or not one.interface)
        )
        return next(same, None)

    def _after(self, peer: PeerPaths, now: float, not_before: float = -NEVER) -> None:
        self._signalling.flush(now)
        self._schedule(peer, now, not_before)

    def _schedule(self, peer: PeerPaths, now: float, not_before: float = -NEVER) -> None:
        at = max(peer.next_at(now), not_before)
        if at == NEVER:
            self._entries.pop(peer.node, None)
            return
        if self._entries.get(peer.node) == at:
            return
        self._entries[peer.node] = at
        self._serial += 1
        heapq.heappush(self._due, (at, self._serial, peer))
        if len(self._due) > 64 + 4 * len(self._peers):  # overtaken entries
            self._due = [entry for entry in self._due if self._entries.get(entry[2].node) == entry[0]]
            heapq.heapify(self._due)
