"""What the stream process is told to do, as values: they travel to it as msgpack, whole, and it makes the difference.

An *entry* is one thing that takes streams (or flows of datagrams) and where they then go. There are two sides: ``host``
is the machine's own network; ``overlay`` is the other members' (for a rootless node a namespace of its own, else the
same stack). Addresses in here are text in canonical form.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["host", "overlay"]


class _Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    pass


class Listen(_Value, frozen=True, kw_only=True):
    """A place to listen. ``path``: a Unix socket (mode 0600, in place of a dead one); nothing else counts then."""

    side: Side = "host"
    protocol: Literal["tcp", "udp"] = "tcp"
    address: str = ""
    """Empty: everywhere, one dual-stack socket."""
    port: int = 0
    path: str = ""
    freebind: bool = False
    """The address may come later (IP_FREEBIND)."""
    beside: tuple[str, ...] = ()
    """Addresses of this host at which another process of ours has that port, and keeps it when this is everywhere."""


class Backend(_Value, frozen=True, kw_only=True):
    """Where streams go. ``name`` is for people: a member's name, or the target as it was written."""

    name: str
    side: Side
    host: str = ""
    """An address, or on the host's side a name that the host resolves."""
    port: int = 0
    path: str = ""
    """A Unix socket; of Caddy, which goes by its ``port``, the one that stands for that."""
    connector_port: int = 0
    """If not 0, streams go there instead of ``port``, with the client's address in front (PROXY protocol v2)."""
    proxy_out: bool = False
    """Tell the target the client's address (PROXY protocol v2)."""


class Health(_Value, frozen=True, kw_only=True):
    """Of an entry with one backend: while connecting to it fails, the entry does not listen."""

    every_s: float
    """An entry whose stream could not be opened is unhealthy at once, until a check succeeds."""


class Limits(_Value, frozen=True, kw_only=True):
    """Who may come in, and how much."""

    sources: tuple[str, ...] = ()
    """Prefixes; empty: all."""
    rate: float | None = None
    """New ones a second of one source (IPv4 address, IPv6 /64); the burst is ten seconds' worth, at least ten."""
    streams_max: int = 4096
    """Streams, or flows of datagrams, at the same time; one source alone has 80 % of them at most, see
    :mod:`warren.l4.shares`.
    """


class Ruled(_Value, frozen=True, kw_only=True):
    """What a rule of the policy says of those sources."""

    allow: bool
    sources: tuple[str, ...]
    """Prefixes."""


class Closed(_Value, frozen=True, kw_only=True):
    """Addresses that streams do not lead to from the host's side, by whatever name they are found. ``what`` goes on
    after "ADDRESS is".
    """

    prefix: str
    what: str


class Opened(_Value, frozen=True, kw_only=True):
    """Of what is closed, what the operator of this node names nevertheless: first and last port."""

    prefix: str
    ports: tuple[int, int] = (1, 65_535)


class Way(_Value, frozen=True, kw_only=True):
    """Where streams go that have come in, best backend first; the next one is tried when one cannot be connected to."""

    backends: tuple[Backend, ...] = ()
    refusal: str = ""
    """Why there is no backend now, a sentence; each stream is then refused with it."""
    refused_as: str = "policy"
    """Under which of :data:`REASONS` those are counted."""
    connect_timeout_s: float = 5.0
    idle_s: float | None = None
    """None: streams never; flows of datagrams after a minute."""
    closed: tuple[Closed, ...] = ()
    opened: tuple[Opened, ...] = ()


class Name(_Value, frozen=True, kw_only=True):
    """One TLS name of an entry of kind ``sni``, with its own way and limits. ``ended``: Caddy is the backend, and
    learns who the client is (:mod:`warren.l4.peers`).
    """

    domain: str
    """In lower case, without a dot at the end."""
    connector: str
    """For counters and the log."""
    way: Way
    limits: Limits = Limits()
    ended: bool = False


class Entry(_Value, frozen=True, kw_only=True):
    """One thing that takes streams.

    =============== ==============================================================================================
    kind            what it does
    =============== ==============================================================================================
    ``plain``       streams or flows to the way's backends
    ``ftp``         the same for the control connections of FTP, and for the data connections that they speak of
    ``tftp``        flows of TFTP: the answers come from another port
    ``socks``       SOCKS5 (RFC 1928); where to is the client's to say; the overlay only
    ``sni``         TLS streams by the name in the ClientHello; what names none of ``names`` is refused
    ``ended``       streams to Caddy at the way's backend, which learns who the client is, as for ended names of ``sni``
    ``transparent`` what comes for addresses behind this (rootless) node: the listener is transparent (IP_TRANSPARENT),
                    each stream goes on to the address it was meant for, from the host's side
    =============== ==============================================================================================
    """

    id: str
    """Unique, and shown to people: ``service web``, ``connector shop``, ``forward 127.0.0.1:8080``; for networks with
    the network's name in front: ``home: service web``."""
    kind: Literal["plain", "ftp", "tftp", "socks", "sni", "ended", "transparent"] = "plain"
    listen: tuple[Listen, ...]
    way: Way = Way()
    limits: Limits = Limits()
    health: Health | None = None
    proxy_in: bool = False
    """Clients begin with PROXY protocol v2."""
    proxy_in_from: tuple[str, ...] = ()
    """Prefixes that may listen in with PROXY protocol v2 at a :class:`Listen` whose port is CONNECTOR_PORT."""
    clients: tuple[Ruled, ...] | None = None
    """Of a service: whom the policy lets use it, the first rule that fits decides. The firewall asks the same of each
    packet, so this is for streams that are open when it changes. None: not known.
    """
    names: tuple[Name, ...] = ()
    owner_uid: int | None = None
    """Of ``socks`` on loopback: whose connections alone are taken (root's are, too); None: everybody's."""
    known_as: str = ""
    """Of ``ftp``: the IPv4 address by which clients outside know this host, which has a private one (1:1 NAT)."""
    allowed: tuple[str, ...] = ()
    """Of ``transparent`` and ``socks``: prefixes that may be gone to; without any, nowhere."""


class Config(_Value, frozen=True, kw_only=True):
    """All there is to do; what is not in it any more ends, with its streams. Entries that are unchanged are untouched;
    of one whose ``way``, ``limits`` or ``health`` alone changed the listeners stay, and so do streams but those whose
    backend in the overlay is no more in the way, or whose client is no more among ``clients``.
    """

    entries: tuple[Entry, ...] = ()
    peer_lookup: str = ""
    """Path of the Unix socket where Caddy tells of WebSockets; empty: nobody asks."""


class PartState(_Value, frozen=True, kw_only=True):
    """What came for one of the connectors that share an entry; see :class:`EntryState`."""

    open: int = 0
    opened: int = 0
    refused: dict[str, int] = {}
    last_refusal: str = ""
    bytes_in: int = 0
    bytes_out: int = 0


class EntryState(_Value, frozen=True, kw_only=True):
    """How it stands with one entry."""

    id: str
    state: Literal["listening", "unhealthy", "failed"]
    reason: str = ""
    """Of ``unhealthy`` and ``failed``: a sentence with what to do."""
    places: tuple[str, ...] = ()
    """Where it really listens."""
    open: int = 0
    opened: int = 0
    refused: dict[str, int] = {}
    """By reason, see :data:`REASONS`."""
    last_refusal: str = ""
    bytes_in: int = 0
    """From clients."""
    bytes_out: int = 0
    """To clients."""
    parts: dict[str, PartState] = {}
    """Of kind ``sni``, by :attr:`Name.connector`; all of it is in the counts above, too."""


class Status(_Value, frozen=True, kw_only=True):
    """All entries, in the order of the Config."""

    entries: tuple[EntryState, ...] = ()


REASONS = (
    "source",
    "rate",
    "streams",
    "policy",
    "no-backend",
    "unresolved",
    "connect",
    "timeout",
    "proxy-header",
    "protocol",
    "resources",
)
"""Why streams are refused: not in the source list, too fast, too many, the policy (or another :attr:`Way.refusal`, or
:attr:`Way.closed`), nobody serves, the name does not resolve, the connection was refused, nobody answered in time, the
PROXY header or the protocol (SOCKS, TLS, FTP) was broken, this host is out of descriptors or memory.
"""
