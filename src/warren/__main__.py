"""``warren``, and ``python -m warren``."""

from __future__ import annotations

import gc
import signal
from typing import Final, NoReturn

_COLLECT_EVERY: Final = 10_000
"""New objects: with Python's 700 a twentieth of the time that loading takes goes into looking for rubbish in it."""


def main() -> NoReturn:
    """Run the command line. Ctrl-C while it is being loaded ends the process without a word, as it does later."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as by nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(_COLLECT_EVERY)
    from warren import cli

    signal.signal(signal.SIGINT, before)
    cli.main()


if __name__ == "__main__":
    main()
