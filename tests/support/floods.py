"""Floods of a tunnel's port, for tests and benchmarks: made from a seed, bounded in packets and time."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import time

from tests.support.packets import udp_packet

PACKETS_PER_S = 20_000
SECONDS = 3
_BURST = 200
_BUFFER_BYTES = 4 << 20


def flood(target: str, packets: list[bytes], seconds: float = SECONDS) -> int:
    """Send whole IPv4 ``packets`` in turn to ``target``, PACKETS_PER_S of them for ``seconds``; returns how many."""
    sent, started, total = 0, time.monotonic(), int(PACKETS_PER_S * seconds)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        while sent < total:
            for _ in range(_BURST):
                raw.sendto(packets[sent % len(packets)], (target, 0))
                sent += 1
            time.sleep(max(0.0, started + sent / PACKETS_PER_S - time.monotonic()))
    return sent


def forged_sources(rng: random.Random, messages: list[bytes], target: str, port: int) -> list[bytes]:
    """The messages as UDP packets to ``target``, each from another address of the benchmarking range (RFC 2544)."""
    return [
        udp_packet(f"198.18.{rng.randrange(256)}.{rng.randrange(1, 255)}", target, message, (40000, port))
        for message in messages
    ]


def initiations(rng: random.Random, count: int, public_key: bytes | None) -> list[bytes]:
    """Nonsense in the form of initiations; with the responder's key their mac1 is right (WireGuard §5.4.4)."""
    messages = []
    for _ in range(count):
        body = struct.pack("<I", 1) + rng.randbytes(112)
        mac1 = rng.randbytes(16)
        if public_key is not None:
            key = hashlib.blake2s(b"mac1----" + public_key).digest()
            mac1 = hashlib.blake2s(body, key=key, digest_size=16).digest()
        messages.append(body + mac1 + bytes(16))
    return messages
