"""Ways in through this host's gateways (PCP, NAT-PMP, UPnP-IGD) for one UDP port: the lease machine on a real host.

async with PortMapping(port=…, gateways=…, changed=…) as mapping:
    mapping.mapped          # what the gateways have given; trust only what is verified
    mapping.refresh()       # the port, the network or the switch is another
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Self

from warren import log
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.portmap.exchange import Datagram, Fetching
from warren.proto.portmap.http import Response
from warren.proto.portmap.lease import PortMapper
from warren.proto.portmap.standing import Declined, Gained, Lost
from warren.proto.portmap.values import Found, Gateway, Mapped
from warren.reach.portmap_sockets import Sockets

__all__ = ["Declined", "Found", "Gateway", "Mapped", "PortMapping", "discover"]

RELEASE_WITHIN_S: Final = 2.0
DISCOVER_WITHIN_S: Final = 8.0
_SLEEP_MAX_S: Final = 60.0  # the event loop's clock stands still while the machine sleeps, ours does not

_log = log.get("portmap")


def boot_clock() -> float:
    """Seconds since boot, those asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PortMapping:
    """Keeps ways in to one port. Owned by one event loop; nothing that a gateway does ends it or is raised.

    ``port`` says which UDP port (0: none yet), ``gateways`` which default routers there are, ``enabled`` whether ports
    may be mapped at all: while it says no, not a packet is sent, but to give back what is held. They are asked at the
    start and by :meth:`refresh`. ``changed`` is called when :attr:`mapped` is another. ``secret``: 32 bytes that the
    node keeps, so that after a crash a PCP gateway knows it again; None: new ones.
    """

    def __init__(
        self,
        *,
        port: Callable[[], int],
        gateways: Callable[[], Sequence[Gateway]],
        changed: Callable[[], None] = lambda: None,
        enabled: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = boot_clock,
        random: Callable[[int], bytes] = os.urandom,
        secret: bytes | None = None,
    ) -> None:
        self._port = port
        self._gateways = gateways
        self._changed = changed
        self._enabled = enabled
        self._clock = clock
        self._mapper = PortMapper(random=random, secret=secret)
        self._sockets: Sockets | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._settled = asyncio.Event()
        self._told: frozenset[tuple[object, ...]] = frozenset()

    # What is known

    @property
    def mapped(self) -> tuple[Mapped, ...]:
        """What is held, verified or not; one for each gateway at the most."""
        return self._mapper.mapped(self._clock())

    @property
    def found(self) -> tuple[Found, ...]:
        """Which gateway speaks what, as far as it had to be asked."""
        return self._mapper.found

    @property
    def problems(self) -> tuple[Declined, ...]:
        """What was refused, and why."""
        return self._mapper.problems

    def confirm(self, address: TransportAddress) -> bool:
        """An authenticated packet came in from outside by ``address``: that mapping is real. Whether it is one."""
        found = self._mapper.confirm(address)
        self._tell()
        return found

    def observed(self, address: TransportAddress, source: IPAddress | None = None) -> None:
        """A relay or coordinator sees the port at ``address``, for packets that left from ``source`` (None: unknown):
        a mapping of that very address is real, and one of another IP address is behind a second NAT.
        """
        self._mapper.observed(address, source)
        self._tell()

    # Life

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin. Needs a running event loop."""
        if self._sockets is None:
            self._sockets = Sockets(self._receive, self._fetched, self._announced)
            self._configure()

    def refresh(self) -> None:
        """Port, gateways or the switch may be others, or the network changed: look again, now."""
        if self._sockets is not None:
            self._configure()
            self._mapper.again(self._clock())
            self._pump()

    async def close(self) -> None:
        """Give back what is held, waiting at most RELEASE_WITHIN_S for the gateways. Harmless when called twice."""
        if self._sockets is None:
            return
        self._mapper.close(self._clock())
        self._pump()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_WITHIN_S):
                await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
        sockets, self._sockets = self._sockets, None
        await sockets.close()

    async def settled(self) -> None:
        """Return when each gateway has given a way in, or has been asked in every protocol."""
        await self._settled.wait()

    # Between the machine and the sockets

    def _configure(self) -> None:
        enabled, now = self._enabled(), self._clock()
        gateways = self._gateways() if enabled else ()
        self._mapper.configure(enabled=enabled, port=self._port(), gateways=gateways, now=now)
        if self._sockets is not None:
            self._sockets.listen(bool(gateways))
        self._pump()

    def _receive(self, lane: int, data: bytes, remote: TransportAddress) -> None:
        self._mapper.receive(lane, data, remote, self._clock())
        self._pump()

    def _fetched(self, lane: int, number: int, response: Response | None) -> None:
        self._mapper.fetched(lane, number, response, self._clock())
        self._pump()

    def _announced(self, data: bytes, remote: TransportAddress) -> None:
        self._mapper.announced(data, remote, self._clock())
        self._pump()

    def _on_timer(self) -> None:
        self._mapper.handle_timeout(self._clock())
        self._pump()

    def _pump(self) -> None:
        """Send what is to be sent, tell what happened, and wake again in time."""
        sockets = self._sockets
        if sockets is None:
            return
        for transmit in self._mapper.take_transmits():
            match transmit:
                case Datagram():
                    sockets.send(transmit)
                case Fetching():
                    sockets.fetch(transmit)
                case _:
                    sockets.forget(transmit.lane)
        for event in self._mapper.take_events():
            _note(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._mapper.next_deadline()
        if deadline is not None:
            delay_s = min(max(deadline.at - self._clock(), 0.0), _SLEEP_MAX_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)
        for flag, holds in ((self._idle, self._mapper.is_idle), (self._settled, self._mapper.is_settled)):
            (flag.set if holds else flag.clear)()
        self._tell()

    def _tell(self) -> None:
        now = frozenset((one.address, one.verified, one.double_nat, one.gateway) for one in self.mapped)
        if now != self._told:
            self._told = now
            self._changed()


async def discover(
    gateways: Sequence[Gateway],
    *,
    within_s: float = DISCOVER_WITHIN_S,
    clock: Callable[[], float] = boot_clock,
    random: Callable[[int], bytes] = os.urandom,
) -> tuple[Found, ...]:
    """Which protocols these gateways speak; nothing is mapped. Never raises."""
    mapping = PortMapping(port=lambda: 0, gateways=lambda: gateways, clock=clock, random=random)
    async with mapping:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await mapping.settled()
        return mapping.found


def _note(event: Gained | Lost | Declined | Found) -> None:
    match event:
        case Gained(gateway, lease):
            _log.info("%s has mapped %s to port %s by %s", gateway, lease.external, lease.internal_port, lease.protocol)
        case Lost(gateway, lease, why):
            _log.info("%s no longer maps %s: it %s", gateway, lease.external, why)
        case Declined(gateway, protocol, why):
            _log.info("%s gives no port by %s: it %s", gateway, protocol, why)
        case Found(gateway, protocol, detail):
            _log.debug("%s speaks %s%s", gateway, protocol, f" ({detail})" if detail else "")
