"""Watching from inside a lab host when a member first answers, and when the path to it is direct.

:func:`contact` runs in a child of its own on the host (:meth:`warren.lab.host.Host.begin`).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from tests.support.path_watch import peer_of

_ECHO: Final = struct.Struct("!BBHHH")
_ECHO_REQUEST, _ECHO_REPLY = 128, 129  # RFC 4443 §4
_PACKET_EVERY_S = 0.02
_ASK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Contact:
    """Moments of the machine's monotonic clock; None: not in time."""

    sent_at: float | None
    """When the first packet got a way out of the host."""
    replied_at: float | None
    direct_at: float | None
    path: str
    """The last one seen: direct, relayed, none."""
    why: str


def contact(network: str, peer: str, address: str, timeout_s: float, settle_s: float) -> Contact:
    """Send an echo request to the IPv6 ``address`` each 20 ms from now on, also while there is no way to it yet.

    Ends ``settle_s`` after the first reply, at once when the path is direct, or after ``timeout_s`` without a reply.
    The agent is not asked anything before the first reply, so as not to keep it from its work.
    """
    ident = os.getpid() & 0xFFFF
    sent_at, number = None, 0
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as echoes:
        end = time.monotonic() + timeout_s
        replied_at = None
        while replied_at is None and time.monotonic() < end:
            if _sent(echoes, address, ident, number) and sent_at is None:
                sent_at = time.monotonic()
            number += 1
            replied_at = _reply(echoes, ident, time.monotonic() + _PACKET_EVERY_S)
        if replied_at is None:
            return Contact(sent_at, None, None, "none", str(peer_of(network, peer).get("why", "")))
        end = replied_at + settle_s
        while True:
            seen = peer_of(network, peer)
            now = time.monotonic()
            path, why = str(seen.get("path", "none")), str(seen.get("why", ""))
            if path == "direct" or now >= end:
                return Contact(sent_at, replied_at, now if path == "direct" else None, path, why)
            _sent(echoes, address, ident, number)
            number += 1
            _reply(echoes, ident, now + _ASK_EVERY_S)
            time.sleep(max(0.0, now + _ASK_EVERY_S - time.monotonic()))


def _sent(echoes: socket.socket, address: str, ident: int, number: int) -> bool:
    try:
        echoes.sendto(_ECHO.pack(_ECHO_REQUEST, 0, 0, ident, number & 0xFFFF), (address, 0))  # the kernel adds the sum
    except OSError:
        return False
    return True


def _reply(echoes: socket.socket, ident: int, until: float) -> float | None:
    """The moment of an answer to us, or None when there was none until then."""
    while (left := until - time.monotonic()) > 0:
        if select.select([echoes], [], [], left)[0]:
            data = echoes.recv(2048)
            if len(data) >= _ECHO.size:
                kind, _, _, theirs, _ = _ECHO.unpack_from(data)
                if kind == _ECHO_REPLY and theirs == ident:
                    return time.monotonic()
    return None
