"""A table in the kernel that is to be exactly one document: put there, watched, removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from warren.errors import OperationFailed
from warren.l3.firewall import removal, table_of
from warren.linux.nft import Command, Nft

_VOLATILE = {"handle", "packets", "bytes"}


class PolicyTable:
    """The table of one interface. Owned by one task; every call takes milliseconds and does not wait.

    Errors: OperationFailed with nftables' reason; the table in the kernel is then the one of before.
    """

    def __init__(self, nft: Nft, interface: str) -> None:
        self.interface = interface
        self._nft = nft
        self._wanted: str | None = None
        self._observed: str | None = None

    def is_in_place(self, document: Sequence[Command]) -> bool:
        """Whether the kernel has what :meth:`put` put there with that document, and nobody has changed it since.

        Never before the first :meth:`put` of this process, whatever an earlier one has left.
        """
        return self._wanted == _digest(document) and self._observed is not None and self._observed == self.digest()

    def put(self, document: Sequence[Command]) -> None:
        """Replace the table, in one transaction."""
        self._nft.run(document)
        self._wanted, self._observed = _digest(document), self.digest()

    def remove(self) -> None:
        """Remove the table, whether it is there or not; first take the interface down."""
        self._wanted = self._observed = None
        self._nft.run(removal(self.interface))

    def digest(self) -> str | None:
        """What is in the kernel, in short: equal while nobody changes it. None: no table."""
        table = table_of(self.interface)
        if table not in self._nft.tables():
            return None
        try:
            return observed_digest(self._nft.run([{"list": {"table": table._asdict()}}]))
        except OperationFailed:  # it has gone in between
            return None


def observed_digest(listing: Iterable[dict[str, Any]]) -> str:
    """SHA-256 of a listed table without what differs from one listing to the next (handles, counters, metainfo)."""
    return _digest([_stable(element) for element in listing if "metainfo" not in element])


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _stable(inner) for key, inner in value.items() if key not in _VOLATILE}
        for unordered in kept.keys() & {"elem", "set"}:
            if isinstance(kept[unordered], list):
                kept[unordered].sort(key=repr)
        return kept
    return [_stable(inner) for inner in value] if isinstance(value, list) else value


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
