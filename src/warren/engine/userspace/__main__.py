"""``python -m warren.engine.userspace IF``: the data plane as a process of its own.

It makes the interface and the UAPI socket, says ``ready`` on stdout, gives up all privileges but two, and moves
packets until SIGTERM, or until the interface or the socket is removed. Whoever controls it may come and go.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from warren import log
from warren.engine.userspace.dataplane import DataPlane, boottime
from warren.engine.userspace.places import socket_path
from warren.engine.userspace.timestamps import TimestampFloor
from warren.errors import OperationFailed, WarrenError
from warren.linux import capabilities
from warren.linux.link import LinkWatch
from warren.linux.ready import say_ready
from warren.linux.tun import Tun
from warren.linux.udp import TRAIN_BYTES_MAX, TRAIN_DATAGRAMS_MAX
from warren.linux.unix_sockets import answers
from warren.proto import datapath
from warren.proto.turn.channel import HEADER_BYTES
from warren.proto.wireguard.constants import DATA_OVERHEAD_BYTES
from warren.proto.wireguard.device import Device

_log = logging.getLogger("warren.engine")


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    log.configure(prefix=f"{options.interface}: ")
    if not log.debugging():
        logging.getLogger("warren").setLevel(options.log_level.upper())
    try:
        plane = _assemble(options)
    except (WarrenError, OSError) as error:
        print(f"error: {error}", flush=True)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: plane.stop(signal.Signals(received).name))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal of a controller that is gone
    gc.freeze()  # what lives now lives for ever: keep the collector away from it
    say_ready()
    try:
        why = plane.run()
    finally:
        plane.close()
    _log.info("stopped: %s", why)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m warren.engine.userspace", description=__doc__)
    parser.add_argument("interface", help="name of the TUN interface to make")
    parser.add_argument("--mtu", type=int, default=1420, help="its MTU in bytes (default: 1420)")
    parser.add_argument(
        "--state", type=Path, help="directory for the timestamp floor; without it a restart relies on the clock"
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument(
        "--clock-rate", type=float, default=1.0, help="rehearsals: let protocol time pass this many times faster"
    )
    parser.add_argument("--sockets", type=Path, help="directory of the control sockets, if not /var/run/wireguard")
    parser.add_argument(
        "--nest", type=Path, help="socket of the rootless engine's helper: the interface is made in its network"
    )
    return parser.parse_args(arguments)


def _assemble(options: argparse.Namespace) -> DataPlane:
    """Make everything that needs privilege, then give the privilege up."""
    if answers(socket_path(options.interface, options.sockets)):
        raise OperationFailed(f"interface {options.interface} is run by another process already: stop it first")
    floor = TimestampFloor(options.state) if options.state else None
    surroundings = _Nest(options.nest) if options.nest else _Host()
    tun = surroundings.tun(options.interface)
    try:
        link = surroundings.watch(tun.name)
        try:
            link.set_mtu(options.mtu)
        except OSError as error:
            raise OperationFailed(f"MTU {options.mtu}: {error.strerror}; the kernel takes 68 to 65535 here") from error
        link.limit_segments(_segments_per_send(options.mtu))
        device = Device(
            random=os.urandom,
            wall_clock_ns=time.time_ns,
            timestamp_floor_ns=floor.floor_ns if floor else 0,
            mtu=options.mtu,
            coalesce_udp=tun.udp_offload,
        )
        plane = DataPlane(tun, link, device, floor, _clock(options.clock_rate), options.clock_rate, options.sockets)
    except BaseException:
        tun.close()
        raise
    capabilities.keep_only(frozenset({capabilities.CAP_NET_ADMIN, capabilities.CAP_NET_BIND_SERVICE}))
    _log.info("data plane of %s: %s", options.interface, "compiled" if datapath.COMPILED else "pure Python")
    return plane


class _Host:
    """The interface is in this process's own network."""

    def tun(self, name: str) -> Tun:
        return Tun.create(name)

    def watch(self, name: str) -> LinkWatch:
        return LinkWatch(name)


class _Nest:
    """It is in that of a rootless engine's helper, which is of no more use afterwards."""

    def __init__(self, path: Path) -> None:
        from warren.engine.rootless import now  # 2 MB that others have no use for

        self._path = path
        self._made_by = now

    def tun(self, name: str) -> Tun:
        self._made_by.namespaces_now(self._path)  # they stay open: so another agent and helper find the way back
        return self._made_by.tun_now(self._path, name)

    def watch(self, name: str) -> LinkWatch:
        return LinkWatch(name, partial(self._made_by.open_now, self._path))


def _segments_per_send(mtu: int) -> int:
    """How many full packets, sealed and wrapped for a relay, fit one UDP_SEGMENT send: one of 45 less than direct."""
    return max(1, min(TRAIN_DATAGRAMS_MAX, TRAIN_BYTES_MAX // (mtu + DATA_OVERHEAD_BYTES + HEADER_BYTES)))


def _clock(rate: float) -> Callable[[], float]:
    if rate == 1.0:
        return boottime
    start = boottime()
    return lambda: start + (boottime() - start) * rate


if __name__ == "__main__":
    sys.exit(main())
