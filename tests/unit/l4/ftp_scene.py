"""A client that is connected through the FTP helper to a server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager

from tests.support.ftp_peers import Client, ScriptedServer, is_open
from tests.support.ftp_tools import Helper

STRANGER = "127.0.0.2"
Scene = Callable[[ScriptedServer, Helper, Client], Awaitable[None]]


def play(scene: Scene, *, side: str = "host", idle_s: float | None = None, source: str | None = None) -> None:
    """A client that is connected through a helper to a server; afterwards nothing may be left."""

    async def played() -> None:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(ScriptedServer())
            helper = await stack.enter_async_context(Helper(server.host, server.port, side=side, idle_s=idle_s))
            helper.tools.source = source
            client = await stack.enter_async_context(await Client.connected(helper.port))
            await scene(server, helper, client)
        assert helper.tools.open == 0

    asyncio.run(played())


async def turns_until_closed(port: int) -> None:
    for _ in range(200):
        if not await is_open(port, source=STRANGER):
            return
    raise AssertionError(f"port {port} stays open")


@contextmanager
def full_listener() -> Iterator[int]:
    """A port where connections are neither taken nor refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        yield port
