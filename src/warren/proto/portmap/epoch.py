"""Whether a gateway has forgotten its mappings since it last spoke: the epochs of PCP and NAT-PMP."""

from __future__ import annotations

from typing import Literal

_SLACK_S = 2  # both RFCs


class Epoch:
    """The clock of one gateway, in one protocol, against ours (``now``, seconds)."""

    __slots__ = ("_client_s", "_kind", "_server_s")

    def __init__(self, kind: Literal["pcp", "nat-pmp"]) -> None:
        self._kind = kind
        self._server_s: int | None = None
        self._client_s = 0.0

    def is_reset_by(self, epoch_s: int, now: float) -> bool:
        """Take the epoch of an answer. True: the gateway began anew in between, and has lost what it held."""
        last_s, self._server_s = self._server_s, epoch_s
        client_delta, self._client_s = now - self._client_s, now
        if last_s is None:
            return False
        server_delta = epoch_s - last_s
        if self._kind == "nat-pmp":  # RFC 6886 §3.6
            return epoch_s + _SLACK_S < last_s + client_delta * 7 / 8
        if server_delta < 0:  # RFC 6887 §8.5: by one second it may go back
            return server_delta < -1
        return (
            client_delta + _SLACK_S < server_delta - server_delta / 16
            or server_delta + _SLACK_S < client_delta - client_delta / 16
        )
