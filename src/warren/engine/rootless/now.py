"""Asking for parts of a nest without an event loop: a socket, an interface, its namespaces, to be let in."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from warren.engine.rootless.blocking import BlockingLine, Descriptors, close_all
from warren.engine.rootless.messages import MakeTun, Namespaces, OpenSockets
from warren.errors import OperationFailed
from warren.linux import netns
from warren.linux.tun import Tun

Sort = tuple[int, int, int]
"""Family, kind and protocol of a socket."""
KIND_BITS: Final = 0xF
"""Of a socket's type; the rest are SOCK_NONBLOCK and SOCK_CLOEXEC."""


def open_now(path: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """As :meth:`~warren.engine.rootless.sockets.NestSockets.open` without an event loop; and the socket
    blocks, as a new one of this process would.

    Raises Unreachable when no nest answers at ``path``, OperationFailed when it refuses.
    """
    sort = (family, kind & KIND_BITS, protocol)
    line = BlockingLine(path)
    try:
        (descriptor,) = as_many(line.ask_for_descriptors(OpenSockets(*sort))[1], 1)
    finally:
        line.close()
    sock = wrap(sort, descriptor)
    sock.setblocking(True)
    return sock


def enter(path: Path) -> None:
    """Move the calling process, which must have one thread, into the nest: its network, its user namespace.

    Until it executes a program it has all capabilities in there, and could make further namespaces (of mounts).
    Raises Unreachable when no nest answers at ``path``, OperationFailed when the kernel refuses.
    """
    namespaces = namespaces_now(path)
    try:
        join(*namespaces)
    except OSError as error:
        raise OperationFailed(f"the network of the rootless engine cannot be entered: {error}") from None
    finally:
        close_all(namespaces)


def tun_now(path: Path, name: str) -> Tun:
    """A new interface in the nest, down, with every offload that this kernel has. Errors as of :func:`open_now`, and
    those of :meth:`~warren.linux.tun.Tun.create`.
    """
    line = BlockingLine(path)
    try:
        udp_offload, descriptors = line.ask_for_descriptors(MakeTun(name), bool)
    finally:
        line.close()
    (descriptor,) = as_many(descriptors, 1)
    return Tun(name, descriptor, udp_offload=udp_offload)


def namespaces_now(path: Path) -> Descriptors:
    """Descriptors of the nest's user and network namespace: while they are open the nest lives, and can be found."""
    line = BlockingLine(path)
    try:
        return as_many(line.ask_for_descriptors(Namespaces())[1], 2)
    finally:
        line.close()


def join(user: int, network: int) -> None:
    """Move the calling process into the namespaces of these descriptors. Raises OSError."""
    netns.join(user, netns.CLONE_NEWUSER)
    netns.join(network, netns.CLONE_NEWNET)


def wrap(sort: Sort, descriptor: int) -> socket.socket:
    """The non-blocking socket behind the descriptor, which it owns from now on."""
    sock = socket.socket(*sort, fileno=descriptor)
    sock.setblocking(False)
    return sock


def as_many(made: Descriptors, count: int) -> Descriptors:
    """``made``, if there are so many; else they are closed. Raises OperationFailed."""
    if len(made) != count:
        close_all(made)
        raise OperationFailed("the rootless engine is of another version of Warren; stop it and start it again")
    return made
