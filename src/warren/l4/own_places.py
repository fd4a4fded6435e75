"""What no stream may lead to: where this process itself listens, and Warren's own sockets.

A target is the serving member's to reach, but who names it is the network's authority. A stream that leads back to a
listener of this process would go round until there are no descriptors left. The control sockets of the agent and of
its processes trust whoever has their user, which is this process's user too.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from weakref import WeakSet

from warren.model.tunnel import IPAddress

_listeners: Final[dict[tuple[int, int], WeakSet[socket.socket]]] = {}
"""By kind of socket and port; as many as there are listeners."""


def remember(listener: socket.socket) -> None:
    """``listener`` is bound; once it is closed it counts no more."""
    key = int(listener.type), int(listener.getsockname()[1])
    known = _listeners.get(key)
    if known is None:
        for empty in [one for one, sockets in _listeners.items() if not sockets]:
            del _listeners[empty]
        known = _listeners[key] = WeakSet()
    known.add(listener)


def listens(kind: int, port: int) -> bool:
    """Whether this process listens at ``port`` of any address; if not, nothing leads back there."""
    return bool(_listeners.get((kind, port)))


def leads_back(kind: int, ip: IPAddress, port: int, local: IPAddress | None = None) -> bool:
    """Whether this process listens at ``ip`` and ``port``. ``local``: from where the kernel goes there, which tells
    whether it is an address of this host.
    """
    return any(_is_at(listener, ip, local) for listener in _listeners.get((kind, port), ()) if listener.fileno() >= 0)


def _is_at(listener: socket.socket, ip: IPAddress, local: IPAddress | None) -> bool:
    bound = ip_address(str(listener.getsockname()[0]).partition("%")[0])
    return bound == ip or (bound.is_unspecified and (ip.is_loopback or ip == local))


def is_closed(path: str, closed: Iterable[Path]) -> bool:
    """Whether ``path`` leads into one of those directories, by whatever way it is written."""
    real = Path(os.path.realpath(path))
    return any(real.is_relative_to(os.path.realpath(directory)) for directory in closed)
