"""The stream process as the agent sees it: started once, it outlives the agent, and the next one attaches to it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self

import msgspec

from warren import __version__, log
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.l4 import control
from warren.l4.config import Config, Status
from warren.l4.control import VERSION, Answer, Ask, Changed, Configure, Hello, Question, Report, Stop, ToAgent
from warren.l4.kinds import Judge
from warren.linux.peers import peer_of
from warren.linux.processes import Outliving

_log = log.get("streams")

HELLO_S: Final = 5.0
ANSWER_S: Final = 30.0
"""To configure is to open each entry in turn, some in sockets that another process makes."""
STOP_S: Final = 5.0
GONE_S: Final = 1.0
"""From the end of the connection to that of the process."""

Resolver = Callable[[str], Sequence[str]]


def _nobody(name: str) -> Sequence[str]:
    raise OperationFailed(f"the name {name} cannot be looked up: the agent is just starting")


def _nothing(*_: object) -> None:
    return None


class StreamProcess:
    """Use from one event loop. Dropping it, or the end of the process that holds it, leaves the streams as they are."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        process: Outliving,
    ) -> None:
        self.pid = process.pid
        self.resolver: Resolver = _nobody
        """Answers the process's questions: overlay addresses of a member's or service's name. May raise a
        WarrenError, whose sentence is then the reason why a stream is refused.
        """
        self.judge: Judge = _nothing
        """Answers whether what a program asks for may be reached."""
        self.changed = asyncio.Event()
        """Set when the state of an entry did; whoever waits for it clears it."""
        self._writer = writer
        self._process = process
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._gone = False
        self._reading = asyncio.create_task(self._read(reader), name="stream process")

    @classmethod
    async def attach_or_start(cls, run: Path, *, nest: Path | None) -> Self:
        """The one of the run directory ``run`` (``streams.sock``), started if none answers; it has its sockets of the
        overlay from the helper at ``nest`` (None: the host's). One of another release, or with another nest, is ended
        first. Raises OperationFailed.
        """
        path = run / "streams.sock"
        found = await cls._attach(path, None)
        if found is not None:
            process, hello = found
            if (hello.version, hello.release, hello.nest) == (VERSION, __version__, _text(nest)):
                return process
            _log.info("the stream process that runs is not like this one: it is ended, with its streams")
            await process.close()
        started = await _start(run, nest)
        found = await cls._attach(path, started)
        if found is None:
            await started.kill()
            raise OperationFailed("the stream process ended at once; the log says more")
        return found[0]

    async def configure(self, config: Config) -> Status:
        """Raises Unreachable when the process is gone, OperationFailed when a part could not be done."""
        self._number += 1
        report = await self._asked(Configure(number=self._number, config=config), self._number)
        if report.problem:
            raise OperationFailed(report.problem)
        return report.status

    async def status(self) -> Status:
        """Raises Unreachable when the process is gone."""
        self._number += 1
        return (await self._asked(Ask(number=self._number), self._number)).status

    async def wait_closed(self) -> None:
        """Return when the process is gone, for whatever reason, or listens to another agent."""
        await asyncio.wait([self._reading])
        await self._process.ended(GONE_S)

    async def close(self) -> None:
        """End the process with all its streams; harmless when it is gone."""
        if not self._gone:
            self._writer.write(control.pack(Stop()))
        if not await self._process.ended(STOP_S):
            await self._process.kill()
        await self.detach()

    async def detach(self) -> None:
        """Let go of it: the streams go on."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @classmethod
    async def _attach(cls, path: Path, started: Outliving | None) -> tuple[Self, Hello] | None:
        """None when nobody answers there."""
        try:
            sock = await control.connect(path)
        except OSError:
            return None
        pid = peer_of(sock).pid
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        try:
            async with asyncio.timeout(HELLO_S):
                hello = msgspec.msgpack.decode(await control.read(reader), type=Hello)
        except (OSError, EOFError, TimeoutError, msgspec.DecodeError) as error:
            await _discard(writer)
            if isinstance(error, EOFError | ConnectionError):
                return None
            raise OperationFailed(
                f"process {pid} answers on {path}, and not as a stream process does: end it and try again"
            ) from None
        except BaseException:
            await _discard(writer)
            raise
        try:
            return cls(reader, writer, started or Outliving(pid)), hello
        except ProcessLookupError:
            await _discard(writer)
            return None

    async def _asked(self, message: Configure | Ask, number: int) -> Report:
        if self._gone:
            raise Unreachable("the stream process has ended")
        waiting: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            self._writer.write(control.pack(message))
            async with asyncio.timeout(ANSWER_S):
                return await waiting
        except TimeoutError:
            raise Unreachable(f"the stream process does not answer (its number is {self.pid})") from None
        finally:
            del self._waiting[number]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                self._heard(msgspec.msgpack.decode(await control.read(reader), type=ToAgent))
        except (OSError, EOFError):
            pass
        except msgspec.DecodeError as error:
            _log.warning("the stream process said something that is not understood: %s", error)
        finally:
            self._gone = True
            self._writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(Unreachable("the stream process has just ended"))

    def _heard(self, message: ToAgent) -> None:
        match message:
            case Report():
                waiting = self._waiting.get(message.number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Changed():
                self.changed.set()
            case Question():
                self._writer.write(control.pack(self._answer(message)))
            case Hello():
                pass

    def _answer(self, question: Question) -> Answer:
        number, place = question.number, question.place
        try:
            addresses = (place,) if _is_address(place) else tuple(self.resolver(place))
        except WarrenError as error:
            return Answer(number=number, addresses=(), problem=str(error))
        if not addresses:
            return Answer(number=number, addresses=(), problem=f"there is no member or service {place}")
        if not question.protocol:
            return Answer(number=number, addresses=addresses)
        objections = {one: self.judge(ip_address(one), question.protocol, question.port) for one in addresses}
        usable = tuple(one for one in addresses if objections[one] is None)
        objection = objections[addresses[0]]
        if usable or objection is None:
            return Answer(number=number, addresses=usable)
        return Answer(number=number, addresses=(), refused_as=objection[0], problem=objection[1])


def _is_address(place: str) -> bool:
    try:
        ip_address(place)
    except ValueError:
        return False
    return True


def _text(nest: Path | None) -> str:
    return "" if nest is None else str(nest)


async def _start(run: Path, nest: Path | None) -> Outliving:
    """Start it, and wait until it listens. Raises OperationFailed with its reason."""
    command = [sys.executable, "-m", "warren.l4", "--run", str(run), *(["--nest", str(nest)] if nest else [])]
    return await Outliving.start(command, "the stream process")


async def _discard(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
