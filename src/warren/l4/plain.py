"""Kind ``plain``: what comes in goes to the backends as it is."""

from __future__ import annotations

from warren.l4.config import Entry
from warren.l4.kinds import Incoming, Tools


async def handle(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    connected = await tools.connect(entry.way, incoming.client, incoming.local)
    tools.carry(incoming.sock, connected.sock, idle_s=entry.way.idle_s)
