"""A member of a network that breaks its rules; to be called inside a lab host."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from warren.api.node_connection import Connection, Doors, close
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import NodeRecord, Ticket
from warren.model.envelope import seal
from warren.model.tickets import read_ticket
from warren.proto.control.messages import (
    PROTOCOL_VERSION,
    Authenticate,
    Enrol,
    FromNode,
    Publish,
    Published,
    Refused,
    Report,
    Task,
    Welcome,
    authentication_bytes,
    enrolment_bytes,
    pack,
    unpack_to_node_untrusted,
)

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What the coordinator answered: "published", the kind of a refusal, or "lost" for a connection that ended."""

    key_theft: str
    too_many_candidates: str
    multicast: str
    large_record: str
    large_report: str
    flood: str
    absurd: str


def claim(ticket: str, name: str, victims_key: bytes, addresses: tuple[str, ...]) -> Outcome:
    """Become a member, and claim one thing after another; ``addresses`` last."""
    return asyncio.run(_claim(_Insider(ticket), name, victims_key, addresses))


async def _claim(insider: _Insider, name: str, victims_key: bytes, addresses: tuple[str, ...]) -> Outcome:
    own = os.urandom(32)
    await insider.enrol(name)
    many = [f"192.0.2.{n % 250}" for n in range(1, 4000)]
    large = Report(
        uptime_s=1.0, tasks=tuple(Task(name="x" * 256, state="done", reason="y" * 1024) for _ in range(1000))
    )
    return Outcome(
        key_theft=await insider.answer(insider.record(victims_key, addresses)),
        too_many_candidates=await insider.answer(insider.record(own, many)),
        multicast=await insider.answer(insider.record(own, ["224.0.0.1"])),
        large_record=await insider.answer(insider.record(own, [], comment="x" * 12_000)),
        large_report=await insider.answer(large),
        flood=await insider.answer(*(insider.record(own, []) for _ in range(300))),
        absurd=await insider.answer(insider.record(own, addresses)),
    )


class _Insider:
    def __init__(self, ticket: str) -> None:
        self._ticket: Ticket = read_ticket(ticket, time.time()).document
        self._network = VerifyKey(self._ticket.network)
        self._key = SigningKey(os.urandom(32))
        self._doors = Doors(time.time)
        self._version = 0

    async def enrol(self, name: str) -> None:
        connection, welcome = await self._connect()
        bound = (self._network, welcome.nonce, connection.certificate_sha256, self._ticket.secret)
        await connection.send(
            pack(
                Enrol(
                    protocol=PROTOCOL_VERSION,
                    network=self._network.raw,
                    node=self._key.verify_key.raw,
                    signature=self._key.sign(enrolment_bytes(*bound)),
                    secret=self._ticket.secret,
                    name=name,
                )
            )
        )
        await _next(connection)
        await close(connection)

    def record(self, key: bytes, addresses: Sequence[str], **more: object) -> Publish:
        """Made by hand, since Warren's own struct refuses to be made so."""
        self._version += 1
        payload = msgspec.msgpack.encode(
            {
                "network": self._network.raw,
                "version": self._version,
                "node": self._key.verify_key.raw,
                "wireguard_key": key,
                "candidates": [{"kind": "host", "address": address, "port": 51820} for address in addresses],
                **more,
            }
        )
        return Publish(record=seal(NodeRecord.KIND, payload, self._key))

    async def answer(self, *messages: FromNode) -> str:
        """Send them on a connection of their own; the first answer that is more than a Published, or the last one."""
        connection, welcome = await self._connect()
        bound = (self._network, welcome.nonce, connection.certificate_sha256)
        signature = self._key.sign(authentication_bytes(*bound))
        node = self._key.verify_key.raw
        await connection.send(
            pack(
                Authenticate(
                    protocol=PROTOCOL_VERSION, network=self._network.raw, node=node, signature=signature, since=2**40
                )
            )
        )
        for message in messages:
            await connection.send(pack(message))
        said, count = "", 0
        while count < len(messages):
            match await _next(connection):
                case Published():
                    said, count = "published", count + 1
                case Refused(kind=kind):
                    said, count = kind, len(messages)
                case None:
                    said, count = said if said == "limit" else "lost", len(messages)
                case _:
                    pass  # the map
        await close(connection)
        return said

    async def _connect(self) -> tuple[Connection, Welcome]:
        connection = await self._doors.open(self._ticket.coordinators[0])
        welcome = await _next(connection)
        assert isinstance(welcome, Welcome)
        return connection, welcome


async def _next(connection: Connection) -> object:
    """The next message; None: the connection is lost."""
    message = await connection.receive(asyncio.Event(), PATIENCE_S)
    return None if message is None else unpack_to_node_untrusted(message)
