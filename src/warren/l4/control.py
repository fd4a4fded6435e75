"""What the agent and the stream process say to each other, and the process's end of it.

Messages are msgpack behind four bytes of length, over a Unix stream socket. One agent counts: a newer connection ends
the older one. When the agent goes away everything stays as it is, until the next one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

import msgspec

from warren import log
from warren.errors import OperationFailed, WarrenError
from warren.l4 import listening
from warren.l4.config import Config, Listen, Status
from warren.l4.kinds import Goal, Refused, Unanswered
from warren.l4.overlay import HostSockets
from warren.l4.serve import Server
from warren.linux.peers import peer_of
from warren.model.tunnel import IPAddress

VERSION: Final = 2
"""Of these messages and of the Config: an agent ends a process that speaks another one, and starts its own."""
MESSAGE_BYTES_MAX: Final = 64 << 20
"""A Config of 65,536 entries with a hundred prefixes each."""
ANSWER_S: Final = 5.0
"""How long the agent has for an answer."""
QUESTIONS_MAX: Final = 1024
"""Waiting for answers at the same time; further ones are not put."""
CHANGES_S: Final = 0.1
"""Changes of states within that time are told once."""
_LENGTH: Final = struct.Struct("!I")
_log = log.get("streams")


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True):
    pass


class Hello(_Message, frozen=True, kw_only=True):
    """First, from the process."""

    version: int
    release: str
    """Of Warren."""
    nest: str
    """Whose sockets are used for the overlay; empty: the host's."""


class Configure(_Message, frozen=True, kw_only=True):
    number: int
    config: Config


class Ask(_Message, frozen=True, kw_only=True):
    """For the Status."""

    number: int


class Report(_Message, frozen=True, kw_only=True):
    """To Configure and Ask."""

    number: int
    status: Status
    problem: str = ""
    """Why the configuration was not taken up in whole."""


class Changed(_Message, frozen=True, kw_only=True):
    """The state of an entry did."""


class Question(_Message, frozen=True, kw_only=True):
    """To the agent: which overlay addresses has ``place``? With a ``protocol``: at which of them does the policy let
    this node reach ``port``?
    """

    number: int
    place: str
    """A name, or an address."""
    protocol: Literal["", "tcp", "udp"] = ""
    port: int = 0


class Answer(_Message, frozen=True, kw_only=True):
    number: int
    addresses: tuple[str, ...]
    problem: str = ""
    """Why there is none, a sentence."""
    refused_as: str = "unresolved"
    """Under which of :data:`~warren.l4.config.REASONS` that counts."""


class Stop(_Message, frozen=True, kw_only=True):
    """End, with all streams."""


ToProcess = Configure | Ask | Answer | Stop
ToAgent = Hello | Report | Changed | Question


def pack(message: ToProcess | ToAgent) -> bytes:
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> bytes:
    """The next message. Raises EOFError or OSError when there is none."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MESSAGE_BYTES_MAX:
        raise EOFError
    return await reader.readexactly(length)


class Control:
    """The process's end, at the Unix socket ``path``. ``stop`` is called when the agent says so."""

    def __init__(self, path: Path, hello: Hello, stop: Callable[[], None]) -> None:
        self.server: Server | None = None
        """Has to be there before :meth:`open`."""
        self._path = path
        self._hello = hello
        self._stop = stop
        self._listener: asyncio.Server | None = None
        self._known = (0, 0)
        self._agent: asyncio.StreamWriter | None = None
        self._questions: dict[int, asyncio.Future[Sequence[IPAddress]]] = {}
        self._number = 0
        self._telling: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Raises OperationFailed."""
        sock = await listening.listen(Listen(path=str(self._path)), HostSockets())
        self._known = listening.identity(str(self._path))
        self._listener = await asyncio.start_unix_server(self._serve, sock=sock)

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        listening.unlink(str(self._path), self._known)
        if self._listener is not None:
            self._listener.close()
        self._drop(self._agent)
        if self._listener is not None:
            await self._listener.wait_closed()

    def changed(self) -> None:
        """Tell the agent that the state of an entry did."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(CHANGES_S, self._tell)

    async def resolve(self, place: str, goal: Goal | None = None) -> Sequence[IPAddress]:
        """Ask the agent for the overlay addresses of ``place``; with a ``goal`` for those at which the policy lets this
        node reach it. An address is its own answer where no agent says anything: the firewalls decide then.

        Raises Refused; Unanswered for a name where no agent says anything.
        """
        try:
            return await self._asked(place, goal)
        except Unanswered:
            with contextlib.suppress(ValueError):
                return (ip_address(place),)
            raise

    async def _asked(self, place: str, goal: Goal | None) -> Sequence[IPAddress]:
        agent = self._agent
        if agent is None:
            raise Unanswered(f"the name {place} cannot be looked up: the agent does not run")
        if len(self._questions) >= QUESTIONS_MAX:
            raise Unanswered(f"the name {place} cannot be looked up: too many names are being looked up")
        self._number += 1
        number = self._number
        answered: asyncio.Future[Sequence[IPAddress]] = asyncio.get_running_loop().create_future()
        self._questions[number] = answered
        question = Question(number=number, place=place)
        if goal is not None:
            question = Question(number=number, place=place, protocol=goal.protocol, port=goal.port)
        agent.write(pack(question))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await answered
        except TimeoutError:
            raise Unanswered(f"the name {place} cannot be looked up: the agent does not answer") from None
        finally:
            del self._questions[number]

    def _tell(self) -> None:
        self._telling = None
        if self._agent is not None:
            self._agent.write(pack(Changed()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, uid = peer_of(writer.get_extra_info("socket"))
        if uid not in {0, os.geteuid()}:
            _log.warning("a program of user %d wanted to control the streams: refused", uid)
            writer.transport.abort()
            return
        older, self._agent = self._agent, writer
        self._drop(older)
        writer.write(pack(self._hello))
        try:
            while True:
                await self._heard(msgspec.msgpack.decode(await read(reader), type=ToProcess), writer)
        except (OSError, EOFError):
            pass
        except msgspec.DecodeError as error:
            _log.warning("the agent said something that is not understood: %s", error)
        finally:
            if self._agent is writer:
                self._drop(writer)
            writer.transport.abort()

    async def _heard(self, message: ToProcess, writer: asyncio.StreamWriter) -> None:
        server = self.server
        if server is None:
            raise EOFError
        match message:
            case Configure():
                problem = ""
                try:
                    await server.configure(message.config)
                except WarrenError as error:
                    problem = str(error)
                writer.write(pack(Report(number=message.number, status=server.status(), problem=problem)))
            case Ask():
                writer.write(pack(Report(number=message.number, status=server.status())))
            case Answer():
                self._answered(message)
            case Stop():
                self._stop()
        await writer.drain()

    def _answered(self, answer: Answer) -> None:
        waiting = self._questions.get(answer.number)
        if waiting is None or waiting.done():
            return
        if answer.problem or not answer.addresses:
            waiting.set_exception(Refused(answer.refused_as, answer.problem or "it has no address"))
        else:
            waiting.set_result(tuple(ip_address(text) for text in answer.addresses))

    def _drop(self, agent: asyncio.StreamWriter | None) -> None:
        """It is not the agent any more: what was asked of it is asked in vain."""
        if agent is None:
            return
        agent.transport.abort()
        if self._agent is agent:
            self._agent = None
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(Unanswered("the agent has just ended"))


async def connect(path: Path) -> socket.socket:
    """To the process at ``path``, which has to be this user's or root's. Raises OperationFailed or OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(path))
        _, uid = peer_of(sock)
        if uid not in {0, os.geteuid()}:
            raise OperationFailed(f"user {uid} answers on {path}: remove it, nobody else has anything to do there")
    except BaseException:
        with contextlib.suppress(OSError):
            sock.close()
        raise
    return sock
