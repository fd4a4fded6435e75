"""The words of path selection: where packets leave from, where they go, and both together (RFC 8445 §4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warren.model.tunnel import IPAddress, TransportAddress

CandidateKind = Literal["host", "stated", "mapped", "srflx", "prflx", "relay"]


@dataclass(frozen=True, slots=True)
class Base:
    """Where packets of this node leave from: an address of one of its interfaces, a relay's allocation, or a socket of
    its own that was opened to get through a hard NAT.
    """

    kind: Literal["host", "relay", "socket"] = "host"
    address: IPAddress | None = None
    """The local address; None with a relay."""
    interface: int = 0
    """The index of its interface."""
    relay: str = ""
    """The name of the relay whose allocation it is; the allocation's own address is a candidate like any other."""
    socket: int = 0
    """The number that the data plane gave to the socket."""

    def __str__(self) -> str:
        match self.kind:
            case "relay":
                return f"relay {self.relay}"
            case "socket":
                return f"{self.address} (socket {self.socket})"
        return str(self.address)


@dataclass(frozen=True, slots=True)
class RemoteCandidate:
    """A transport address at which a peer may answer."""

    kind: CandidateKind
    address: TransportAddress


@dataclass(frozen=True, slots=True)
class Path:
    """A base and where it sends to: a candidate pair. Over our own relay's allocation ``remote`` is where the relay
    sends to.
    """

    base: Base
    remote: TransportAddress
    remote_kind: CandidateKind = "prflx"

    @property
    def relayed(self) -> bool:
        return self.base.kind == "relay" or self.remote_kind == "relay"

    def __str__(self) -> str:
        return f"{self.base} → {self.remote}"
