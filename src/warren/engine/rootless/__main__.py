"""``python -m warren.engine.rootless SOCKET``: the helper, which lives in the nest and works there for its user.

It makes a user and a network namespace (or joins those it is given), says ``ready`` on stdout, and serves requests
until SIGTERM or until its socket is removed. It has no secrets. What it did stays when it ends, for as long as anything
holds the namespaces.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
from pathlib import Path

from warren import log
from warren.engine.rootless.now import join
from warren.engine.rootless.server import CONNECTIONS_MAX, Server
from warren.engine.rootless.work import Work
from warren.errors import OperationFailed, WarrenError
from warren.linux import capabilities, netns, userns
from warren.linux.inotify import RemovalWatch
from warren.linux.ready import say_ready

_KEPT = frozenset({capabilities.CAP_NET_ADMIN, capabilities.CAP_NET_RAW, capabilities.CAP_NET_BIND_SERVICE})
_OWN_FILES = 16
_CONNECTIONS_MIN = 4
_OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")
_log = log.get("nest")


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    log.configure(prefix="nest: ")
    try:
        _move_in(options)
        capabilities.keep_only(_KEPT)
        return asyncio.run(_run(options.socket))
    except WarrenError as error:
        print(f"error: {error}", flush=True)
        return 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m warren.engine.rootless", description=__doc__)
    parser.add_argument("socket", type=Path, help="where to listen; its directory must be this user's alone")
    parser.add_argument(
        "--join",
        type=int,
        nargs=2,
        metavar=("USER", "NET"),
        help="descriptors of namespaces to join instead",
    )
    parser.add_argument("--as-root", action="store_true", help="be root in the new namespace, not who one is")
    return parser.parse_args(arguments)


def _move_in(options: argparse.Namespace) -> None:
    """Be in the namespaces, with every right there. Raises OperationFailed."""
    if options.join is not None:
        try:
            join(*options.join)
        except OSError as error:
            raise OperationFailed(f"the namespaces of the rootless engine cannot be joined: {error}") from None
        finally:
            for descriptor in options.join:
                os.close(descriptor)
        return
    if not options.as_root and _OVERFLOW_UID.read_text().strip() == str(os.geteuid()):
        # From inside all strangers would look like him.
        raise OperationFailed(f"user {os.geteuid()} stands for nobody in particular: run as another user")
    try:
        userns.enter_new(netns.CLONE_NEWNET, as_root=options.as_root)
        netns.raise_interface("lo")
    except OSError as error:
        raise OperationFailed(userns.why_refused(error)) from None
    reason = userns.why_no_tun()
    if reason is not None:
        raise OperationFailed(reason)
    _open_up()


def _open_up() -> None:
    """Let the user do in his own network what else takes privilege: listen on any port, and ping."""
    for name, value in (
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv4/ping_group_range", f"{os.getegid()} {os.getegid()}"),
    ):
        try:
            Path("/proc/sys", name).write_text(value)
        except OSError as error:
            _log.warning("sysctl %s cannot be set (%s): programs inside can do less", name, error.strerror)


async def _run(path: Path) -> int:
    limit = _raise_file_limit()
    loop = asyncio.get_running_loop()
    work = Work()
    stopping = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(work.close)
        server = Server(path, work, os.geteuid(), _connections_max(limit))
        stack.push_async_callback(server.close)
        watch = RemovalWatch(path)
        stack.callback(watch.close)
        stack.callback(_remove, path, watch)
        loop.add_reader(watch, _end_if_removed, watch, stopping)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal of an agent that is gone
        say_ready()
        await stopping.wait()
    return 0


def _end_if_removed(watch: RemovalWatch, stopping: asyncio.Event) -> None:
    if watch.removed():
        stopping.set()


def _remove(path: Path, watch: RemovalWatch) -> None:
    if not watch.removed():  # else what is there now is another's
        path.unlink(missing_ok=True)


def _raise_file_limit() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def _connections_max(files: int) -> int:
    """Half of the files that may be open are for the sockets that are made, and some for the helper itself."""
    return max(_CONNECTIONS_MIN, min(CONNECTIONS_MAX, (files - _OWN_FILES) // 2))


if __name__ == "__main__":
    sys.exit(main())
