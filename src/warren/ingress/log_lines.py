"""What Caddy says in its log (JSON, a line each): taken over into ours, and read for troubles with certificates."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from warren import log

LINE_BYTES_MAX: Final = 65_536
LINE_CHARACTERS_SHOWN: Final = 500
_ERROR_CHARACTERS: Final = 250
LINES_PER_MINUTE: Final = 60
"""Of Caddy's that go into our log; those beyond are counted, and still read."""
READ_BYTES: Final = 1 << 18
"""At a time; a quarter of what Caddy lets the file grow to."""
LOOK_EVERY_S: Final = 0.5

_log = log.get("caddy")
_CERTIFICATES: Final = ("tls.obtain", "tls.renew", "tls.issuance", "tls.cache.maintenance", "http.acme_client")
_RENEWAL: Final = "tls.renew"
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
_CHALLENGE_FAILED: Final = "challenge failed"
_OF_NO_INTEREST: Final = {
    "will retry",
    "validating authorization",
    "job failed",
    "unable to unlock",
    "unable to clean up lock in storage backend",
    "server shutdown",
    "looking up info for HTTP challenge",
}
"""Said again of what was said before, of its own shutdown, or of challenges that somebody else asked for."""


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
    """Which domains have no certificate, or one that is not renewed, and why: the last that Caddy said of each."""

    def __init__(self, left_s: Callable[[str], float | None] = lambda _: None) -> None:
        """``left_s``: how long the certificate of a domain is still valid; None: that is not known."""
        self._left_s = left_s
        self._troubles: dict[str, str] = {}
        self._not_renewed: set[str] = set()
        """Of those with troubles: they had a certificate."""
        self._challenges: dict[str, str] = {}
        """How the authority's last look at a domain failed: Caddy says it once, and then only that nothing is left."""

    def take(self, line: Line) -> bool:
        """Whether something has changed."""
        domain = line.identifier
        if not domain or not line.logger.startswith(_CERTIFICATES):
            return False
        if "successfully" in line.msg:
            self._challenges.pop(domain, None)
            self._not_renewed.discard(domain)
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
        (self._not_renewed.add if line.logger.startswith(_RENEWAL) else self._not_renewed.discard)(domain)
        changed = self._troubles.get(domain) != why
        self._troubles[domain] = why
        return changed

    def keep_only(self, domains: frozenset[str]) -> None:
        """The others are nobody's any more."""
        for known in (self._troubles, self._challenges):
            for domain in known.keys() - domains:
                del known[domain]
        self._not_renewed &= domains

    def trouble(self, domains: tuple[str, ...]) -> str | None:
        """A sentence about the first of them that has one."""
        domain = next((domain for domain in domains if domain in self._troubles), None)
        if domain is None:
            return None
        what = f"no certificate for {domain}"
        if domain in self._not_renewed and (left_s := self._left_s(domain)) is not None:
            what = f"the certificate for {domain} {_validity(left_s)}, and cannot be renewed"
        return f"{what}: {self._troubles[domain]}"[:LINE_CHARACTERS_SHOWN]


def _validity(left_s: float) -> str:
    """In steps that are worth a line of the log each."""
    if left_s <= 0:
        return "has expired"
    if left_s < _HOUR_S:
        return "is valid for less than an hour"
    if left_s < 2 * _DAY_S:
        hours = int(left_s // _HOUR_S)
        return f"is valid for {hours} more hour{'' if hours == 1 else 's'}"
    return f"is valid for {int(left_s // _DAY_S)} more days"


class LogFile:
    """Follows the file at ``path`` that Caddy writes its log to, and which it puts another in place of when it is long.

    A file, since Caddy does not find a listener again that was away for a while, and would wait for one that is slow.
    """

    def __init__(self, path: Path, heard: Callable[[Line], None]) -> None:
        self._path = path
        self._heard = heard
        self._file: BinaryIO | None = None
        self._partial = b""
        self._following: asyncio.Task[None] | None = None
        self._said = 0
        self._said_from = 0.0

    def open(self) -> None:
        """Take what was said before (while another looked after Caddy) without repeating it, and go on from there."""
        if self._begin_file():
            self._seek_near_end()
            for line in self._take():
                self._heard(line)
        self._following = asyncio.create_task(self._follow(), name="log of Caddy")

    async def close(self) -> None:
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        self._end_file()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._file is None and not self._begin_file():
                continue
            replaced = self._is_replaced()  # before the last of it is read
            for line in self._take():
                self._say(line)
                self._heard(line)
            if replaced:
                self._end_file()

    def _begin_file(self) -> bool:
        try:
            self._file = self._path.open("rb", buffering=0)
        except OSError:  # Caddy has not said anything yet
            return False
        return True

    def _end_file(self) -> None:
        file, self._file, self._partial = self._file, None, b""
        if file is not None:
            file.close()

    def _seek_near_end(self) -> None:
        file = self._file
        if file is not None and file.seek(0, os.SEEK_END) > READ_BYTES:
            file.seek(-READ_BYTES, os.SEEK_END)
        elif file is not None:
            file.seek(0)

    def _is_replaced(self) -> bool:
        try:
            return self._file is None or self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino
        except OSError:
            return True

    def _take(self) -> list[Line]:
        """The lines that are new; of a flood, the rest comes the next time."""
        if self._file is None:
            return []
        *whole, partial = (self._partial + self._file.read(READ_BYTES)).split(b"\n")
        self._partial = partial if len(partial) <= LINE_BYTES_MAX else b""
        return [line for line in map(read_line, whole) if line is not None]

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
