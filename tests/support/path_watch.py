"""Watching a peer from inside a lab host: when it first answers, and by which path it is reached from then on.

The functions run in a child of their own on the host (:meth:`warren.lab.host.Host.begin`).
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from warren.lab.agent_socket import agent_status

AGENT_SOCKET = "/run/warren/agent.sock"
_ASK_EVERY_S = 0.1
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen; seconds since the first packet was sent."""

    first_reply_s: float | None
    """None: there was no answer in time."""
    direct_s: float | None
    """None: there was no direct path in time."""
    paths: tuple[tuple[float, str, str], ...]
    """Changes of the path: when, which (``direct``, ``relayed``, ``none``), and the endpoint."""
    rtt_ms: float | None
    reason: str


def peer_of(network: str, peer: str) -> dict[str, Any]:
    """What the agent of this host says of ``peer``; nothing: empty."""
    for membership in agent_status(os.getpid(), AGENT_SOCKET, within_s=_ANSWER_S)["networks"]:
        if membership["network"] == network:
            for one in membership["peers"]:
                if one["name"] == peer:
                    return dict(one)
    return {}


def watch(network: str, peer: str, address: str, timeout_s: float, settle_s: float) -> Watched:
    """Ping ``address`` of ``peer`` until it answers and there is a direct path, or ``timeout_s`` is over.

    Without a direct path it goes on for ``settle_s`` after the first answer, if that is longer away.
    """
    ping = subprocess.Popen(
        ["ping", "-n", "-i", "0.1", "-w", str(int(timeout_s + settle_s) + 1), address],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ping.stdout is not None
    began = time.monotonic()
    seen: list[tuple[float, str, str]] = []
    first: float | None = None
    direct: float | None = None
    last: dict[str, Any] = {}
    try:
        import select

        end = began + timeout_s
        while time.monotonic() < end and direct is None:
            if first is None and select.select([ping.stdout], [], [], _ASK_EVERY_S)[0]:
                line = ping.stdout.readline()
                if "time=" in line:
                    first = time.monotonic() - began
                    end = max(end, time.monotonic() + settle_s)
            elif first is not None:
                time.sleep(_ASK_EVERY_S)
            last = peer_of(network, peer) or last
            now = time.monotonic() - began
            path = (last.get("path", "none"), last.get("relay") or last.get("endpoint", ""))
            if not seen or seen[-1][1:] != path:
                seen.append((round(now, 2), *path))
            if first is not None and path[0] == "direct":
                direct = now
    finally:
        ping.kill()
        ping.wait()
        ping.stdout.close()
    return Watched(first, direct, tuple(seen), last.get("rtt_ms"), str(last.get("why", "")))
