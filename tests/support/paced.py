"""A stream that goes on for as long as a test wants, a little all the time in both directions, each byte of it checked.

Server and client are to be run in a child of their own on a lab host; the test tells the client by a file to stop, and
reads from another how far it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.stream_traffic import PATIENCE_S
from warren.lab import Host
from warren.lab.remote import Call

BLOCK: Final = 2_000
EVERY_S: Final = 0.02
LONGEST_S: Final = 120.0
"""Of the client, whatever happens to the test."""


def serve_back(address: str, port: int) -> None:
    """A server, for ever: what comes on a stream goes back on it at once; ends are passed on."""
    asyncio.run(_serve_back(address, port))


async def _serve_back(address: str, port: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(handle, address, port) as server:
        await server.serve_forever()


@dataclass(frozen=True, slots=True)
class Paced:
    """What became of one stream."""

    sent: int
    received: int
    intact: bool
    """Everything that was sent came back, in order and unchanged."""
    error: str
    arrivals: tuple[float, ...]
    """When bytes came back, by the machine's monotonic clock."""

    def longest_gap_s(self, after: float = 0.0, until: float = float("inf")) -> float:
        """The longest time without an arrival that was not over at ``after``, of those that began before ``until``."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return max((b - a for a, b in pairs if b > after and a < until), default=0.0)


def paced(address: str, port: int, seed: int, progress: Path, enough: Path) -> Paced:
    """Send a block now and then until there is a file ``enough``. ``progress`` says how many bytes came back."""
    sent, back = hashlib.sha256(), hashlib.sha256()
    arrivals: list[float] = []
    count = [0, 0]
    error = ""
    with socket.create_connection((address, port), PATIENCE_S) as stream:
        stream.settimeout(PATIENCE_S)

        def receive() -> None:
            nonlocal error
            try:
                while data := stream.recv(1 << 16):
                    back.update(data)
                    count[1] += len(data)
                    arrivals.append(time.monotonic())
                    progress.write_text(str(count[1]))
                error = "" if finished.is_set() else "it ended too early"
            except OSError as failure:
                error = f"{type(failure).__name__}: {failure}"

        finished = threading.Event()
        receiving = threading.Thread(target=receive)
        receiving.start()
        source = random.Random(seed)
        end = time.monotonic() + LONGEST_S
        with contextlib.suppress(OSError):  # what receives notices it, too
            while not enough.exists() and time.monotonic() < end and not error:
                block = source.randbytes(BLOCK)
                stream.sendall(block)
                sent.update(block)
                count[0] += len(block)
                time.sleep(EVERY_S)
            finished.set()
            stream.shutdown(socket.SHUT_WR)
        receiving.join()
    intact = not error and count[0] == count[1] and sent.digest() == back.digest()
    return Paced(count[0], count[1], intact, error, tuple(arrivals))


class PacedStream:
    """One from ``host`` to a :func:`serve_back`, in the background."""

    def __init__(self, host: Host, address: str, port: int, name: str) -> None:
        self._host = host
        self._progress = host.directory / f"{name}.progress"
        self._enough = host.directory / f"{name}.enough"
        seed = sum(name.encode())
        self._call: Call[Paced] = host.begin(paced, address, port, seed, self._progress, self._enough)
        self.wait_flows()

    @property
    def back(self) -> int:
        """How many bytes are back."""
        with contextlib.suppress(OSError, ValueError):
            return int(self._progress.read_text())  # it may be about to be written
        return 0

    def wait_flows(self, within_s: float = 40.0) -> None:
        """Until more has come back than was sent before now, surely. Raises OperationFailed."""
        enough = self.back + 20 * BLOCK
        self._host.wait_for(lambda: self._call.is_done or self.back >= enough, within_s)

    def end(self, *, by_itself: bool = False) -> Paced:
        """Stop sending, and see the end come back. ``by_itself``: it is expected to end without that, too early."""
        if not by_itself:
            self._enough.touch()
        return self._call.result(PATIENCE_S + 10.0)
