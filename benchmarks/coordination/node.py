"""One node as a coordinator sees it: TLS, WebSocket, proof, record, reports; and what it has been sent, counted.

The session is the real client's (:class:`warren.proto.control.client.ClientSession`) and so are the waits between
attempts. Documents are counted, not read: verifying five thousand maps is what five thousand machines are for.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec

from benchmarks.coordination.frames import PING, Frames, binary
from warren.api.node_backoff import Backoff
from warren.api.trust import Trusted
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, NodeRecord
from warren.model.verified import sign
from warren.proto.control import messages
from warren.proto.control.client import ClientSession, EnrolRequest, State
from warren.proto.control.client_events import Ended, Opened, Published, RefusedByCoordinator

HANDSHAKE_WITHIN_S: Final = 20.0
PING_EVERY_S: Final = 20.0
"""As the real node's link does."""
_UPDATE: Final = msgspec.msgpack.encode({"type": "update"})[1:]
_RECEIVED_AT: Final = 128
"""Where ``struct tcp_info`` of Linux has ``tcpi_bytes_received``."""


class _Head(msgspec.Struct, tag_field="type", tag="update"):
    """An Update whose documents stay as they came."""

    revision: int
    more: bool = False
    put: list[msgspec.Raw] = []


_head: Final = msgspec.msgpack.Decoder(_Head)


@dataclass
class Counts:
    """What came in, over all connections of a node."""

    wire_bytes: int = 0
    """Of TCP: with TLS and its handshakes."""
    updates: int = 0
    update_bytes: int = 0
    documents: int = 0
    connections: int = 0


@dataclass(frozen=True)
class Place:
    """Where the nodes of a run go."""

    trusted: Trusted
    network: VerifyKey
    secret: bytes
    members: int


@dataclass
class Node:
    """A node across its connections. :meth:`live` keeps it connected until it is cancelled."""

    number: int
    place: Place
    enrolled: bool = False
    revision: int = 0
    reached_at: float = 0.0
    """When :attr:`revision` was complete."""
    opened_at: float = 0.0
    """When it was let in the last time."""
    published: int = 0
    """The version of its record that the coordinator has stored."""
    version: int = 0
    counts: Counts = field(default_factory=Counts)
    failures: dict[str, int] = field(default_factory=dict)
    connection: Connection | None = None

    def __post_init__(self) -> None:
        self.key = SigningKey(self.number.to_bytes(32))
        self.address = f"127.{64 + (self.number >> 14)}.{self.number >> 7 & 127}.{self.number % 128 + 1}"
        self.chance: Callable[[], float] = random.Random(self.number).random
        self._backoff = Backoff(self.chance)
        self._backoff.members = self.place.members
        self.mapped = asyncio.Event()
        """Set once the first map is complete."""

    async def live(self) -> None:
        """Connect, and again whenever the connection is lost, with the waits of the real client."""
        while True:
            connection = Connection(self)
            began = time.monotonic()
            try:
                await connection.open()
                self.connection = connection
                why = await connection.over
            except (OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
            finally:
                connection.close()
                self.connection = None
            if connection.opened:
                wait_s = self._backoff.lost(time.monotonic() - began, elsewhere=False)
            else:
                wait_s = self._backoff.failed()
                self.failures[why] = self.failures.get(why, 0) + 1
            await asyncio.sleep(wait_s)

    def is_open(self) -> bool:
        return self.connection is not None and self.connection.opened

    def publish(self) -> None:
        """A new record, as when an address has changed."""
        self.version = max(self.version + 1, int(time.time()))
        if self.connection is not None:
            self.connection.publish()

    def record(self) -> NodeRecord:
        """As a dual-stack host behind a NAT writes it."""
        high, low = self.number >> 8 & 255, self.number & 255
        addresses = (f"10.{high}.{low}.7", f"2001:db8:{high:x}:{low:x}:211:22ff:fe33:4455")
        return NodeRecord(
            network=self.place.network.raw,
            version=self.version,
            node=self.key.verify_key.raw,
            wireguard_key=self.key.verify_key.raw[::-1],
            candidates=tuple(Candidate(kind="host", address=address, port=51820) for address in addresses),
            reachability="hidden-dual-stack",
        )

    def report(self) -> messages.Report:
        """Its peers are what a node talks to, not all there are."""
        names = ("interface wg0", "address 6", "address 4", "routes", "policy", "dns", "peers")
        return messages.Report(
            uptime_s=time.monotonic(),
            version="benchmark",
            system="Linux 6.1 x86_64",
            revision=self.revision,
            reachability="hidden-dual-stack",
            interfaces=(messages.Interface(name="eth0", mac="02:00:00:00:00:01", addresses=("10.0.0.7", "fe80::1")),),
            tasks=tuple(messages.Task(name=name, state="done") for name in names),
            peers=tuple(
                messages.Peering(node=self.key.verify_key.raw, endpoint="192.0.2.7:51820", handshake_age_s=60.0)
                for _ in range(20)
            ),
        )


class Connection(asyncio.Protocol):
    """One connection. ``over`` is done with the reason when it has ended."""

    def __init__(self, node: Node) -> None:
        loop = asyncio.get_running_loop()
        self.opened = False
        self.over: asyncio.Future[str] = loop.create_future()
        self._node = node
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._report_every_s = 60.0
        url = node.place.trusted.url.removeprefix("https://")
        self._host, _, self._port = url.rpartition(":")
        self._frames = Frames(url, messages.PATH, messages.SUBPROTOCOL)
        self._session = ClientSession(
            network=node.place.network,
            key=node.key,
            certificate_sha256=node.place.trusted.certificate_sha256,
            now=time.monotonic(),
            since=node.revision,
            enrol=None if node.enrolled else EnrolRequest(node.place.secret, f"node-{node.number:05d}"),
            version="benchmark",
        )

    async def open(self) -> None:
        """Raises OSError or TimeoutError."""
        await self._loop.create_connection(
            lambda: self,
            self._host,
            int(self._port),
            ssl=self._node.place.trusted.context,
            server_hostname="",
            ssl_handshake_timeout=HANDSHAKE_WITHIN_S,
            local_addr=(self._node.address, 0),
        )

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        if self._transport is not None:
            self._count_wire(self._transport)
            self._transport.abort()
            self._transport = None

    def publish(self) -> None:
        self._session.publish(sign(self._node.record(), self._node.key).envelope, time.monotonic())
        self._send()

    def wire_bytes(self) -> int:
        """Received on this connection so far."""
        return 0 if self._transport is None else _wire_bytes(self._transport)

    # asyncio's

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._node.counts.connections += 1
        self._transport.write(self._frames.request)

    def data_received(self, data: bytes) -> None:
        try:
            received = self._frames.receive(data)
        except OSError as error:
            self._end(str(error))
            return
        for message in received:
            if self._session.state is State.OPEN and message[1 : 1 + len(_UPDATE)] == _UPDATE:
                self._update(message)
            else:
                self._session.receive(message, time.monotonic())
                self._heed()
        for answer in self._frames.take_answers():
            self._write(answer)
        if received:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection was lost: {exc}" if exc else "the connection was lost")

    # Ours

    def _update(self, message: bytes) -> None:
        node, head = self._node, _head.decode(message)
        node.counts.updates += 1
        node.counts.update_bytes += len(message)
        node.counts.documents += len(head.put)
        if not head.more:
            node.revision, node.reached_at = head.revision, time.monotonic()
            node.mapped.set()

    def _heed(self) -> None:
        node = self._node
        for event in self._session.take_events():
            match event:
                case Opened():
                    self.opened = node.enrolled = True
                    node.opened_at = time.monotonic()
                    self._report_every_s = event.report_every_s
                    self._after("report", event.report_every_s * node.chance(), self._report)
                    self._after("ping", PING_EVERY_S * node.chance(), self._ping)
                    if node.published < node.version or not node.version:
                        node.version = node.version or int(time.time())
                        self._session.publish(sign(node.record(), node.key).envelope, time.monotonic())
                case Published():
                    node.published = event.version
                case RefusedByCoordinator():
                    node.failures[f"refused: {event.refused.kind}"] = (
                        node.failures.get(f"refused: {event.refused.kind}", 0) + 1
                    )
                case Ended():
                    self._end(event.why)

    def _report(self) -> None:
        self._after("report", self._report_every_s, self._report)
        self._session.report(self._node.report(), time.monotonic())
        self._send()

    def _ping(self) -> None:
        self._after("ping", PING_EVERY_S, self._ping)
        self._write(PING)

    def _after(self, what: str, wait_s: float, call: Callable[[], None]) -> None:
        self._timers[what] = self._loop.call_later(wait_s, call)

    def _send(self) -> None:
        for message in self._session.take_transmits():
            self._write(binary(message))

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _end(self, why: str) -> None:
        self._session.end(why)
        if not self.over.done():
            self.over.set_result(why)

    def _count_wire(self, transport: asyncio.Transport) -> None:
        self._node.counts.wire_bytes += _wire_bytes(transport)


def _wire_bytes(transport: asyncio.Transport) -> int:
    wire: Any = transport.get_extra_info("socket")
    try:
        information = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
    except OSError:  # gone already
        return 0
    return int(struct.unpack_from("=Q", information, _RECEIVED_AT)[0])
