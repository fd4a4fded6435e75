"""Many nodes in one process, as a coordinator sees them: ``python -m benchmarks.coordinator_swarm``.

Each has keys of its own, an address of its own (127.64.0.0/10, so that the coordinator's limits per source are those
of different machines), a TLS connection that trusts the pinned certificate only, a WebSocket, and the session of the
real client. Documents are counted and not verified: five thousand verifiers would not fit one machine.

Orders come as JSON, a line each, on stdin; each is answered by a line on stdout. Times are of the monotonic clock,
which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import msgspec
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from warren.api.trust import Trusted, establish_trust
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Candidate, NodeRecord, sign
from warren.proto.control import messages
from warren.proto.control.client import ClientSession, EnrolRequest
from warren.proto.control.client_events import Ended, Opened, Published, RefusedByCoordinator

ATTEMPTS_MAX: Final = 20
ATTEMPT_WITHIN_S: Final = 60.0
_RETRY_S = 0.2
_POLL_S = 0.002


class _Head(msgspec.Struct):
    """The beginning of a message."""

    type: str
    revision: int = 0
    more: bool = False


_head: Final = msgspec.msgpack.Decoder(_Head)


@dataclass
class Node:
    """What outlives a connection."""

    number: int
    key: SigningKey
    address: str
    enrolled: bool = False
    revision: int = 0
    reached_at: float = 0.0
    """When :attr:`revision` was reached."""
    received: int = 0
    """Bytes after TLS, since they were last asked for."""
    published: bool = False
    connection: Connection | None = None


class Connection(asyncio.Protocol):
    """One connection of one node. ``opened`` is done when the coordinator took it as a member."""

    def __init__(self, node: Node, session: ClientSession, url: str) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._node = node
        self._session = session
        self._transport: asyncio.Transport | None = None
        self._message = bytearray()
        self._websocket = ClientProtocol(
            parse_uri(url), subprotocols=[Subprotocol(messages.SUBPROTOCOL)], max_size=messages.MESSAGE_BYTES_MAX
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._websocket.send_request(self._websocket.connect())
        self._write()

    def data_received(self, data: bytes) -> None:
        self._node.received += len(data)
        self._websocket.receive_data(data)
        for event in self._websocket.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            elif isinstance(event, Response) and self._websocket.handshake_exc is not None:
                self._fail(f"HTTP status {event.status_code}")
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"lost: {error}")

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            self._message += frame.data
            if frame.fin:
                message = bytes(self._message)
                self._message.clear()
                self._take(message)
        elif frame.opcode is Opcode.CLOSE:
            self._fail("closed by the coordinator")

    def _take(self, message: bytes) -> None:
        """Of updates only the head is read: a machine of its own would read the rest."""
        head = _head.decode(message)
        if head.type != "update":
            self._session.receive(message, time.monotonic())
            self._follow()
        elif not head.more:
            self._node.revision, self._node.reached_at = head.revision, time.monotonic()

    def _follow(self) -> None:
        node = self._node
        for event in self._session.take_events():
            match event:
                case Opened():
                    node.enrolled = True
                    if not self.opened.done():
                        self.opened.set_result(None)
                case Published():
                    node.published = True
                case RefusedByCoordinator(refused):
                    self._fail(f"{refused.kind}: {refused.detail}")
                case Ended(why):
                    self._fail(why)
        for message in self._session.take_transmits():
            self._websocket.send_binary(message)

    def publish(self, record: NodeRecord) -> None:
        self._session.publish(sign(record, self._node.key).envelope, time.monotonic())
        self._follow()
        self._write()

    def _write(self) -> None:
        if self._transport is not None:
            for data in self._websocket.data_to_send():
                if data:
                    self._transport.write(data)

    def _fail(self, why: str) -> None:
        if self._node.connection is self:
            self._node.connection = None
        if not self.opened.done():
            self.opened.set_exception(ConnectionError(why))
        self.abort()


@dataclass
class Swarm:
    """The nodes of this process. ``first`` is the number of the first one."""

    url: str
    coordinator: VerifyKey
    network: VerifyKey
    secret: bytes
    nodes: list[Node]
    errors: dict[str, int] = field(default_factory=dict)

    async def connect(self, concurrency: int, whole: bool) -> dict[str, Any]:
        """All nodes that are not connected; those that are new enrol. ``whole``: as if they had no map."""
        trusted = await establish_trust([self.url], self.coordinator)
        gate = asyncio.Semaphore(concurrency)
        latencies: list[float] = []

        async def one(node: Node) -> None:
            async with gate:
                began = time.monotonic()
                await self._open(node, trusted, whole)
                latencies.append(time.monotonic() - began)

        began = time.monotonic()
        await asyncio.gather(*(one(node) for node in self.nodes if node.connection is None))
        return {"began": began, "ended": time.monotonic(), "latencies": latencies, "errors": self.errors}

    async def _open(self, node: Node, trusted: Trusted, whole: bool) -> None:
        for attempt in range(ATTEMPTS_MAX):
            try:
                async with asyncio.timeout(ATTEMPT_WITHIN_S):
                    await self._attempt(node, trusted, whole)
                return
            except (OSError, TimeoutError) as error:
                why = str(error) or type(error).__name__
                self.errors[why] = self.errors.get(why, 0) + 1
                if attempt == ATTEMPTS_MAX - 1:
                    raise
                await asyncio.sleep(_RETRY_S)

    async def _attempt(self, node: Node, trusted: Trusted, whole: bool) -> None:
        session = ClientSession(
            network=self.network,
            key=node.key,
            certificate_sha256=trusted.certificate_sha256,
            now=time.monotonic(),
            since=0 if whole else node.revision,
            enrol=None if node.enrolled else EnrolRequest(self.secret, f"node-{node.number:05d}"),
        )
        if whole:
            node.revision = 0
        url = "wss" + self.url.removeprefix("https") + messages.PATH
        host, port = self.url.removeprefix("https://").split(":")
        connection = Connection(node, session, url)
        await asyncio.get_running_loop().create_connection(
            lambda: connection, host, int(port), ssl=trusted.context, local_addr=(node.address, 0)
        )
        node.connection = connection
        try:
            await connection.opened
        except BaseException:
            connection.abort()
            raise

    async def publish(self) -> dict[str, Any]:
        """Every node tells how it is reached; returns when the coordinator has stored it all."""
        for node in self.nodes:
            if node.connection is not None:
                node.published = False
                node.connection.publish(_record(self.network, node))
        await _until(lambda: all(node.published for node in self.nodes))
        return {"ended": time.monotonic()}

    async def watch(self, revision: int) -> dict[str, Any]:
        """Wait until every node has the map of ``revision``. Returns when each had it."""
        await _until(lambda: all(node.revision >= revision for node in self.nodes))
        return {"times": [node.reached_at for node in self.nodes]}

    async def count(self) -> dict[str, Any]:
        """The bytes that each node received since the last time, and the CPU this process took so far."""
        received = [node.received for node in self.nodes]
        for node in self.nodes:
            node.received = 0
        return {"received": received, "cpu_s": time.process_time()}

    async def drop(self, most: int) -> dict[str, Any]:
        """Cut the connections of at most ``most`` nodes, without a word."""
        for node in self.nodes[:most]:
            if node.connection is not None:
                node.connection.abort()
        await _until(lambda: all(node.connection is None for node in self.nodes[:most]))
        return {}

    async def lost(self) -> dict[str, Any]:
        """Wait until all connections are lost."""
        await _until(lambda: all(node.connection is None for node in self.nodes))
        return {}


def _record(network: VerifyKey, node: Node) -> NodeRecord:
    """As a dual-stack host behind a NAT writes it."""
    return NodeRecord(
        network=network.raw,
        version=1,
        node=node.key.verify_key.raw,
        wireguard_key=node.key.verify_key.raw[::-1],
        candidates=tuple(
            Candidate(kind="host", address=address, port=51820)
            for address in (f"10.{node.number >> 8 & 255}.{node.number & 255}.7", f"2001:db8:{node.number + 1:x}::7")
        ),
        reachability="hidden-dual-stack",
    )


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is about thousands of nodes
        await asyncio.sleep(_POLL_S)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    setup = json.loads(await lines.readline())
    first = setup["first"]
    nodes = [
        Node(first + n, SigningKey(b"bench%27d" % (first + n)), _address(first + n)) for n in range(setup["nodes"])
    ]
    swarm = Swarm(
        setup["url"],
        VerifyKey.from_text(setup["coordinator"]),
        VerifyKey.from_text(setup["network"]),
        bytes.fromhex(setup["secret"]),
        nodes,
    )
    print(json.dumps({"ready": len(nodes)}), flush=True)
    while line := await lines.readline():
        order = json.loads(line)
        work: Callable[..., Awaitable[dict[str, Any]]] = getattr(swarm, order.pop("do"))
        try:
            answer = await work(**order)
        except (OSError, TimeoutError) as error:
            answer = {"failed": f"{type(error).__name__}: {error}", "errors": swarm.errors}
        print(json.dumps(answer), flush=True)


def _address(number: int) -> str:
    return f"127.{64 + (number >> 14)}.{number >> 7 & 127}.{number % 128 + 1}"


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
