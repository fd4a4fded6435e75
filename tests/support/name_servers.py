"""Name servers for tests, which do as they are told, and questions to others by dnspython's own client."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Self

import dns.asyncquery
import dns.message
import dns.rdatatype

Behaviour = Callable[[bytes], list[bytes]]
"""The datagrams that answer a query."""

_PATIENCE_S = 30.0


def response_to(query: bytes, address: str, *, code: int = 0) -> bytes:
    """An answer with one A or AAAA record, or with a failure's code and none."""
    message = dns.message.from_wire(query)
    response = dns.message.make_response(message)
    response.set_rcode(dns.rcode.Rcode(code))
    if not code:
        kind = "AAAA" if ":" in address else "A"
        if message.question[0].rdtype == dns.rdatatype.from_text(kind):
            response.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", kind, address))
    return response.to_wire()


class NameServer:
    """Listens on UDP and TCP of an address of this host; remembers what it was asked."""

    def __init__(self, address: str, behaviour: Behaviour, *, port: int = 53) -> None:
        self.address = address
        self.behaviour = behaviour
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []
        self._port = port

    @property
    def names(self) -> list[str]:
        return [str(dns.message.from_wire(query).question[0].name) for query in self.asked]

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.setblocking(False)
        self._udp.bind((self.address, self._port))
        asyncio.get_running_loop().add_reader(self._udp, self._readable)
        self._tcp = await asyncio.start_server(self._connected, self.address, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._udp)
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def _readable(self) -> None:
        query, source = self._udp.recvfrom(65_535)
        for response in self._responses(query):
            self._udp.sendto(response, source)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        for response in self._responses(query):
            writer.write(len(response).to_bytes(2, "big") + response)
        writer.close()
        await writer.wait_closed()

    def _responses(self, query: bytes) -> list[bytes]:
        self.asked.append(query)
        responses = self.behaviour(query)
        self.answered += responses
        return responses


async def ask(
    server: str, name: str, kind: str = "AAAA", *, tcp: bool = False, source: str | None = None
) -> dns.message.Message:
    """The response of ``server`` (port 53) to a question with EDNS."""
    query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
    way = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await way(query, server, timeout=_PATIENCE_S, source=source)


def records(response: dns.message.Message) -> list[str]:
    """What the answer section says, without names and times."""
    return [str(record) for rrset in response.answer for record in rrset]


async def output_of(*command: str) -> str:
    """What a program of this host prints; an empty text when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(_PATIENCE_S):
        output, _ = await process.communicate()
    return output.decode() if process.returncode == 0 else ""
