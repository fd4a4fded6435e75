"""Direct paths over TCP between two members where UDP does not pass, or none that is large: offered, answered, punched,
given up.

::

    one side                                   other side
     │ path is relayed, UDP is blocked          │   or by UDP large packets get lost
     │ ◀──────────────── offer, no addresses ── │   only if it was the other side that noticed
     │ ── offer: my TCP addresses ────────────▶ │   by the coordinator, sealed with the check key
     │ ◀─────────── answer: my TCP addresses ── │   and both begin at once (tcp.py)

The addresses are those that a relay sees for TCP from the port of the tunnel's number, and the node's own. A bridge
stands for the connection, and the relayed path stays behind it for when it ends.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

import msgspec

from warren import log
from warren.model.tunnel import TransportAddress
from warren.reach.doors import Bridge

MAGIC: Final = b"warren tcp 1\0"
ADDRESSES_MAX: Final = 8
AFTER_S: Final = 2.0
"""The path has been one that wants it for so long."""
PUNCH_S: Final = 10.0
AGAIN_S: Final = 60.0
ASK_S: Final = 30.0
"""Between two requests that the other side may offer: an offer and its attempt take half of that."""
AGAIN_MAX_S: Final = 3600.0
_SEAL_BYTES: Final = 32

_log = log.get("reach")


class _Offer(msgspec.Struct, frozen=True, array_like=True):
    answers: bool
    addresses: tuple[tuple[str, int], ...]


@dataclass(slots=True)
class _Peer:
    wanted_since: float | None = None
    """By this side, which then says when it ends. None: only the other wants it."""
    task: asyncio.Task[None] | None = None
    bridge: Bridge | None = None
    failures: int = 0
    again_at: float = 0.0
    answered: asyncio.Future[tuple[TransportAddress, ...]] | None = field(default=None)


@dataclass(frozen=True, slots=True)
class TcpDoors:
    """What is needed of the world. ``mapped`` gives this node's TCP addresses, ``punch`` connects: to these addresses,
    with that check key, as the controlling side or not.
    """

    clock: Callable[[], float]
    mapped: Callable[[], Awaitable[Sequence[TransportAddress]]]
    punch: Callable[[Sequence[TransportAddress], bytes, bool], Awaitable[Bridge | None]]
    signal: Callable[[bytes, bytes], bool]
    changed: Callable[[bytes], None]
    """There is a bridge to that node now, or none any more."""


class TcpPaths:
    """Single owner, one event loop; never fails."""

    def __init__(self, node: bytes, doors: TcpDoors, key: Callable[[bytes], bytes | None]) -> None:
        """``node``: this one. ``key``: the check key with another."""
        self._node = node
        self._doors = doors
        self._key = key
        self._peers: dict[bytes, _Peer] = {}

    def bridge(self, node: bytes) -> TransportAddress | None:
        """Where the data plane sends what is for that node; None: there is no TCP path."""
        peer = self._peers.get(node)
        return None if peer is None or peer.bridge is None else peer.bridge.address

    def want(self, node: bytes) -> None:
        """UDP does not pass to ``node``, or not well. One of the two offers; the other asks it to."""
        peer = self._peers.setdefault(node, _Peer())
        if peer.wanted_since is None:
            peer.wanted_since = self._doors.clock()
        self._attempt(node, peer)

    def _attempt(self, node: bytes, peer: _Peer) -> None:
        if peer.task is not None or peer.bridge is not None or self._doors.clock() < peer.again_at:
            return
        if self._node < node:
            self._begin(node, peer, self._offer(node, peer))
        else:
            peer.again_at = self._doors.clock() + ASK_S
            self._send(node, (), answers=False)

    def wanted_since(self, node: bytes) -> float | None:
        """Since when this side wants one to that peer without a break; None: it does not."""
        peer = self._peers.get(node)
        return None if peer is None else peer.wanted_since

    def release(self, node: bytes) -> None:
        """Of this side: it wants it no more, there is a better path. What only the other wants stays, or each would end
        what the other begins.
        """
        if self.wanted_since(node) is not None:
            self.drop(node)

    def drop(self, node: bytes) -> None:
        """End it, whoever wants it: there is no such peer any more."""
        peer = self._peers.pop(node, None)
        if peer is not None:
            self._end(peer)

    def received(self, node: bytes, data: bytes) -> bool:
        """A signal. False: it is not one of these."""
        if not data.startswith(MAGIC):
            return False
        offer = self._open_untrusted(node, data)
        if offer is None:
            return True
        addresses = tuple(_addresses(offer))
        peer = self._peers.setdefault(node, _Peer())
        if offer.answers:
            if peer.answered is not None and not peer.answered.done():
                peer.answered.set_result(addresses)
        elif node < self._node and peer.task is None and peer.bridge is None:
            self._begin(node, peer, self._accept(node, peer, addresses))
        elif self._node < node and not addresses:
            self._attempt(node, peer)
        return True

    async def close(self) -> None:
        tasks = [peer.task for peer in self._peers.values() if peer.task is not None]
        for node in list(self._peers):
            self.drop(node)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, node: bytes, peer: _Peer, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            finally:
                if self._peers.get(node) is peer:
                    peer.task = None

        peer.task = asyncio.create_task(run(), name="TCP path")

    async def _offer(self, node: bytes, peer: _Peer) -> None:
        await asyncio.sleep(AFTER_S)
        own = await self._doors.mapped()
        peer.answered = asyncio.get_running_loop().create_future()
        theirs: tuple[TransportAddress, ...] = ()
        if own and self._send(node, own, answers=False):
            try:
                async with asyncio.timeout(PUNCH_S):
                    theirs = await peer.answered
            except TimeoutError:
                pass
        await self._punch(node, peer, theirs, controlling=True)

    async def _accept(self, node: bytes, peer: _Peer, theirs: tuple[TransportAddress, ...]) -> None:
        own = await self._doors.mapped()
        if own and self._send(node, own, answers=True):
            await self._punch(node, peer, theirs, controlling=False)

    async def _punch(self, node: bytes, peer: _Peer, theirs: Sequence[TransportAddress], *, controlling: bool) -> None:
        key = self._key(node)
        bridge = await self._doors.punch(theirs, key, controlling) if theirs and key is not None else None
        if bridge is None:
            peer.again_at = self._doors.clock() + min(AGAIN_S * 2**peer.failures, AGAIN_MAX_S)
            peer.failures = min(peer.failures + 1, 16)
            return
        peer.failures, peer.bridge = 0, bridge
        self._doors.changed(node)
        try:
            why = await bridge.closed
            _log.info("a TCP path has ended: %s", why)
        finally:
            bridge.close()
            peer.bridge = None
            if self._peers.get(node) is peer:
                self._doors.changed(node)

    def _end(self, peer: _Peer) -> None:
        if peer.task is not None:
            peer.task.cancel()

    # Signals

    def _send(self, node: bytes, own: Sequence[TransportAddress], *, answers: bool) -> bool:
        key = self._key(node)
        if key is None:
            return False
        offer = _Offer(answers, tuple((str(one.ip), one.port) for one in own[:ADDRESSES_MAX]))
        body = msgspec.msgpack.encode(offer)
        return self._doors.signal(node, MAGIC + _seal(key, self._node, node, body) + body)

    def _open_untrusted(self, node: bytes, data: bytes) -> _Offer | None:
        key, start = self._key(node), len(MAGIC)
        seal, body = data[start : start + _SEAL_BYTES], data[start + _SEAL_BYTES :]
        if key is None or not hmac.compare_digest(seal, _seal(key, node, self._node, body)):
            return None
        try:
            return msgspec.msgpack.decode(body, type=_Offer)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None


def _seal(key: bytes, sender: bytes, receiver: bytes, body: bytes) -> bytes:
    return hmac.digest(key, MAGIC + sender + receiver + body, "sha256")


def _addresses(offer: _Offer) -> Sequence[TransportAddress]:
    found = []
    for text, port in offer.addresses[:ADDRESSES_MAX]:
        try:
            ip = ip_address(text)
        except ValueError:
            continue
        if 0 < port < 65_536 and not (ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local):
            found.append(TransportAddress(ip, port))
    return found
