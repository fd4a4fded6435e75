"""Names of backends that the host's resolver knows, asked once for a burst of streams."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Final

from warren.l4.candidates import literal
from warren.l4.config import Backend
from warren.l4.kinds import Refused
from warren.model.tunnel import IPAddress

NAME_S: Final = 5.0
"""How long an answer is used again: long enough that a burst of streams asks once."""
NAMES_MAX: Final = 4096
"""Then all are forgotten, which costs a question for each."""


class HostNames:
    """``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names: dict[str, tuple[float, tuple[IPAddress, ...]]] = {}

    async def addresses(self, backend: Backend, timeout_s: float) -> Sequence[IPAddress]:
        """Of its host, which may be an address already. Raises Refused (``unresolved``)."""
        written = literal(backend.host)
        if written is not None:
            return (written,)
        now = self._clock()
        until, found = self._names.get(backend.host, (0.0, ()))
        if now < until:
            return found
        try:
            async with asyncio.timeout(timeout_s):
                answers = await asyncio.get_running_loop().getaddrinfo(
                    backend.host, backend.port, type=socket.SOCK_STREAM
                )
        except TimeoutError:
            raise Refused("unresolved", f"the name {backend.host} was not answered in {timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no name"
            raise Refused(
                "unresolved",
                f"the name {backend.host} cannot be looked up here: {why}: correct the name, or this host's DNS",
            ) from None
        ips = tuple(dict.fromkeys(ip_address(str(place[0])) for *_, place in answers))
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        self._names[backend.host] = (now + NAME_S, ips)
        return ips
