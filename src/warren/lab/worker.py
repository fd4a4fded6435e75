"""Long-lived helpers of the lab, such as a capture or an impaired link: forked children with a control socket."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable

from warren.lab.forked import close_all_but, fork_child, reap
from warren.lab.program import Place

_END_PATIENCE_S = 5.0


class Worker:
    """A child process that runs ``body(control)`` inside a host until its end of the control socket is closed.

    ``control`` here and there are the two ends of one message socket. ``kept`` are the file descriptors, besides,
    that the child uses; all others are closed in it. Being in the host, it ends with the host whatever happens to the
    lab.
    """

    def __init__(self, place: Place, body: Callable[[socket.socket], None], kept: Iterable[int]) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = (*kept, theirs.fileno())

        def serve() -> None:
            place.enter()
            close_all_but(kept)
            gc.disable()  # a pause would look like jitter, and helpers make no cycles
            body(theirs)

        with theirs:
            self._pid: int | None = fork_child(serve)

    def end(self) -> None:
        """Ask the child to end by closing the control socket, wait for it, and kill it if that takes seconds."""
        if self._pid is None:
            return
        self.control.close()
        pidfd = os.pidfd_open(self._pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_END_PATIENCE_S * 1000):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        reap(self._pid)
        self._pid = None
