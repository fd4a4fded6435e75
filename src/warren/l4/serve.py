"""The entries of a Config at work: what is new is begun, what changed is changed, what is gone ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from warren import log
from warren.l4.config import Config, Entry, Status
from warren.l4.connect import Dialler
from warren.l4.entry import StreamEntry
from warren.l4.kinds import Running, StreamKind
from warren.l4.overlay import OverlaySockets
from warren.l4.pump import Pump
from warren.l4.selector import StreamSelector
from warren.l4.tools import EntryTools, Question, Shared

_log = log.get("streams")

KINDS: Final = {
    "plain": ("warren.l4.plain", "handle"),
    "ftp": ("warren.l4.ftp", "handle"),
    "socks": ("warren.l4.socks", "handle"),
    "sni": ("warren.l4.sni", "handle"),
    "ended": ("warren.l4.peers", "handle_ended"),
    "transparent": ("warren.l4.transparent", "handle"),
}
"""Where the kinds of streams are; each is imported when the first entry of it is begun."""

LOOK_S: Final = 1.0


class _Work:
    """An entry and its tools."""

    __slots__ = ("running", "tools")

    def __init__(self, running: Running, tools: EntryTools) -> None:
        self.running = running
        self.tools = tools


class Server:
    """All entries of the process. ``question`` asks the agent, ``changed`` is called when a state did."""

    def __init__(
        self,
        overlay: OverlaySockets,
        question: Question,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        closed: Sequence[Path] = (),
        selector: StreamSelector | None = None,
    ) -> None:
        """``closed``: directories whose Unix sockets are no targets. ``selector``: see :class:`Pump`."""
        self._pump = Pump(selector=selector)
        self._shared = Shared(overlay, self._pump, Dialler(overlay, clock, closed), question, clock)
        self._changed = changed
        self._work: dict[str, _Work] = {}
        self._order: tuple[str, ...] = ()
        self._lookup = ""
        self._answering: _Lookup | None = None
        self._configuring = asyncio.Lock()
        self._looking: asyncio.TimerHandle | None = None
        self._seen: Mapping[str, tuple[str, str]] = {}

    async def configure(self, config: Config) -> Status:
        """Make it so; raises OperationFailed when clients of Caddy cannot be looked up."""
        async with self._configuring:
            wanted = {entry.id: entry for entry in config.entries}
            for gone in [one for one, work in self._work.items() if not _stays(work.running.entry, wanted.get(one))]:
                await self._work.pop(gone).running.close()
            changed = [one for one in self._work if self._work[one].running.entry != wanted[one]]
            await asyncio.gather(*(self._work[one].running.update(wanted[one]) for one in changed))
            # What ended has let its places go by now.
            await asyncio.gather(*(self._begin(entry) for entry in wanted.values() if entry.id not in self._work))
            self._order = tuple(wanted)
            await self._answer_at(config.peer_lookup)
            self._look()
            return self.status()

    def status(self) -> Status:
        known = [self._work[one] for one in self._order if one in self._work]
        return Status(entries=tuple(work.tools.fill(work.running.state()) for work in known))

    async def close(self) -> None:
        """End everything."""
        await self.configure(Config())
        if self._looking is not None:
            self._looking.cancel()
        self._pump.close()

    def _look(self) -> None:
        """States of entries of UDP change without a word: they are looked at."""
        if self._looking is not None:
            self._looking.cancel()
        known = [work.running for work in self._work.values() if not isinstance(work.running, StreamEntry)]
        states = [one.state() for one in known]
        seen = {state.id: (state.state, state.reason) for state in states}
        if any(self._seen.get(entry_id, now) != now for entry_id, now in seen.items()):
            self._changed()
        self._seen = seen
        self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look) if known else None

    async def _begin(self, entry: Entry) -> None:
        tools = EntryTools(entry.id, self._shared, transparent=entry.kind == "transparent")
        running: Running
        if _protocol(entry) == "udp":
            datagrams = import_module("warren.l4.datagrams")
            running = cast(Running, datagrams.DatagramEntry(entry, tools))
        else:
            module, name = KINDS[entry.kind]
            kind = cast(StreamKind, getattr(import_module(module), name))
            running = StreamEntry(entry, tools, kind, self._changed)
        self._work[entry.id] = _Work(running, tools)
        await running.open()

    async def _answer_at(self, path: str) -> None:
        if path == self._lookup:
            return
        if self._answering is not None:
            await self._answering.close()
            self._answering = None
        self._lookup = ""
        if path:
            lookup = import_module("warren.l4.peer_lookup")
            answering = cast(_Lookup, lookup.PeerLookup(Path(path)))
            await answering.start()
            self._answering, self._lookup = answering, path


class _Lookup:
    """What is used of :class:`warren.l4.peer_lookup.PeerLookup`."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def _protocol(entry: Entry) -> str:
    return entry.listen[0].protocol if entry.listen else "tcp"


def _stays(now: Entry, then: Entry | None) -> bool:
    """Whether what runs can become what is wanted."""
    return then is not None and now.kind == then.kind and _protocol(now) == _protocol(then)
