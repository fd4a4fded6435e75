"""A question over HTTP at a Unix socket, of which the head of the answer says all."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from warren.ingress.config import ADMIN_HOST

HEAD_BYTES_MAX: Final = 4096


async def ask(socket: Path, target: str, within_s: float) -> bytes:
    """What answers ``GET target``, without the body. Raises TimeoutError, or another OSError when nobody does."""
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_unix_connection(os.fspath(socket), limit=HEAD_BYTES_MAX)
        try:
            writer.write(f"GET {target} HTTP/1.1\r\nHost: {ADMIN_HOST}\r\nConnection: close\r\n\r\n".encode())
            return await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ConnectionError(f"no answer at {socket}") from error
        finally:
            writer.transport.abort()
