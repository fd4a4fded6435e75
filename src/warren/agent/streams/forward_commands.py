"""Forwards and SOCKS servers by command: made, and if they do not work from the start, not there at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from warren import log
from warren.agent.streams.config import FORWARDS_MAX, StreamConfig
from warren.agent.streams.forward_store import ForwardStore
from warren.agent.streams.forward_text import Forward, Socks, parse_forward, parse_place, parse_socks
from warren.agent.streams.forwards import Asked
from warren.agent.streams.keeper import StreamKeeper
from warren.errors import OperationFailed, UsageError, WarrenError
from warren.proto.control.local import Stream

_log = log.get("streams")


class Forwards:
    """Single owner. ``keeper`` runs while it is used."""

    def __init__(self, keeper: StreamKeeper, store: ForwardStore, config: Callable[[], StreamConfig]) -> None:
        self._keeper = keeper
        self._store = store
        self._config = config
        self._ended: dict[str, asyncio.Event] = {}
        """Of those that a command holds: set when they were removed."""
        self._one_at_a_time = asyncio.Lock()

    def load(self) -> None:
        """Have what was kept; before the keeper runs."""
        wishes, trouble = self._store.load()
        if trouble:
            _log.warning("%s", trouble)
        for wish in wishes:
            self._keeper.asked[wish.place] = Asked(wish, "kept")

    async def keep(self, listen: str, target: str | None) -> Stream:
        """From now on, until it is removed. ``target`` None: a SOCKS5 server.

        Raises UsageError for what cannot be understood, OperationFailed when it does not work; it is then not there.
        """
        return await self._add(_parsed(listen, target), "kept")

    @asynccontextmanager
    async def hold(self, listen: str, target: str | None) -> AsyncIterator[tuple[Stream, asyncio.Event]]:
        """As long as the block runs; the event is set when it was removed meanwhile. Raises as :meth:`keep`."""
        wish = _parsed(listen, target)
        stream = await self._add(wish, "held")
        asked = self._keeper.asked[wish.place]
        ended = self._ended[wish.place] = asyncio.Event()
        try:
            yield stream, ended
        finally:
            if self._keeper.asked.get(wish.place) is asked:
                del self._keeper.asked[wish.place]
                self._keeper.wake()
            if self._ended.get(wish.place) is ended:
                del self._ended[wish.place]

    async def all(self) -> tuple[Stream, ...]:
        """Those by command and those of agent.toml."""
        await self._keeper.refresh()
        return tuple(stream for stream in self._keeper.streams if stream.origin != "network")

    async def remove(self, place: str) -> None:
        """The one that listens at ``place``. Raises UsageError, and OperationFailed when there is none."""
        try:
            place = parse_place(place)
        except ValueError as error:
            raise UsageError(str(error)) from None
        async with self._one_at_a_time:
            if place not in self._keeper.asked:
                if any(place == forward.place for forward in self._stated()):
                    raise OperationFailed(f"the forward at {place} stands in agent.toml: take it out there")
                known = ", ".join(sorted(self._keeper.asked)) or "none"
                raise OperationFailed(f"there is no forward at {place}; there are: {known}")
            asked = self._keeper.asked.pop(place)
            try:
                if asked.origin == "kept":
                    self._save()
            except WarrenError:
                self._keeper.asked[place] = asked
                raise
            ended = self._ended.pop(place, None)
            if ended is not None:
                ended.set()
            await self._keeper.settle()

    async def _add(self, wish: Forward | Socks, origin: Literal["kept", "held"]) -> Stream:
        async with self._one_at_a_time:
            self._check(wish, origin)
            self._keeper.asked[wish.place] = Asked(wish, origin)
            try:
                await self._keeper.settle()
                found = next((one for one in self._keeper.streams if one.id == wish.id), None)
                if found is None or found.state == "pending":
                    raise OperationFailed("the stream process does not say how it is: look into the agent's log")
                if found.state != "listening":
                    raise OperationFailed(found.reason)
                if origin == "kept":
                    self._save()
            except BaseException:
                del self._keeper.asked[wish.place]
                self._keeper.wake()
                raise
            return found

    def _check(self, wish: Forward | Socks, origin: Literal["kept", "held"]) -> None:
        """Before anything listens: whether it makes sense."""
        if wish.place in self._keeper.asked or any(wish.place == stated.place for stated in self._stated()):
            raise OperationFailed(
                f"there is a forward at {wish.place} already; remove it first, or choose another port"
            )
        if len(self._keeper.asked) >= FORWARDS_MAX:
            raise OperationFailed(f"there are {FORWARDS_MAX} forwards already; remove some")
        item = self._keeper.item(Asked(wish, origin))
        if item.problem:
            raise OperationFailed(item.problem)
        other = self._keeper.listener_at(item)
        if other:  # which would have to give way, or the other way round after the next start
            what = "path" if wish.place.startswith("unix:") else "port"
            raise OperationFailed(f"{wish.place} is taken by {other}: choose another {what}")

    def _stated(self) -> tuple[Forward | Socks, ...]:
        config = self._config()
        return config.forwards if config.socks is None else (*config.forwards, config.socks)

    def _save(self) -> None:
        self._store.save(asked.what for asked in self._keeper.asked.values() if asked.origin == "kept")


def _parsed(listen: str, target: str | None) -> Forward | Socks:
    try:
        return parse_socks(listen) if target is None else parse_forward(listen, target)
    except ValueError as error:
        raise UsageError(str(error)) from None
