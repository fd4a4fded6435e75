"""What the stream process knows about Caddy's connections, asked where Caddy asks (:mod:`warren.l4.peer_lookup`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from warren.ingress.asking import ask
from warren.ingress.sites import Ports

ANSWER_WITHIN_S: Final = 5.0
_COUNT: Final = re.compile(rb"^HTTP/1\.1 200 .*\r\nX-Warren-Count: ([0-9]{1,9})\r\n", re.DOTALL)


class Lookup:
    """The stream process that answers at the Unix socket ``path``, which is of this user."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def websockets(self, ports: Ports) -> int | None:
        """How many clients have WebSockets at these ports now; None: it does not say. Where no stream process is, there
        are no connections.
        """
        found = [await self._websockets(port) for port in (ports.http, ports.https)]
        counts = [count for count in found if count is not None]
        return sum(counts) if len(counts) == len(found) else None

    async def _websockets(self, port: int) -> int | None:
        try:
            match = _COUNT.match(await ask(self._path, f"/websockets/{port}", ANSWER_WITHIN_S))
        except TimeoutError:
            return None
        except OSError:
            return 0
        return None if match is None else int(match[1])
