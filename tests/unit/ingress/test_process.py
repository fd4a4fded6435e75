"""Whether a Caddy hangs, as its admin interface shows."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from warren.ingress import process
from warren.ingress.process import CaddyProcess
from warren.ingress.sites import Settings
from warren.linux.processes import Outliving


@pytest.mark.parametrize(("answers", "hangs"), [("yes", False), ("no, yes", False), ("no, no, no", True), ("", True)])
def test_only_who_is_there_and_does_not_answer_hangs(
    answers: str, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that ends without a word says little: a Caddy that takes up a configuration may do that."""
    monkeypatch.setattr(process, "_GONE_S", 0.01)
    left = [one for one in answers.split(", ") if one]

    async def scene(directory: Path) -> None:
        settings = Settings(directory, directory, generation=1)
        settings.sockets.mkdir(parents=True)

        async def admin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if left.pop(0) == "yes":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

        server = await asyncio.start_unix_server(admin, settings.admin) if left else None
        found = CaddyProcess(settings, Outliving(os.getpid()))
        async with asyncio.timeout(10):
            assert await found.hangs() == hangs
        if server is not None:
            server.close()
            await server.wait_closed()
        await asyncio.sleep(0)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory)))
    assert not left
