"""PreUp, PostUp, PreDown and PostDown: shell commands of the config, run by bash as wg-quick does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from warren import log
from warren.errors import OperationFailed

_SHELL = "/bin/bash"
_END_S = 2.0  # what a command gets to end by itself
_log = log.get("tunnel")


async def run(kind: str, commands: Sequence[str], interface: str) -> None:
    """Run ``commands`` one after the other with ``%i`` replaced; what they print goes to our stderr.

    Raises OperationFailed at the first that fails. When cancelled, the command that runs is ended with its children.
    """
    for command in commands:
        text = command.replace("%i", interface)
        _log.info("%s: %s", kind, text)
        status = await _shell(text)
        if status != 0:
            ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            raise OperationFailed(f"{kind}: `{text}` {ended}; correct the command or remove it from the config")


async def _shell(text: str) -> int:
    try:
        process = await asyncio.create_subprocess_exec(
            _SHELL, "-c", text, stdin=asyncio.subprocess.DEVNULL, stdout=2, start_new_session=True
        )
    except OSError as error:
        raise OperationFailed(f"{_SHELL} cannot be run: {error.strerror}; PreUp, PostUp … need bash") from None
    try:
        return await process.wait()
    except asyncio.CancelledError:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await process.wait()
        raise
