"""What Caddy says in its log (JSON, a line each): taken over into ours, and read for troubles with certificates."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from warren import log
from warren.errors import OperationFailed

LINE_BYTES_MAX: Final = 65_536
LINE_CHARACTERS_SHOWN: Final = 500
_ERROR_CHARACTERS: Final = 250
LINES_PER_MINUTE: Final = 60
"""Of Caddy's that go into our log; those beyond are counted, and still read."""
LOG_CONNECTIONS_MAX: Final = 8
"""Caddy opens one, and a second while it changes its configuration."""

_log = log.get("caddy")
_CERTIFICATES: Final = ("tls.obtain", "tls.renew", "tls.issuance", "tls.cache.maintenance", "http.acme_client")
_CHALLENGE_FAILED: Final = "challenge failed"
_OF_NO_INTEREST: Final = {
    "will retry",
    "validating authorization",
    "job failed",
    "unable to unlock",
    "unable to clean up lock in storage backend",
    "server shutdown",
}
"""Said again of what was said before, or of its own shutdown."""


class Line(msgspec.Struct, frozen=True):
    """Of the many fields, those that are looked at."""

    level: str = "info"
    logger: str = ""
    msg: str = ""
    error: Any = None
    identifier: str = ""
    challenge_type: str = ""

    @property
    def sentence(self) -> str:
        parts = (self.identifier, self.msg, "" if self.error is None else str(self.error))
        return ": ".join(part for part in parts if part)[:LINE_CHARACTERS_SHOWN]


def read_line(data: bytes) -> Line | None:
    """None for what is no log line."""
    try:
        return msgspec.json.decode(data, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Certificates:
    """Which domains have no certificate, and why: the last that Caddy said of each."""

    def __init__(self) -> None:
        self._troubles: dict[str, str] = {}
        self._challenges: dict[str, str] = {}
        """How the authority's last look at a domain failed: Caddy says it once, and then only that nothing is left."""

    def take(self, line: Line) -> bool:
        """Whether something has changed."""
        domain = line.identifier
        if not domain or not line.logger.startswith(_CERTIFICATES):
            return False
        if "successfully" in line.msg:
            self._challenges.pop(domain, None)
            return self._troubles.pop(domain, None) is not None
        if line.level != "error" or line.error is None or line.msg in _OF_NO_INTEREST:
            return False
        if line.msg == _CHALLENGE_FAILED:
            self._challenges[domain] = (
                f"the authority's {line.challenge_type} look at it failed ({str(line.error)[:_ERROR_CHARACTERS]}); "
                "let the name lead to this gateway, whose ports 80 and 443 have to be open to everybody"
            )
            return False
        why = self._challenges.get(domain) or f"{line.error}; it is tried again"
        trouble = f"no certificate for {domain}: {why}"[:LINE_CHARACTERS_SHOWN]
        changed = self._troubles.get(domain) != trouble
        self._troubles[domain] = trouble
        return changed

    def keep_only(self, domains: frozenset[str]) -> None:
        """The others are nobody's any more."""
        for known in (self._troubles, self._challenges):
            for domain in known.keys() - domains:
                del known[domain]

    def trouble(self, domains: tuple[str, ...]) -> str | None:
        return next((self._troubles[domain] for domain in domains if domain in self._troubles), None)


class LogSocket:
    """Where Caddy's log lines come in: a Unix socket at ``path`` (mode 0600, in place of a dead one)."""

    def __init__(self, path: Path, heard: Callable[[Line], None]) -> None:
        self._path = path
        self._heard = heard
        self._server: asyncio.Server | None = None
        self._readers: set[asyncio.Task[None]] = set()
        self._said = 0
        self._said_from = 0.0

    async def open(self) -> None:
        """Raises OperationFailed."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            sock.bind(os.fspath(self._path))
            self._path.chmod(0o600)
            self._server = await asyncio.start_unix_server(self._read, sock=sock, limit=LINE_BYTES_MAX)
        except OSError as error:
            sock.close()
            raise OperationFailed(f"{self._path} cannot be listened on: {error.strerror or error}") from None

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        self._path.unlink(missing_ok=True)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._readers) >= LOG_CONNECTIONS_MAX:
            writer.close()
            return
        self._readers.add(task)
        try:
            while True:
                try:
                    data = await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError as error:
                    await reader.readexactly(error.consumed)
                    continue
                if (line := read_line(data)) is not None:
                    self._say(line)
                    self._heard(line)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Caddy has closed it, or we end
        finally:
            self._readers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _say(self, line: Line) -> None:
        level = _level_of(line)
        if not _log.isEnabledFor(level):
            return
        now = asyncio.get_running_loop().time()
        if now - self._said_from >= 60:
            if self._said > LINES_PER_MINUTE:
                _log.warning("Caddy said %d more", self._said - LINES_PER_MINUTE)
            self._said, self._said_from = 0, now
        self._said += 1
        if self._said <= LINES_PER_MINUTE:
            _log.log(level, "Caddy: %s", line.sentence)


def _level_of(line: Line) -> int:
    """An error of Caddy's is a warning of ours: mostly that of an authority or of a domain, and it goes on. What it
    warns of (no OCSP, its own shutdown) matters to nobody.
    """
    if line.level in {"error", "panic", "fatal"} and line.msg not in _OF_NO_INTEREST:
        return logging.WARNING
    return logging.INFO if "successfully" in line.msg else logging.DEBUG
