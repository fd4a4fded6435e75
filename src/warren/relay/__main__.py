"""``python -m warren.relay --control-fd N``: a relay that belongs to another process, see ``child``."""

from __future__ import annotations

import argparse
import logging
import socket
import sys

import msgspec

from warren import log
from warren.errors import WarrenError
from warren.relay import serve
from warren.relay.child import LINE_BYTES_MAX, ToChild, ToOwner, pack_ready, unpack_config
from warren.relay.plane import Plane

_log = logging.getLogger("warren.relay")
_READ_BYTES = 1 << 16


class Owner:
    """The other end of the control socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._read = bytearray()
        self._plane: Plane | None = None

    def tell(self, message: ToOwner) -> None:
        """An owner that is gone need not be told: its end shows by itself."""
        try:
            self._sock.sendall(msgspec.json.encode(message) + b"\n")
        except OSError as error:
            _log.debug("the owner was not told: %s", error)

    def first(self) -> ToChild:
        """Wait for the first message. Raises EOFError when there is none."""
        while b"\n" not in self._read:
            data = self._sock.recv(_READ_BYTES)
            if not data or len(self._read) > LINE_BYTES_MAX:
                raise EOFError
            self._read += data
        return self._next()

    def serve(self, plane: Plane, ready: serve.Ready) -> None:
        """Begin to listen to the owner."""
        self._plane = plane
        self._sock.setblocking(False)
        plane.watch(self._sock.fileno(), self._readable)
        self.tell(ToOwner(ready=pack_ready(ready)))
        self._work_off()

    def _readable(self) -> None:
        plane = self._plane
        if plane is None:
            return
        try:
            data = self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._read += data
        if not data or len(self._read) > LINE_BYTES_MAX:
            plane.unwatch(self._sock.fileno())
            plane.stop("its owner is gone")
            return
        self._work_off()

    def _work_off(self) -> None:
        plane = self._plane
        while plane is not None and b"\n" in self._read:
            message = self._next()
            if message.users is not None:
                plane.set_users(message.users)
            if message.revoked is not None:
                plane.set_revoked(frozenset(message.revoked))
            if message.ask:
                self.tell(ToOwner(counters={**plane.counters, "allocations": len(plane.server.allocations)}))

    def _next(self) -> ToChild:
        line, _, rest = bytes(self._read).partition(b"\n")
        self._read[:] = rest
        return msgspec.json.decode(line, type=ToChild)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m warren.relay", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True)
    options = parser.parse_args(arguments)
    log.configure(prefix="relay: ")
    with socket.socket(fileno=options.control_fd) as sock:
        owner = Owner(sock)
        try:
            first = owner.first()
            if first.config is None:
                raise EOFError
            serve.run(unpack_config(first.config), owner.serve)
        except EOFError:
            return 1
        except (WarrenError, OSError) as error:
            owner.tell(ToOwner(error=str(error)))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
