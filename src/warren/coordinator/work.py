"""One transaction as the use cases see it: rows, networks as an actor may see them, documents, the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn

import msgspec

from warren.coordinator.conditions import Value, Where, differs, equal
from warren.coordinator.notices import revision_notice
from warren.coordinator.problems import Problem
from warren.coordinator.rows import DocumentRow, EventRow, NetworkRow, R, Row, TokenRow
from warren.coordinator.store import Transaction
from warren.identity.signing import VerifyKey
from warren.model.documents import Document
from warren.model.envelope import pack_envelope
from warren.model.verified import D, Verified
from warren.proto.control.administration import Actor

EVENT_CHARACTERS_MAX: Final = 1024
"""Of a detail in the audit log; what is longer is cut, and says so."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a work stood, to go back to."""

    writes: int
    events: int
    notices: int
    networks: dict[bytes, NetworkRow]


class Work:
    """A transaction, at the moment ``now`` (wall clock). What is only kept here until :meth:`finish` (events, and how
    networks changed) saves a statement for each use case that shares the transaction.
    """

    def __init__(self, transaction: Transaction, now: float) -> None:
        self.now = now
        self.writes = 0
        self.touched: dict[bytes, int] = {}
        """Networks whose map changed, and the revision it has now; right after :meth:`finish`."""
        self._transaction = transaction
        self._networks: dict[bytes, NetworkRow] = {}
        self._loaded: dict[bytes, NetworkRow] = {}
        self._events: list[EventRow] = []
        self._notices: list[str] = []

    # Rows

    async def get(self, row: type[R], *key: Value) -> R | None:
        return await self._transaction.get(row, *key)

    async def find(
        self, row: type[R], *where: Where, order: str | None = None, descending: bool = False, limit: int | None = None
    ) -> list[R]:
        return await self._transaction.find(row, *where, order=order, descending=descending, limit=limit)

    async def one(self, row: type[R], *where: Where) -> R | None:
        found = await self._transaction.find(row, *where, limit=1)
        return found[0] if found else None

    async def count(self, row: type[Row], *where: Where) -> int:
        return await self._transaction.count(row, *where)

    async def put(self, *rows: Row) -> None:
        self.writes += 1
        await self._transaction.put(*rows)

    async def delete(self, row: type[Row], *where: Where) -> int:
        self.writes += 1
        return await self._transaction.delete(row, *where)

    # Networks

    async def network(self, key: bytes) -> NetworkRow | None:
        """The network as it is in this transaction. Rows of ``networks`` are read and changed by way of here only."""
        if key not in self._networks:
            row = await self._transaction.get(NetworkRow, key)
            if row is None:
                return None
            self._networks[key] = self._loaded[key] = row
        return self._networks[key]

    async def known_network(self, key: bytes) -> NetworkRow:
        """For nodes. Raises Problem ``unknown-network``."""
        row = await self.network(key)
        if row is None:
            raise Problem(
                "unknown-network",
                "this coordinator has no such network",
                "Ask for a ticket of a network that this coordinator has.",
            )
        return row

    def change(self, row: NetworkRow) -> None:
        self._networks[row.key] = row

    async def network_for(self, actor: Actor, ref: str) -> NetworkRow:
        """The one with this name or key, if ``actor`` may see it. Raises Problem ``not-found``, the same for one that
        is not there and for one that is somebody else's.
        """
        key = key_of(ref)
        row = None if key is None else await self.network(key)
        if row is None:
            named = await self.one(NetworkRow, equal("name", ref))
            row = None if named is None else await self.network(named.key)
        if row is None or not may_see(actor, row.key):
            raise Problem("not-found", f"there is no network {shown(ref)}", "List the networks to see their names.")
        return row

    async def authorise(self, actor: Actor) -> None:
        """Before every write of an administrator, in the transaction that writes: the token still stands, and it is
        one that may write. Raises Problem ``unauthorised`` or ``forbidden``.
        """
        if not actor.token:
            refuse_actor("no token")
        token = await self.get(TokenRow, actor.token)
        if token is None or token.revoked or token.expires <= self.now or token.role != actor.role:
            refuse_actor("the token was revoked, or has expired")
        if token.role != "admin":
            raise Problem("forbidden", "the token may only read", "Use a token of the role admin.")
        if (None if token.network is None else str(VerifyKey(token.network))) != actor.network:
            refuse_actor("the token is for another network")

    # Documents

    async def next_version(self, network: bytes, document: type[Document], subject: bytes = b"") -> int:
        """Greater than any that was ever signed, also by a coordinator whose database was since put back from a
        backup: versions are at least the time.
        """
        row = await self.get(DocumentRow, network, document.KIND, subject)
        return max(int(self.now), 1, row.version + 1 if row is not None else 1)

    async def publish(self, verified: Verified[D]) -> None:
        """Put a document on the map. Its version must be greater than that of the one before it."""
        await self._put_document(verified.document.network, verified.key, verified.document.version, verified)

    async def withdraw(self, network: bytes, node: bytes) -> None:
        """Take the node's Membership and NodeRecord from the map; their versions are kept."""
        for row in await self.find(DocumentRow, equal("network", network), equal("subject", node)):
            await self._put_document(network, (row.kind, node), row.version, None)

    async def _put_document(
        self, network: bytes, key: tuple[str, bytes], version: int, verified: Verified[D] | None
    ) -> None:
        row = await self.known_network(network)
        row = msgspec.structs.replace(row, revision=max(row.revision + 1, int(self.now)))
        self.change(row)
        await self.put(
            DocumentRow(
                network=network,
                kind=key[0],
                subject=key[1],
                version=version,
                revision=row.revision,
                changed=self.now,
                envelope=b"" if verified is None else pack_envelope(verified.envelope),
            )
        )

    # The audit log

    def event(self, actor: str, action: str, network: bytes | None, subject: str, detail: str = "") -> None:
        """Who did what, written with what was done."""
        if len(detail) > EVENT_CHARACTERS_MAX:
            detail = detail[: EVENT_CHARACTERS_MAX - 1] + "…"
        self._events.append(
            EventRow(
                sequence=0, at=self.now, actor=actor, action=action, network=network, subject=subject, detail=detail
            )
        )

    def tell(self, notice: str) -> None:
        """Tell the other replicas when this is committed."""
        self._notices.append(notice)

    # For who runs the transaction

    def mark(self) -> Mark:
        return Mark(self.writes, len(self._events), len(self._notices), dict(self._networks))

    def back_to(self, mark: Mark) -> bool:
        """Forget what a use case did since; False when it has written rows, and only a roll-back helps."""
        if self.writes != mark.writes:
            return False
        del self._events[mark.events :]
        del self._notices[mark.notices :]
        self._networks = dict(mark.networks)
        return True

    async def finish(self) -> None:
        """Write what was kept here. The last thing before the commit."""
        for key, row in self._networks.items():
            before = self._loaded.get(key)
            if row != before:
                await self._transaction.put(row)
                if before is None or before.revision != row.revision:
                    self.touched[key] = row.revision
        if self._events:
            last = await self._transaction.find(EventRow, order="sequence", descending=True, limit=1)
            first = last[0].sequence + 1 if last else 1
            await self._transaction.put(
                *(msgspec.structs.replace(row, sequence=first + i) for i, row in enumerate(self._events))
            )
        for notice in (*(revision_notice(*one) for one in self.touched.items()), *self._notices):
            await self._transaction.notify(notice)


def may_see(actor: Actor, network: bytes) -> bool:
    return actor.network is None or actor.network == str(VerifyKey(network))


def refuse_actor(why: str) -> NoReturn:
    """Problem ``unauthorised``."""
    raise Problem("unauthorised", why, "Use a token that is valid, or make a new one.")


def key_of(text: str) -> bytes | None:
    """The key that ``text`` is; None when it is none, and may be a name."""
    try:
        return VerifyKey.from_text(text).raw
    except ValueError:
        return None


def shown(text: str) -> str:
    """What somebody asked for, short and on one line, for a sentence that quotes it."""
    return repr(text if len(text) <= 64 else text[:63] + "…")


def when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


LIVE = differs("envelope", b"")
"""Documents that are no tombstones."""
