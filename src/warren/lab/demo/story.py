"""What becomes of the way between two members from the first packet on, seen from one of them; and a paced transfer.

The functions that watch, send and receive run in a child of their own on a lab host.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from warren.lab.agent_socket import agent_status
from warren.lab.host import Host
from warren.lab.network import Network
from warren.lab.remote import Call

AGENT_SOCKET: Final = "/run/warren/agent.sock"
_ASK_EVERY_S: Final = 0.1
_STEADY_S: Final = 0.5
_PORT: Final = 5099
_BLOCK: Final = bytes(range(256)) * 128
_BLOCKS: Final = 300
_BLOCK_EVERY_S: Final = 0.02
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """Seconds since the first packet; None: not in time. ``changes``: when, and the way in words."""

    reply_s: float | None
    direct_s: float | None
    changes: tuple[tuple[float, str], ...]


class Story:
    """Made by :meth:`begin`; :meth:`result` waits for a direct path."""

    def __init__(self, call: Call[Seen]) -> None:
        self._call = call

    @classmethod
    def begin(cls, host: Host, network: Network, other: Host, address: str, patience_s: float = _PATIENCE_S) -> Story:
        """``host`` pings ``address`` of ``other`` from now on."""
        return cls(host.begin(_watch, network.name, other.name, address, patience_s))

    def result(self, timeout: float) -> Seen:
        return self._call.result(timeout)


def tell(seen: Seen) -> Iterable[str]:
    """The changes as lines for a person."""
    for at, way in seen.changes:
        reply = "the first answer" if at == seen.reply_s else ""
        yield f"after {at:4.1f} s  {way:46} {reply}".rstrip()


def _watch(network: str, other: str, address: str, patience_s: float) -> Seen:
    command = ["ping", "-n", "-i", "0.1", "-w", str(int(patience_s)), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ping:
        try:
            return _follow(ping, network, other, patience_s)
        finally:
            ping.kill()


def _follow(ping: subprocess.Popen[str], network: str, other: str, patience_s: float) -> Seen:
    import select

    assert ping.stdout is not None  # noqa: S101 - it is a pipe
    began = time.monotonic()
    reply: float | None = None
    direct: float | None = None
    changes: list[tuple[float, str]] = []
    while (now := time.monotonic() - began) < patience_s and (direct is None or now < direct + _STEADY_S):
        if reply is None:
            if select.select([ping.stdout], [], [], _ASK_EVERY_S)[0] and "time=" in ping.stdout.readline():
                reply = round(time.monotonic() - began, 1)
            else:
                continue
        else:
            time.sleep(_ASK_EVERY_S)
        peer = _peer(network, other)
        now = round(time.monotonic() - began, 1)
        way = _way(peer)
        if not changes or changes[-1][1] != way:
            changes.append((reply if not changes else now, way))
        if direct is None and peer.get("path") == "direct":
            direct = now
    return Seen(reply, direct, tuple(changes))


def _way(peer: dict[str, Any]) -> str:
    path = str(peer.get("path", "none"))
    if path == "relayed":
        return f"relayed by {peer.get('relay')}"
    return f"{path} {peer.get('endpoint', '')}".strip()


def _peer(network: str, name: str) -> dict[str, Any]:
    for membership in agent_status(os.getpid(), AGENT_SOCKET, within_s=_PATIENCE_S)["networks"]:
        if membership["network"] == network:
            for peer in membership["peers"]:
                if peer["name"] == name:
                    return dict(peer)
    return {}


def send_paced(address: str) -> str:
    """A TCP transfer of some seconds to :func:`receive_paced`; returns the hash of what was sent."""
    digest = hashlib.sha256()
    for _ in range(50):
        try:
            connection = socket.create_connection((address, _PORT), 5)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    else:
        raise ConnectionRefusedError(f"nobody listens on {address}")
    with connection:
        connection.settimeout(_PATIENCE_S)
        for number in range(_BLOCKS):
            block = number.to_bytes(8) + _BLOCK
            connection.sendall(block)
            digest.update(block)
            time.sleep(_BLOCK_EVERY_S)
    return digest.hexdigest()


def receive_paced(address: str) -> tuple[str, float]:
    """The hash of what came, and the longest time in which nothing did."""
    digest = hashlib.sha256()
    gap = 0.0
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, _PORT), family=family) as listener:
        listener.settimeout(_PATIENCE_S)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(_PATIENCE_S)
        last = time.monotonic()
        while data := connection.recv(1 << 18):
            now = time.monotonic()
            gap, last = max(gap, now - last), now
            digest.update(data)
    return digest.hexdigest(), gap
