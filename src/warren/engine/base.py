"""The Engine protocol: what moves packets, whoever moves them (userspace, kernel, rootless, memory).

An engine owns one tunnel interface. It is told *what* (:class:`~warren.model.tunnel.TunnelChange`) and answers *how
it is* (:class:`~warren.model.tunnel.TunnelStatus`); addresses and routes of the interface are not its business. Every
implementation passes ``tests/support/engine_conformance.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from warren.model.tunnel import TunnelChange, TunnelStatus


@runtime_checkable
class Engine(Protocol):
    """One running tunnel.

    Errors: every method raises :class:`~warren.errors.Unreachable` when the data plane is gone (the engine object is
    then of no more use) and :class:`~warren.errors.OperationFailed` when the host refused (the engine stays usable
    and unchanged).
    """

    @property
    def interface(self) -> str:
        """The name of the network interface."""

    async def configure(self, change: TunnelChange) -> None:
        """Apply ``change`` atomically: on an error nothing has changed."""

    async def status(self) -> TunnelStatus:
        """The present configuration and counters, all of one moment."""

    async def statistics(self) -> Mapping[str, int]:
        """Counters of the data plane by name (drops by reason, handshakes …); the names are listed in
        docs/reference.md.
        """

    async def close(self) -> None:
        """Stop moving packets and remove the interface. Closing twice is allowed."""
