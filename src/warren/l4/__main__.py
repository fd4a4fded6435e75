"""``python -m warren.l4 --run DIRECTORY``: the stream process.

It listens on ``streams.sock`` in the run directory, says ``ready`` on stdout, and does what the agent tells it until
SIGTERM, or until the agent says stop. Agents may come and go.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

from warren import __version__, log
from warren.engine.userspace.places import SOCKET_DIRECTORY
from warren.errors import WarrenError
from warren.l4.control import VERSION, Control, Hello
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.l4.selector import StreamSelector
from warren.l4.serve import Server
from warren.linux import capabilities
from warren.linux.ready import say_ready

DESCRIPTORS: Final = 262_144
"""Two for each stream, and some for pipes, as far as the host lets us: 65,536 of one connector, and room for others."""
_CAP_DAC_OVERRIDE: Final = 1
_KEPT: Final = frozenset({_CAP_DAC_OVERRIDE, capabilities.CAP_NET_BIND_SERVICE})
"""To connect to Unix sockets of services, and for ports below 1024."""

_log = log.get("streams")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m warren.l4", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the run directory of the agent")
    parser.add_argument("--nest", type=Path, help="socket of the rootless engine's helper")
    options = parser.parse_args(arguments)
    log.configure(prefix="streams: ")
    _raise_limit()
    capabilities.keep_only(_KEPT)
    selector = StreamSelector()
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner,
    ):
        return runner.run(_run(options.run / "streams.sock", options.nest, selector))
    return 0


async def _run(path: Path, nest: Path | None, selector: StreamSelector) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal of an agent that is gone
    control = Control(
        path, Hello(version=VERSION, release=__version__, nest="" if nest is None else str(nest)), stopped.set
    )
    try:
        await control.open()
    except (WarrenError, OSError) as error:
        print(f"error: {error}", flush=True)
        return 1
    server = control.server = Server(
        _overlay(nest),
        control.resolve,
        control.changed,
        closed=(path.parent, SOCKET_DIRECTORY),
        selector=selector,
    )
    gc.collect()
    gc.freeze()  # what lives now lives for ever: keep the collector away from it
    say_ready()
    _log.info("streams are carried by process %d", os.getpid())
    await stopped.wait()
    await control.close()
    await server.close()
    _log.info("stopped")
    return 0


def _overlay(nest: Path | None) -> OverlaySockets:
    if nest is None:
        return HostSockets()
    from warren.engine.rootless.sockets import NestSockets

    return NestSockets(nest)


def _raise_limit() -> None:
    """As many descriptors as may be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (DESCRIPTORS, hard):
        if wanted <= soft:
            continue
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return


if __name__ == "__main__":
    sys.exit(main())
