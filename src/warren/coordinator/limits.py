"""What the coordinator grants to whom before it knows them, and how long it waits for anybody.

A *source* is what one party can have many addresses of: an IPv4 address, or an IPv6 /64. Who asks for more than its
share is refused at once; nothing is queued for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

UNAUTHENTICATED_BODY_BYTES: Final = 64 << 10
BODY_BYTES: Final = 4 << 20
"""A desired state of 10,000 members and 4,096 rules takes some 2 MB."""
HEADER_BYTES: Final = 16 << 10
WRITE_BUFFER_BYTES: Final = 8 << 20
"""What may wait in one connection for a client that does not read: two of the largest messages."""
SOURCES_REMEMBERED: Final = 65_536
"""Sources whose rates are kept, some 20 MB; the one that was quiet longest makes room."""

_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, and then ``per_s`` a second."""

    burst: float
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The ceilings of one process; durations in seconds."""

    handshake_s: float = 5.0
    """For TLS, from the first byte to the last."""
    header_s: float = 5.0
    """For the first line and the headers of a request."""
    body_s: float = 30.0
    idle_s: float = 60.0
    """Between two requests on one connection."""
    write_s: float = 30.0
    """How long a client may leave unread what it is sent, once the buffers are full."""
    linger_s: float = 2.0
    """How long the rest of a refused body is still read, so that the client gets to see the refusal."""
    ping_s: float = 20.0
    """Between two WebSocket pings; an answer may take as long again."""
    connections: int = 20_000
    """In all; each costs about 100 KB. Lower when the process may not have as many files open."""
    unproven_per_source: int = 128
    """Connections of one source on which nobody has authenticated: the machines of one office start at once."""
    requests: Rate = Rate(burst=200, per_s=50.0)
    """Of one source, whatever they ask for; and again of one token."""
    sessions: Rate = Rate(burst=60, per_s=0.5)
    """Of one member: each may cost the whole map."""
    records: Rate = Rate(burst=100, per_s=1 / 3)
    """That one member publishes, in however many sessions: each goes to all members."""
    failures: Rate = Rate(burst=20, per_s=0.2)
    """Failed authentications of one source. A secret has 128 bits or more: this spares the log and the database."""


def source_of(address: str) -> str:
    """The source that ``address`` belongs to. An address in disguise (IPv4-mapped, RFC 4291 §2.5.5.2; NAT64, RFC 6052)
    counts as the IPv4 address that it is.
    """
    ip: IPv4Address | IPv6Address
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        if ip in _NAT64:
            return str(IPv4Address(int(ip) & 0xFFFF_FFFF))
        return str(IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)


class Rates:
    """How often each party did something: a token bucket per key, the least recently used forgotten first."""

    def __init__(self, rate: Rate, clock: Callable[[], float], *, remembered: int = SOURCES_REMEMBERED) -> None:
        self._rate = rate
        self._clock = clock
        self._remembered = remembered
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Count one more. 0: it is in order; otherwise it is not, and in how many seconds it will be."""
        wait = self.wait(key)
        if not wait:
            tokens, at = self._buckets[key]
            self._buckets[key] = (tokens - 1.0, at)
        return wait

    def wait(self, key: str) -> float:
        """The same without counting it."""
        now = self._clock()
        tokens, at = self._buckets.get(key, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + (now - at) * self._rate.per_s)
        self._buckets[key] = (tokens, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._rate.per_s

    def __len__(self) -> int:
        return len(self._buckets)


class Admission:
    """Counts the connections. Whoever is let in holds a :class:`Place` until the connection is over."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unproven: dict[str, int] = {}
        self.connections = 0
        self.refused = 0

    def enter(self, address: str) -> Place | None:
        """A place for a connection from ``address``; None: there is none, close it."""
        source = source_of(address)
        if (
            self.connections >= self._limits.connections
            or self._unproven.get(source, 0) >= self._limits.unproven_per_source
        ):
            self.refused += 1
            return None
        self.connections += 1
        self._unproven[source] = self._unproven.get(source, 0) + 1
        return Place(self, source)

    def count_proven(self, source: str) -> None:
        left = self._unproven[source] - 1
        if left:
            self._unproven[source] = left
        else:
            del self._unproven[source]

    def __len__(self) -> int:
        """The number of sources in the table: never more than there are connections."""
        return len(self._unproven)


class Place:
    """One connection's place among the others. Both methods may be called again; that changes nothing."""

    __slots__ = ("_admission", "_held", "_unproven", "source")

    def __init__(self, admission: Admission, source: str) -> None:
        self.source = source
        self._admission = admission
        self._held = self._unproven = True

    def proven(self) -> None:
        """Somebody has authenticated on it: it does not count against its source any more."""
        if self._unproven:
            self._unproven = False
            self._admission.count_proven(self.source)

    def leave(self) -> None:
        """The connection is over."""
        if self._held:
            self._held = False
            self._admission.connections -= 1
            self.proven()
