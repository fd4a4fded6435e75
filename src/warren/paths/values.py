"""The words of path selection: where packets leave from, where they go, and both together (RFC 8445 §4)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Network
from typing import Literal

from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress

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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else a host knows of where it is."""

    on_link: tuple[IPNetwork, ...] = ()
    """Prefixes of the links that it is on."""
    nat64: IPv6Network | None = None
    """The prefix of the network's NAT64 (RFC 7050), where there is no IPv4 (also: no IPv4 base)."""
    link_mtu: tuple[tuple[int, int], ...] = ()
    """Interface index and MTU; 1500 where nothing is said."""
    overlays: tuple[IPNetwork, ...] = ()
    """What is reached through tunnels: no path may lead there, since it would lead into itself."""
    relayed: tuple[tuple[str, TransportAddress], ...] = ()
    """Names of relays and the addresses that they allocated for us: which family each base of kind ``relay`` has."""
    relay_uplinks: tuple[tuple[str, int], ...] = ()
    """Names of relays, and the index of the interface by which this host gets to the allocation; as far as is known."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may want otherwise. Times in seconds."""

    pace_s: float = 0.02
    """Between two first checks of one peer (Ta, RFC 8445 §14.2)."""
    node_checks_per_s: float = 400.0
    """Checks to addresses that have not answered yet, of all peers together; peers that have a path are not counted."""
    peer_checks_per_s: float = 40.0
    """The same for one peer: whoever makes up candidates aims no more than that at a third party."""
    keepalive_s: float = 15.0
    """An idle path is kept open this often; less if a NAT on it forgets sooner."""
    keepalive_min_s: float = 1.0
    hard: bool = True
    """Port prediction and birthday punching (paths/hard.py)."""
    hard_sockets: int = 256
    hard_probes: int = 1024
    """Ports that are tried in one attempt."""
    hard_probes_per_s: float = 100.0
    hard_again_s: float = 30.0
    """After an attempt that failed; doubled each time, up to an hour."""
    kept_alive_max: int = 1024
    """Idle paths that are kept open: those used last."""
