"""What goes wrong with programs that carry streams on lab hosts: stopped and continued, out of descriptors or disk."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from tests.support.stream_world import processes
from warren.lab import Host


@contextlib.contextmanager
def stopped(host: Host, *patterns: str) -> Iterator[None]:
    """Those processes of the host (:func:`~tests.support.stream_world.processes`) do nothing until the block ends."""
    numbers = [number for pattern in patterns for number in processes(host, pattern)]
    assert len(numbers) >= len(patterns), f"{patterns} of {host.name}: {numbers}"
    host.run(["kill", "-STOP", *numbers])
    try:
        yield
    finally:
        host.run(["kill", "-CONT", *numbers])


def descriptors(host: Host, pattern: str) -> int:
    """How many the one process of that pattern has."""
    (number,) = processes(host, pattern)
    return len(list(Path(f"/proc/{number}/fd").iterdir()))


@contextlib.contextmanager
def full_disk(host: Host, directory: Path) -> Iterator[None]:
    """Nothing more can be written there until the block ends; ``directory`` is a file system of its own, and small."""
    ballast = directory / "ballast"
    host.run(["sh", "-c", f"cat /dev/zero > {ballast}"], check=False)
    try:
        yield
    finally:
        host.run(["rm", ballast])


def small_disk(host: Host, directory: Path, kilobytes: int = 1024) -> None:
    """Put a file system of that size over ``directory``, which is made."""
    host.run(["mkdir", "-p", "-m", "700", directory])
    host.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "none", directory])


def said_and_ended(address: str, port: int, pieces: Sequence[bytes], pause_s: float = 0.0) -> tuple[bytes, str]:
    """Connect, send the pieces with pauses between them, then listen: what came, and how it ended (``end``, ``reset``,
    ``refused``, ``open`` after a time in which everything should have).
    """
    said = b""
    try:
        with socket.create_connection((address, port), 20) as stream:
            stream.settimeout(30)
            for piece in pieces:
                stream.sendall(piece)
                time.sleep(pause_s)
            while data := stream.recv(1 << 16):
                said += data
        return said, "end"
    except ConnectionRefusedError:
        return said, "refused"
    except (ConnectionResetError, BrokenPipeError):
        return said, "reset"
    except TimeoutError:
        return said, "open"


LAST: Final = b"bye"


def serve_first_bytes(address: str, port: int, log: Path) -> None:
    """A server, for ever: what comes up to LAST, in hex, is a line of ``log`` for each stream, and goes back."""
    with socket.create_server((address, port), backlog=100) as listener, log.open("a", buffering=1) as file:
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                data = b""
                while not data.endswith(LAST) and (more := connection.recv(1 << 16)):
                    data += more
                file.write(f"{data.hex()}\n")
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
