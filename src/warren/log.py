"""Log lines on stderr: one line per event, for people (``12:03:44 info  home is up``) or for programs (``--json``).

Whatever a line is made from, it stays one line and cannot drive a terminal: control, format and separator characters
are escaped. Secrets that were handed to :func:`hide` are replaced wherever they appear, also in what hooks and the
host reported.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from typing import TextIO

FORMAT_VARIABLE = "WARREN_LOG"
_ROOT = "warren"
_KEY_SHAPED = re.compile(r"[A-Za-z0-9+/]{43}=|[0-9A-Fa-f]{64}")
_HIDDEN_MAX = 200_000  # two spellings of the keys of 100,000 peers, the most a tunnel may have
_hidden: set[str] = set()


def get(name: str) -> logging.Logger:
    """The logger of one part of Warren, e.g. ``get("tunnel")``."""
    return logging.getLogger(f"{_ROOT}.{name}")


def configure(*, as_json: bool | None = None, prefix: str = "", stream: TextIO | None = None) -> None:
    """Send Warren's log lines to ``stream`` (stderr), each message after ``prefix``.

    Without ``as_json`` the environment says whether they are JSON (``WARREN_LOG=json``), so that the processes of one
    command agree. ``WARREN_DEBUG=1`` adds debug lines. Calling it again replaces the earlier choice.
    """
    if as_json is None:
        as_json = os.environ.get(FORMAT_VARIABLE) == "json"
    handler = _Lines(stream or sys.stderr)
    handler.setFormatter(JsonLines(prefix) if as_json else PlainLines(prefix))
    logger = logging.getLogger(_ROOT)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debugging() else logging.INFO)


def debugging() -> bool:
    """Whether the environment asks for debug lines and tracebacks."""
    return os.environ.get("WARREN_DEBUG", "") not in ("", "0")


def hide(*secrets: str) -> None:
    """Never show these texts in a line again (a key's base64 and hexadecimal forms).

    Only key-shaped texts are looked for, so that the cost of a line does not grow with the number of secrets; the
    memory of secrets is bounded, and beyond the bound every key-shaped text is hidden.
    """
    if len(_hidden) < _HIDDEN_MAX:
        _hidden.update(secret.lower() if len(secret) == 64 else secret for secret in secrets)


def printable(text: str) -> str:
    """``text`` as one harmless line: hidden secrets replaced, characters that do not print escaped like in Python
    source.
    """
    text = _KEY_SHAPED.sub(_conceal, text)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _conceal(match: re.Match[str]) -> str:
    found = match.group()
    known = (found.lower() if len(found) == 64 else found) in _hidden
    return "(hidden)" if known or len(_hidden) >= _HIDDEN_MAX else found


class _Lines(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Whoever read the lines has gone; the tunnel goes on."""


class PlainLines(logging.Formatter):
    """``HH:MM:SS level message`` in local time."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():<7} {printable(self._prefix + record.getMessage())}"


class JsonLines(logging.Formatter):
    """One JSON object per line: ``time`` (RFC 3339, UTC, ms), ``level``, ``part`` and ``message``."""

    def __init__(self, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return json.dumps(
            {
                "time": f"{seconds}.{int(record.msecs):03d}Z",
                "level": record.levelname.lower(),
                "part": record.name.removeprefix(f"{_ROOT}."),
                "message": printable(self._prefix + record.getMessage()),
            },
            ensure_ascii=False,
        )
