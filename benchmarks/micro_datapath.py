"""What each stage of the data path costs per packet, for both twins: ``python benchmarks/micro_datapath.py [PACKETS]``.

One TCP/IPv4 super-packet of full 1,420-byte packets goes through split, seal, open and coalesce over and over.
The figure is the best of many rounds: what the code costs, not what else the machine does.
"""

from __future__ import annotations

import importlib
import os
import struct
import sys
import time
from array import array
from collections.abc import Callable
from types import ModuleType

from warren.proto.ip.checksum import complement, partial, word_sum
from warren.proto.ip.virtio import GSO_TCPV4, HEADER, NEEDS_CSUM

MTU = 1420
HEADERS = 52  # IPv4, TCP, timestamps
ROUNDS = 60
PURE = {
    "segment": "warren.proto.ip.segment",
    "coalesce": "warren.proto.ip.coalesce",
    "transport": "warren.proto.wireguard.transport",
}
COMPILED = {name: f"warren._speed.{name}" for name in PURE}


def super_packet(packets: int) -> bytes:
    """A frame as the kernel hands it over: TCP/IPv4 with timestamps, NEEDS_CSUM, ``packets`` full segments."""
    payload = os.urandom(packets * (MTU - HEADERS))
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, HEADERS + len(payload), 1, 0x4000, 64, 6, 0, b"\n\0\0\1", b"\n\0\0\2")
    ip = ip[:10] + complement(word_sum(ip)).to_bytes(2, "big") + ip[12:]
    pseudo = partial(word_sum(ip[12:]) + 6 + HEADERS - 20 + len(payload))
    tcp = struct.pack("!HHIIBBHHH12s", 5201, 40000, 1, 1, 8 << 4, 0x10, 501, pseudo, 0, b"\1\1\x08\n" + bytes(8))
    return HEADER.pack(NEEDS_CSUM, GSO_TCPV4, HEADERS, MTU - HEADERS, 20, 16) + ip + tcp + payload


def best(work: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Seconds of the fastest of many rounds of ``work``, each after an untimed ``prepare``."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        prepare()
        started = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest


def measure(names: dict[str, str], packets: int) -> dict[str, float]:
    """Microseconds per packet of each stage."""
    modules: dict[str, ModuleType] = {name: importlib.import_module(path) for name, path in names.items()}
    frame = super_packet(packets)
    train, plain = bytearray(1 << 17), bytearray(1 << 17)
    lengths = array("i", bytes(4 * packets))
    sealing = modules["transport"].SealingKey(bytes(32), 1)
    opening = modules["transport"].OpeningKey(bytes(32), 1)
    coalescer = modules["coalesce"].Coalescer(1 << 20, True)
    count, stride, end = modules["segment"].split(frame, len(frame), train, 0, MTU)
    assert count == packets

    def seal() -> None:
        sealing.seal(train, 0, end, stride)

    def arrive() -> None:
        modules["segment"].split(frame, len(frame), train, 0, MTU)
        seal()
        plain[:] = train

    def open_() -> None:
        assert opening.open(plain, 0, end, stride, lengths) == packets

    def coalesce() -> None:
        coalescer.add(plain, 0, end, stride, lengths)
        assert len(coalescer.flush()) == 1

    def arrive_open() -> None:
        arrive()
        open_()

    seconds = {
        "split": best(lambda: modules["segment"].split(frame, len(frame), train, 0, MTU)),
        "seal": best(seal),
        "open": best(open_, arrive),
        "coalesce": best(coalesce, arrive_open),
    }
    return {stage: spent / packets * 1e6 for stage, spent in seconds.items()}


def main() -> None:
    """Print one table."""
    packets = int(sys.argv[1]) if len(sys.argv) > 1 else 45
    print(f"{packets} packets of {MTU} bytes at a time")
    print(f"{'':10}{'split':>16}{'seal':>16}{'open':>16}{'coalesce':>16}")
    for label, names in (("compiled", COMPILED), ("pure", PURE)):
        try:
            figures = measure(names, packets)
        except ImportError as error:
            print(f"{label:10}  not here: {error}")
            continue
        cells = "".join(f"{cost:6.2f} µs {MTU / cost / 1e3:5.2f}GB" for cost in figures.values())
        print(f"{label:10}{cells}")


if __name__ == "__main__":
    main()
