"""The maps of networks in memory, and what of them a node is sent.

A mirror follows the database by reading what changed since, so a change costs what it is, not what the network is. What
a node lacks is packed once for all who stand at the same revision. A whole map of a large network is a *base*, packed
now and then, and what has changed since; so a thousand nodes that join one after another do not have it packed a
thousand times.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from warren import log
from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, NetworkRow, RevokedRow
from warren.coordinator.sessions import Sessions
from warren.coordinator.wakes import Wake
from warren.model.documents import Membership
from warren.model.envelope import Envelope, unpack_envelope_untrusted
from warren.proto.control.messages import UPDATE_BYTES_MAX, Update, pack

BASE_BYTES_MIN: Final = 256 << 10
"""Smaller whole maps are packed when they are wanted."""
BASE_STALE: Final = 8
"""A base is packed anew when more than one in that many documents has changed since."""
CACHE_BYTES_MAX: Final = 32 << 20
"""Packed changes that are kept for who asks next."""

_membership: Final = msgspec.msgpack.Decoder(Membership)
_KINDS: Final = {"network": 0, "revocation": 1, "membership": 2, "node": 3}
_log = log.get("coordinator")


class Packed(NamedTuple):
    """A part of an update as it goes on the wire, and what a session needs to know of it."""

    head: Update
    """Without its documents."""
    message: bytes


class _Place(NamedTuple):
    revision: int
    kind: str
    subject: bytes


class Mirror:
    """The documents of one network. Single owner."""

    def __init__(self) -> None:
        self.revision = 0
        self.horizon = 0
        self._held: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._order: list[_Place] = []  # by revision; a place whose document has moved on is stale
        self._live_bytes = 0
        self._base: tuple[int, tuple[Packed, ...]] | None = None

    def absorb(self, rows: Iterable[DocumentRow], revision: int) -> None:
        """Take documents that changed; ``rows`` in the order of their revisions, all above this mirror's."""
        for row in rows:
            key = (row.kind, row.subject)
            self._live_bytes += len(row.envelope) - len(self._held.get(key, (0, b""))[1])
            self._held[key] = (row.revision, row.envelope)
            self._order.append(_Place(row.revision, *key))
            self.revision = max(self.revision, row.revision)
        self.revision = max(self.revision, revision)
        if len(self._order) > 2 * len(self._held) + 64:
            self._order = list(self._places(0))

    def membership(self, node: bytes) -> Membership | None:
        """Believed as it is: it comes from the coordinator's own database."""
        data = self._held.get((Membership.KIND, node), (0, b""))[1]
        return _membership.decode(unpack_envelope_untrusted(data).payload) if data else None

    def withdrawn(self, since: int) -> list[bytes]:
        """Nodes whose membership was taken away after ``since``."""
        places = (place for place in self._places(since) if place.kind == Membership.KIND)
        return [place.subject for place in places if not self._held[place.kind, place.subject][1]]

    def needs_whole(self, since: int) -> bool:
        """Whether who stands at ``since`` cannot be told changes only: it has nothing, stands where this map never
        was, or tombstones it has not seen are forgotten.
        """
        return since <= 0 or since > self.revision or since < self.horizon

    def changes(self, since: int) -> tuple[Packed, ...]:
        """Everything after ``since``; nothing when there is none."""
        if since == self.revision:
            return ()
        return tuple(self._packed(self._places(since), whole=False))

    def whole(self) -> tuple[Packed, ...]:
        """Everything. The last part brings who takes it to this revision."""
        if self._live_bytes < BASE_BYTES_MIN:
            return tuple(self._packed(self._live(), whole=True))
        stale = self._base is None or (sum(1 for _ in self._places(self._base[0])) * BASE_STALE > len(self._held))
        if self._base is None or stale:
            self._base = (self.revision, tuple(self._packed(self._live(), whole=True, more=True)))
        revision, parts = self._base
        return (*parts, *self._packed(self._places(revision), whole=True))

    def _places(self, since: int) -> Iterator[_Place]:
        for place in self._order[bisect_right(self._order, since, key=lambda place: place.revision) :]:
            if self._held[place.kind, place.subject][0] == place.revision:
                yield place

    def _live(self) -> list[_Place]:
        live = [_Place(revision, kind, subject) for (kind, subject), (revision, data) in self._held.items() if data]
        return sorted(live, key=lambda place: (_KINDS.get(place.kind, len(_KINDS)), place.revision))

    def _packed(self, places: Iterable[_Place], *, whole: bool, more: bool = False) -> Iterator[Packed]:
        """Parts of at most about UPDATE_BYTES_MAX; ``more``: none of them is the last."""
        put: list[Envelope] = []
        drop: list[bytes] = []
        size = 0
        for place in places:
            data = self._held[place.kind, place.subject][1]
            if size and size + len(data) > UPDATE_BYTES_MAX:
                yield _part(Update(revision=self.revision, whole=whole, more=True, put=tuple(put), drop=tuple(drop)))
                put, drop, size = [], [], 0
            if data:
                put.append(unpack_envelope_untrusted(data))
            elif place.kind == Membership.KIND:
                drop.append(place.subject)
            size += len(data) + 40
        yield _part(Update(revision=self.revision, whole=whole, more=more, put=tuple(put), drop=tuple(drop)))


class Maps:
    """The mirrors of all networks that anybody asked for. Single owner: one event loop."""

    def __init__(self, core: Core, sessions: Sessions) -> None:
        self._core = core
        self._sessions = sessions
        self._mirrors: dict[bytes, Mirror] = {}
        self._told: dict[bytes, int] = {}
        """Up to which revision the sessions were told of changes. A mirror may be ahead of it: who connects refreshes
        it too, and a database that fails may keep a change from being told.
        """
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._cache: OrderedDict[tuple[bytes, int, int], tuple[Packed, ...]] = OrderedDict()
        self._cached_bytes = 0

    async def updates_since(self, network: bytes, since: int) -> tuple[Packed, ...]:
        """What brings a node from ``since`` to now: nothing, the changes, or the whole map. From memory when the
        database is away, if it was ever asked for before. Problem ``unknown-network``, ``unavailable``.
        """
        mirror = self._mirrors.get(network)
        if mirror is None or mirror.revision < self._core.reached.get(network, 0):
            try:
                mirror = await self._refresh(network)
            except Problem as problem:
                if mirror is None or problem.kind != "unavailable":
                    raise
        if mirror.needs_whole(since):
            since = 0
        key = (network, since, mirror.revision)
        found = self._cache.get(key)
        if found is not None:
            self._cache.move_to_end(key)
            return found
        packed = mirror.changes(since) if since else mirror.whole()
        self._core.metrics.map_bytes_packed += sum(len(part.message) for part in packed)
        self._remember(key, packed)
        return packed

    async def changed(self, touched: dict[bytes, int]) -> None:
        """Maps have changed, here or at another replica: wake the sessions, end those of who is no member now."""
        for network, revision in touched.items():
            self._core.reached[network] = max(revision, self._core.reached.get(network, 0))
        for network, revision in touched.items():
            mirror = self._mirrors.get(network)
            before = 0 if mirror is None else self._told.get(network, mirror.revision)
            if before < revision and self._sessions.are_of(network):
                mirror = await self._refresh(network)
                self._told[network] = before
                await self._end_sessions(network, mirror, before)
                revision = mirror.revision
                self._told[network] = max(revision, self._told[network])
            self._core.hub.publish(Wake(network=network, revision=revision))

    async def catch_up(self) -> None:
        """Compare all revisions with the database, in case a notice was lost."""
        async with self._core.read() as work:
            revisions = {row.key: row.revision for row in await work.find(NetworkRow)}
        behind = {
            network: revision for network, revision in revisions.items() if revision > self._mirror_revision(network)
        }
        if behind:
            self._core.metrics.catch_ups += 1
            await self.changed(behind)

    def forget_unused(self) -> None:
        """Free the maps of networks of which no node is connected here."""
        for network in [network for network in self._mirrors if not self._sessions.are_of(network)]:
            del self._mirrors[network]
            self._told.pop(network, None)

    def holds_lease(self, network: bytes, node: bytes) -> bool:
        """Whether the node is a member whose lease runs, by memory alone: for when the database is away."""
        mirror = self._mirrors.get(network)
        membership = None if mirror is None else mirror.membership(node)
        return membership is not None and membership.holds_at(self._core.now())

    def _mirror_revision(self, network: bytes) -> int:
        mirror = self._mirrors.get(network)
        return self._core.reached.get(network, 0) if mirror is None else self._told.get(network, mirror.revision)

    async def _refresh(self, network: bytes) -> Mirror:
        async with self._locks.setdefault(network, asyncio.Lock()):
            mirror = self._mirrors.get(network)
            if mirror is not None and mirror.revision >= self._core.reached.get(network, 0):
                return mirror
            fresh = mirror or Mirror()
            async with self._core.read() as work:
                # The revision first: what is read after it is complete at least up to it.
                row = await work.known_network(network)
                rows = await work.find(
                    DocumentRow, equal("network", network), above("revision", fresh.revision), order="revision"
                )
            if mirror is None:
                self._core.metrics.map_loads += 1
                # Sessions that came before the map was wanted may have to end.
                self._told[network] = 0 if self._sessions.are_of(network) else row.revision
            fresh.absorb(rows, row.revision)
            fresh.horizon = row.horizon
            self._mirrors[network] = fresh
            self._core.reached[network] = max(fresh.revision, self._core.reached.get(network, 0))
            return fresh

    async def _end_sessions(self, network: bytes, mirror: Mirror, since: int) -> None:
        for node in mirror.withdrawn(since):
            if not self._sessions.is_here(network, node):
                continue
            async with self._core.read() as work:
                revoked = await work.get(RevokedRow, network, node)
            problem = (
                Problem("not-a-member", "the membership was given up or has run out", "Ask for a new ticket.")
                if revoked is None
                else Problem(
                    "revoked", "an administrator revoked the membership", "Join with a new key and a new ticket."
                )
            )
            self._core.hub.publish(Wake(network=network, node=node, ended=problem))

    def _remember(self, key: tuple[bytes, int, int], packed: tuple[Packed, ...]) -> None:
        size = sum(len(part.message) for part in packed)
        if size > CACHE_BYTES_MAX // 4:
            return
        self._cache[key] = packed
        self._cached_bytes += size
        while self._cached_bytes > CACHE_BYTES_MAX:
            _, old = self._cache.popitem(last=False)
            self._cached_bytes -= sum(len(part.message) for part in old)


def _part(update: Update) -> Packed:
    return Packed(Update(revision=update.revision, whole=update.whole, more=update.more), pack(update))
