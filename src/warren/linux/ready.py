"""How a process tells who started it that it serves: what :class:`warren.linux.processes.Outliving` waits for."""

from __future__ import annotations

import os
import sys


def say_ready() -> None:
    """Say ``ready`` on standard output, and let go of it: the pipe's reader may be gone long before this process."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
