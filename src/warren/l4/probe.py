"""Whether somebody takes the datagrams of an entry: an empty one is sent, and what ICMP says of it is listened to.

An empty datagram means nothing in any protocol in use, so servers ignore it (scans of ports consist of them). An answer
says nothing against the backend, nor does silence; that nobody is there only its host can say, by ICMP.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Final

from warren.l4.config import Backend, Side, Way
from warren.l4.destinations import UNREACHABLE, Attempt, Destination, Destinations, connect
from warren.l4.kinds import Refused

SILENCE_S: Final = 1.0
"""Longer than any path between a serving member and its target takes there and back."""


async def check(destinations: Destinations, way: Way, own_ports: Callable[[Side], frozenset[int]]) -> None:
    """Raises Refused when there is no backend of ``way`` that may be there."""
    why: Refused | None = None
    waiting = destinations.attempts(way)
    while waiting:
        attempt = waiting.pop(0)
        try:
            if attempt.destination is None:
                waiting[:0] = await destinations.resolve(attempt, way.connect_timeout_s)
                continue
            await _ask(destinations, attempt, attempt.destination, way, own_ports(attempt.destination.side))
        except Refused as refused:
            why = refused
            continue
        return
    raise why or Refused("unresolved", "its name has no address")


async def _ask(
    destinations: Destinations, attempt: Attempt, where: Destination, way: Way, own_ports: frozenset[int]
) -> None:
    with await destinations.open(where.side, where.family) as sock:
        connect(sock, where, own_ports, way)
        try:
            sock.send(b"")
            async with asyncio.timeout(SILENCE_S):
                await asyncio.get_running_loop().sock_recv(sock, 1)
        except TimeoutError:
            return
        except OSError as error:
            if error.errno in UNREACHABLE:
                raise unreachable(attempt.backend, error.errno) from None


def unreachable(backend: Backend | None, code: int | None = None) -> Refused:
    """What ICMP says, in a sentence."""
    name = "the backend" if backend is None else backend.name
    if code in {errno.ECONNREFUSED, None}:
        return Refused("connect", f"{name} takes no datagrams: is the program there running?")
    return Refused("connect", f"no datagrams come to {name}: {os.strerror(code or 0)}")
