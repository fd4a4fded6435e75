"""The gateway's Caddy: kept running with the sites there are, watched, and started again when it ends.

Caddy takes a new configuration without a break for requests, but it ends all WebSockets. So when the sites change while
there are some, another process of Caddy is started with the new configuration at other ports, and new connections are
led there; the one before keeps its WebSockets, lets go of everybody else after the next request, and ends when it has
none left (:mod:`~warren.ingress.earlier`). nginx and HAProxy reload in this way, too. All processes have one storage:
they wait for each other there when they ask for certificates, and each answers for what the others have asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from warren import log
from warren.errors import OperationFailed, Unreachable, WarrenError
from warren.ingress.earlier import Earlier
from warren.ingress.generation import Generation, numbers
from warren.ingress.log_lines import Certificates, Line
from warren.ingress.lookup import Lookup
from warren.ingress.sites import Ports, Settings, Site
from warren.ingress.stored import Repairs, valid_for_s

__all__ = ["Caddy", "Ports", "Settings", "Site"]

BACK_OFF_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
STEADY_S: Final = 60.0
"""One that has run for so long is started again at once when it ends."""
FOLLOWED_AFTER_S: Final = 5.0
"""Changes of sites within that time are made together, when each would take another process."""
REFUSED_FOR_S: Final = 30.0
"""How long a configuration that a further process did not take is not tried in another one."""

_log = log.get("caddy")


class Caddy:
    """Ends TLS and speaks HTTP for sites. :meth:`let_go` (or killing the process that has the object) leaves Caddy
    running: the next one finds it, and its connections go on.

    ``changed`` is set when :meth:`problems` or :attr:`ports` may be others than before, and when :meth:`keep` has put
    something off that can be done now.
    """

    def __init__(self, settings: Settings, peer_lookup: Path) -> None:
        self._settings = settings
        self._peer_lookup = peer_lookup
        self._lookup = Lookup(peer_lookup)
        self._sites: tuple[Site, ...] = ()
        self._current: Generation | None = None
        self._earlier = Earlier(self._lookup)
        self._followed_at: float | None = None
        self._refused: tuple[tuple[Site, ...], OperationFailed, float] | None = None
        self._putting_off: asyncio.TimerHandle | None = None
        self._looked_around = False
        self._watching: asyncio.Task[None] | None = None
        self._certificates = Certificates(partial(valid_for_s, settings.storage))
        self._repairs = Repairs()
        self._down = ""
        self._closed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self.ports: Ports | None = None
        self.changed = asyncio.Event()

    async def find(self) -> Ports | None:
        """Take over what runs already, and say where it is; None: nothing that serves anything."""
        async with self._one_at_a_time:
            await self._take_over()
            return self.ports

    async def ready(self) -> Ports:
        """Where sites will be: Caddy runs and listens there when this returns. It asks for certificates as soon as it
        has sites to keep, and the authority then comes by the front doors, which have to lead here by then.

        Raises as :meth:`keep` does.
        """
        async with self._one_at_a_time:
            current = await self._begin()
            if current.ports is None:
                await self._reconfigure(current, ())
            if self.ports is None:
                raise Unreachable("Caddy has just ended; it is started again")
            return self.ports

    async def keep(self, sites: Sequence[Site]) -> Ports | None:
        """Serve these sites and no others from now on; where is returned. They are at other ports than before where
        that takes another process: lead new connections there at once.

        Without sites nothing runs, and None is returned. Where changes follow each other quickly the later ones may be
        put off for some seconds: then nothing is done, and ``changed`` is set when it is time to call this again.

        Raises OperationFailed when Caddy is not installed or does not take the configuration: what was in force before
        stays so, at :attr:`ports`. Raises Unreachable when it ended or hung meanwhile: another is started for these
        sites, and ``changed`` is set then.
        """
        wanted = tuple(sites)
        async with self._one_at_a_time:
            if not wanted:
                await self._end()
                return None
            if (wanted != self._sites or self._current is None) and not await self._serve(wanted):
                return self.ports
            self._sites = wanted
            self._certificates.keep_only(frozenset(domain for site in wanted for domain in site.domains))
            return self.ports

    def problems(self) -> Mapping[str, str]:
        """By connector, a sentence: that Caddy has ended, or why there is no certificate or it is not renewed (all of
        which is tried again).
        """
        found: dict[str, str] = {}
        for site in self._sites:
            trouble = self._down or self._certificates.trouble(site.domains)
            if trouble:
                found[site.connector] = trouble
        return found

    @property
    def pid(self) -> int | None:
        """Of the Caddy that new connections go to; None while none runs."""
        return None if self._current is None else self._current.pid

    @property
    def earlier(self) -> int:
        """How many others are still there."""
        return len(self._earlier)

    async def wait_closed(self) -> None:
        """Return after :meth:`close` or :meth:`let_go`; a Caddy that ends by itself is started again."""
        await self._closed.wait()

    async def close(self) -> None:
        """End Caddy, and with it all connections to sites."""
        async with self._one_at_a_time:
            await self._end()
        self._closed.set()

    async def let_go(self) -> None:
        """Look after it no more: Caddy and its connections go on, and the next object finds it."""
        async with self._one_at_a_time:
            await self._stop_watching()
            if self._current is not None:
                await self._current.let_go()
                self._current = None
            await self._earlier.let_go()
        self._closed.set()

    # Under the lock

    async def _serve(self, sites: tuple[Site, ...]) -> bool:
        """Whether it is done; False: it is put off."""
        current = await self._begin()
        if current.serves(sites, self._peer_lookup):
            pass
        elif current.ports is None or await self._lookup.websockets(current.ports) == 0:
            await self._reconfigure(current, sites)
        elif self._is_too_soon():
            return False
        else:
            await self._follow(current, sites)
        self._down = ""
        return True

    async def _begin(self) -> Generation:
        """The one that runs: of an agent before, or started now."""
        await self._take_over()
        if self._current is None:
            self._current = await self._start()
            self._watch_it()
        return self._current

    async def _take_over(self) -> None:
        if self._current is None and not self._looked_around:
            self._looked_around = True
            self._current = await self._look_around()
            if self._current is not None:
                self.ports = self._current.ports
                self._watch_it()

    def _watch_it(self) -> None:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="Caddy")

    async def _start(self) -> Generation:
        number = max(numbers(self._settings), default=0) + 1
        return await Generation.start(self._settings, number, self._hear, self._repairs)

    async def _look_around(self) -> Generation | None:
        """What an agent before has left: the latest that serves something is kept on, the earlier ones seen off."""
        found = []
        for number in numbers(self._settings):
            try:
                found.append(await Generation.attach(self._settings, number, self._hear, self._repairs))
            except Unreachable:
                continue
        serving = [one for one in found if one.ports is not None]
        for one in found:
            if one.finishes or one in serving[:-1]:
                await self._earlier.add(one)
            elif one not in serving:  # its agent was killed before it told it anything
                await one.close()
        return serving[-1] if serving else None

    async def _reconfigure(self, current: Generation, sites: tuple[Site, ...]) -> None:
        try:
            await current.serve(sites, self._peer_lookup, self.ports)
        except OperationFailed:
            if not self._sites and (current.ports is None or current.serves((), self._peer_lookup)):
                await self._end()  # nothing half-configured stays behind
            elif current.ports is None:
                await current.end()  # another is started, with the sites of before
            raise
        except Unreachable:  # it has just ended, or hangs: another is started, for what is wanted now
            self._sites = sites
            await current.end()
            raise
        self.ports = current.ports

    async def _follow(self, current: Generation, sites: tuple[Site, ...]) -> None:
        """Another process takes over; when it does not take the configuration nothing has changed."""
        now = asyncio.get_running_loop().time()
        if self._refused is not None and self._refused[0] == sites and now < self._refused[2]:
            raise self._refused[1]
        following = await self._start()
        try:
            await following.serve(sites, self._peer_lookup)
        except BaseException as error:
            if isinstance(error, OperationFailed):
                self._refused = (sites, error, now + REFUSED_FOR_S)
            await following.close()
            raise
        _log.info("Caddy is followed by another process, and keeps the WebSockets that it has")
        self._current, self.ports, self._followed_at = following, following.ports, now
        await self._stop_watching()
        self._watch_it()
        await self._earlier.add(current)

    def _is_too_soon(self) -> bool:
        """Whether another process has to wait; ``changed`` is then set in time."""
        loop = asyncio.get_running_loop()
        left_s = 0.0 if self._followed_at is None else self._followed_at + FOLLOWED_AFTER_S - loop.time()
        if left_s > 0 and self._putting_off is None:
            self._putting_off = loop.call_later(left_s, self._go_on)
        return left_s > 0

    def _go_on(self) -> None:
        self._putting_off = None
        self.changed.set()

    async def _end(self) -> None:
        await self._stop_watching()
        if self._current is None and not self._looked_around:
            self._current = await self._look_around()
        await self._earlier.close()
        if self._current is not None:
            await self._current.close()
        self._current, self.ports, self._followed_at = None, None, None
        self._looked_around = False
        self._sites = ()
        self._down = ""

    async def _stop_watching(self) -> None:
        if self._putting_off is not None:
            self._putting_off.cancel()
            self._putting_off = None
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    # Watching

    async def _watch(self) -> None:
        """Start it again whenever it ends, with the sites that it had."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            current = self._current
            if current is not None:
                began = loop.time()
                why = await current.over()
                failures = 0 if loop.time() - began >= STEADY_S else failures
                async with self._one_at_a_time:
                    if self._current is current:
                        self._current = None
                        await current.close()
                self._tell(f"{why}; it is started again")
            wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)] if failures else 0.0
            failures += 1
            await asyncio.sleep(wait_s)
            async with self._one_at_a_time:
                if self._current is None:
                    await self._revive()

    async def _revive(self) -> None:
        try:
            self._current = await self._start()
            await self._current.serve(self._sites, self._peer_lookup, self.ports)
        except WarrenError as error:
            if self._current is not None:
                await self._current.close()
                self._current = None
            self._tell(str(error))
        else:
            self.ports = self._current.ports
            self._down = ""
            self.changed.set()
            _log.info("Caddy runs again")

    def _tell(self, trouble: str) -> None:
        _log.warning("%s", trouble)
        self._down = trouble
        self.changed.set()

    def _hear(self, line: Line) -> None:
        if self._certificates.take(line):
            self.changed.set()
