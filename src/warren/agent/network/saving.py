"""Keeps on disk what a start without a coordinator needs. A disk that takes nothing is told, and tried again."""

from __future__ import annotations

from typing import Final

import msgspec

from warren.agent.clock import KEPT_EVERY_S
from warren.agent.network.apply import Ledger
from warren.agent.network.coordination import Coordination
from warren.agent.network.due import RETRY_S
from warren.agent.state import NetworkState
from warren.errors import OperationFailed
from warren.model.tunnel import IPNetwork

_TASK: Final = "state"
_CLAIMS_MAX: Final = 4096
_COORDINATORS_MAX: Final = 16


class Saver:
    """``now`` is a clock that never goes back, in seconds."""

    def __init__(self, state: NetworkState, ledger: Ledger) -> None:
        self._state = state
        self._ledger = ledger
        self._time_at: float | None = None
        self._retry_at: float | None = None
        self.documents_due = False
        """The map has changed since it was written."""
        self.relay_access_due = False
        """There are other credentials for relays than those that were written."""

    def note(self, now: float, **changes: object) -> None:
        """Remember changed settings, and write them before returning if the disk takes them."""
        try:
            self._state.write(msgspec.structs.replace(self._state.settings, **changes))
        except OperationFailed as error:
            self._failed(error, now)

    def save(self, coordination: Coordination, claims: tuple[IPNetwork, ...], now: float) -> None:
        """Write what has changed: settings at once, the time now and then."""
        if self._retry_at is not None and now < self._retry_at:
            return
        settings = self._state.settings
        fresh = msgspec.structs.replace(
            settings,
            name=coordination.name,
            coordinators=coordination.coordinators[:_COORDINATORS_MAX],
            claims=tuple(str(network) for network in claims[:_CLAIMS_MAX]) or settings.claims,
        )
        time_due = self._time_at is None or now >= self._time_at
        if time_due:
            fresh = msgspec.structs.replace(fresh, time=coordination.kept_time())
        try:
            if self.documents_due:
                documents = coordination.documents
                self._state.write_documents(documents.revision, documents.envelopes())
                self.documents_due = False
            if self.relay_access_due:
                self._state.write_relay_access(coordination.relay_access)
                self.relay_access_due = False
            self._state.write(fresh)
        except OperationFailed as error:
            self._failed(error, now)
            return
        if time_due:
            self._time_at = now + KEPT_EVERY_S
        self._retry_at = None
        self._ledger.done(_TASK)

    def due_at(self) -> float | None:
        """When :meth:`save` is to be called by time alone."""
        return self._retry_at if self._retry_at is not None else self._time_at

    def _failed(self, error: OperationFailed, now: float) -> None:
        self._ledger.failed(_TASK, error)
        self._retry_at = now + RETRY_S
