"""What the kinds of entries have in common: who came in, what they are given to work with, and how they refuse."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypedDict, Unpack

from warren.l4.config import Backend, Entry, EntryState, Limits, Listen, Way
from warren.l4.overlay import OverlaySockets
from warren.model.tunnel import IPAddress, TransportAddress


class Refused(Exception):
    """A stream is not carried: ``reason`` of :data:`~warren.l4.config.REASONS`, and a sentence for the log."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Unanswered(Refused):
    """The agent, who had to be asked, has not said anything; reason ``unresolved``."""

    def __init__(self, sentence: str) -> None:
        super().__init__("unresolved", sentence)


class Goal(NamedTuple):
    """What at an address somebody wants to reach."""

    protocol: Literal["tcp", "udp"]
    port: int


Judge = Callable[[IPAddress, Literal["tcp", "udp"], int], tuple[str, str] | None]
"""Why a stream to that address, by that protocol and to that port, is not to be opened: one of
:data:`~warren.l4.config.REASONS` and a sentence; None: nothing speaks against it.
"""


@dataclass(slots=True)
class Incoming:
    """A stream that was accepted and is within the limits. Whoever has it owns ``sock`` (non-blocking)."""

    sock: socket.socket
    client: TransportAddress | None
    """Who it is, by PROXY protocol where the entry takes that; None: a program of this host, on a Unix socket."""
    local: TransportAddress | None
    """Where it came in (of a transparent listener: where it was meant to go)."""
    listen: Listen


class Connected(NamedTuple):
    """A connection to a backend; whoever has it owns ``sock`` (non-blocking, connected)."""

    sock: socket.socket
    backend: Backend


class Carried(Protocol):
    """A stream that is carried."""

    idle_s: float | None
    """When nothing moves for so long it is ended; may be changed, unless it is None."""


class Carrying(TypedDict, total=False):
    """What may be said of how a stream is carried."""

    idle_s: float | None
    """See :class:`Carried`."""
    head: bytes
    """Goes to ``outgoing`` first."""
    answer: bytes
    """The same to ``incoming``."""
    ended: Callable[[], None] | None
    """Called when all is over."""


class Tools(Protocol):
    """What the process gives to the kinds; one for each entry, so that counts and log lines are the entry's."""

    overlay: OverlaySockets

    async def connect(
        self, way: Way, client: TransportAddress | None, local: TransportAddress | None = None
    ) -> Connected:
        """Connect to the first backend that takes it, PROXY header sent where one is due (``local``: where the client
        came in, for that header). Raises Refused.
        """

    def carry(
        self,
        incoming: socket.socket,
        outgoing: socket.socket,
        **how: Unpack[Carrying],
    ) -> Carried | None:
        """Move bytes both ways until both ends are done; returns at once. Both sockets are the carrier's from now on.

        The end of one direction (FIN) is passed on and the other goes on; a reset of one side resets the other. By what
        is returned its ``idle_s`` can be changed.
        """

    def refuse(self, incoming: Incoming, why: Refused) -> None:
        """Count it, log it (not more than a few lines a second), and reset the stream."""

    def count(self, why: Refused, client: TransportAddress | None) -> None:
        """The counting and logging of :meth:`refuse` alone."""

    def count_opened(self) -> Callable[[], None]:
        """One more stream or flow is open; call what is returned when it has ended. The process itself does this for
        each accepted stream.
        """

    def watch(self, sock: socket.socket, readable: Callable[[], None]) -> None:
        """Call ``readable`` from the event loop whenever ``sock`` has something, until :meth:`unwatch`."""

    def unwatch(self, sock: socket.socket) -> None:
        """Before it is closed."""

    def count_bytes(self, from_clients: int, to_clients: int) -> None: ...

    def admit(self, client: TransportAddress | None, limits: Limits) -> None:
        """Raises Refused when ``limits`` do not let it in; else it counts against the rate."""

    def enter(self, incoming: Incoming, limits: Limits, name: str) -> None:
        """``incoming`` is for a part of the entry (the connector of a TLS name) with limits and counts of its own, and
        counted there too from now on, until it is over. Raises Refused, which :meth:`refuse` counts there as well.
        """

    async def listen(self, where: Listen) -> socket.socket:
        """A bound socket, listening if it is of TCP. Raises OperationFailed with what to do (port in use …)."""

    async def resolve(self, name: str) -> Sequence[IPAddress]:
        """Overlay addresses of a member's or service's name, asked of the agent. Raises Refused (``unresolved``)."""

    async def permitted(self, place: IPAddress | str, goal: Goal) -> Sequence[IPAddress]:
        """The overlay addresses of ``place``, an address or a name, at which the policy lets this node reach ``goal``:
        asked of the agent. Without one an address is answered as it is, and the firewalls decide.

        Raises Refused: ``policy``, or ``unresolved``, then as :class:`Unanswered` where nobody could be asked.
        """


class StreamKind(Protocol):
    """One kind of stream: called for each that came in. It ends the stream, hands it on, or raises Refused, after
    which the caller resets it.
    """

    def __call__(self, incoming: Incoming, entry: Entry, tools: Tools) -> Awaitable[None]: ...


class Running(Protocol):
    """An entry at work. Streams of TCP have one implementation, flows of datagrams another."""

    entry: Entry

    async def open(self) -> None:
        """Listen. What fails is in :meth:`state`, and tried again every few seconds."""

    async def update(self, entry: Entry) -> None:
        """The same id and kind; listeners that stay the same stay open, and so do streams."""

    def state(self) -> EntryState: ...

    async def close(self) -> None:
        """Stop listening and end all streams."""
