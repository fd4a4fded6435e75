"""Children of the lab that run Python: forked from the program that uses the lab, never returning into it.

A forked child starts with the parent's memory, so that it needs no imports and no arguments to be sent. It must not run
the parent's clean-up (``finally`` blocks, atexit, buffered files): it ends by ``os._exit`` whatever happens.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator

_DEFAULTED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
_FIRST_FD_NOT_STANDARD = 3


def fork_child(body: Callable[[], None]) -> int:
    """Run ``body`` in a forked child with a session of its own; returns the child's pid, which the caller must reap.

    The child ends with status 0 when ``body`` returns, 1 with a traceback on stderr when it raises. Signals have their
    default action in it: a Python handler or an asyncio wake-up socket of the parent is not called.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # the child's first collection would otherwise copy every page of the parent's heap
    with forking_knowingly():
        pid = os.fork()
    if pid:
        gc.unfreeze()
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _DEFAULTED_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        body()
        status = 0
    except BaseException:  # noqa: BLE001  the child must never unwind into what its parent was doing
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def forking_knowingly() -> Iterator[None]:
    """Within the block a fork is not warned about (Python ≥ 3.12 does when there are threads).

    What the lab's children do until they exec or end takes no lock that another thread may have held.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


def close_all_but(kept: Iterable[int]) -> None:
    """Close every file descriptor except stderr and ``kept``; stdin and stdout become /dev/null.

    For a child that outlives the call that made it: an inherited pipe would otherwise stay open with it.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(null, standard)
    start = _FIRST_FD_NOT_STANDARD
    for fd in sorted(set(kept)):
        os.closerange(start, fd)
        start = max(start, fd + 1)
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def reap(pid: int) -> None:
    """Wait for the end of a child of ours. One that someone else has reaped is no error."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
