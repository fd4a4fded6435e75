"""One gateway: which protocols it speaks, and the one lease that is held there.

PCP and NAT-PMP share a port and are asked one after the other, in one *lane*; UPnP has its own. In each lane one
request is outstanding at a time (RFC 6886 §3.1). At the gateway one lease is held, of the first protocol to give it::

    lane 0    PCP probe ──▶ map ──▶ NAT-PMP probe ──▶ map ──┐  nothing: rest, then again
    lane 1    UPnP probe ───────────────────── (lane 0 has nothing) ──▶ map

    map ──▶ lease ──┬─ half of its life ─────────────────────────▶ renew ──▶ lease
                    ├─ every few minutes ──▶ watch ─┬─ still there ──▶ lease
                    │                               └─ gone, silent ─▶ renew
                    ├─ the gateway began anew, or says so to all ──▶ renew (paced)
                    ├─ another port is wanted, or none ────────────▶ release
                    └─ refused, or its time is up ─────────────────▶ lost, as at the beginning
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.portmap.exchange import Script, Transmit
from warren.proto.portmap.holding import Holding
from warren.proto.portmap.http import Response
from warren.proto.portmap.natpmp_client import NatPmpClient
from warren.proto.portmap.pcp_client import PcpClient
from warren.proto.portmap.standing import NEVER_RESTS, Client, Declined, Event, Lane, Standing, Task
from warren.proto.portmap.upnp_client import UpnpClient
from warren.proto.portmap.values import Found, Gateway, Lease, Refusal, is_ipv4
from warren.proto.wireguard.timers import Deadline

RETRY_S: Final = 900.0
"""Before a protocol that is not there, or refused, is tried again."""
RETRY_LEAST_S: Final = 30.0
ANNOUNCED_WITHIN_S: Final = 5.0
"""After an announcement all hosts of the link act at once; each waits a random part of this (RFC 6887 §14.1.3)."""
HEED_S: Final = 60.0
"""Between two announcements that are looked into although they do not say that the gateway began anew."""


class GatewayClient:
    """Five verbs; single owner. Nothing that a gateway sends ends it. ``lanes`` are two numbers for its transmits.

    ``nonce`` gives the PCP nonce of an internal port, ``random`` random bytes.
    """

    def __init__(
        self,
        gateway: Gateway,
        *,
        lanes: tuple[int, int],
        nonce: Callable[[int], bytes],
        random: Callable[[int], bytes],
        now: float,
    ) -> None:
        self.gateway = gateway
        self._random = random
        direct: list[Client] = [PcpClient(gateway, nonce)]
        if is_ipv4(gateway):
            direct.append(NatPmpClient(gateway))
        self._direct = Lane(lanes[0], direct)
        self._lanes = (self._direct, Lane(lanes[1], [UpnpClient(gateway, random)]))
        self.holding = Holding(gateway, self._draw)
        """The lease, if there is one, and what is known of it."""
        self._port = 0
        self._stopping = False
        self._transmits: list[Transmit] = []
        self._events: list[Event] = []
        self._again_at = self._heed_at = now

    # What is wanted

    def want(self, port: int, now: float) -> None:
        """From now on a way in to this UDP port; 0: only know what the gateway speaks. What is held for another port is
        released.
        """
        if port != self._port:
            self._port = port
            self._abandon(Task.MAP, Task.RENEW)
        self._go(now)

    def again(self, now: float) -> None:
        """Something changed nearby: try what did not work, and look whether the lease still holds."""
        if now < self._again_at:
            return
        self._again_at = now + RETRY_LEAST_S / 10
        for lane in self._lanes:
            for standing in lane.standings:
                standing.rest_until = NEVER_RESTS
        self.holding.watch_by(now)
        self._go(now)

    def stop(self, now: float) -> None:
        """Release what is held; then :attr:`is_idle` for good."""
        self._stopping = True
        self._port = 0
        self._abandon(*Task)
        self._go(now)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way and nothing is held."""
        return self.holding.lease is None and all(lane.is_idle for lane in self._lanes)

    # What is known

    def found(self) -> list[Found]:
        spoken = [standing.client for lane in self._lanes for standing in lane.standings if standing.spoken]
        return [Found(self.gateway, client.name, client.detail) for client in spoken]

    def problems(self) -> list[Declined]:
        standings = [standing for lane in self._lanes for standing in lane.standings if standing.why]
        return [Declined(self.gateway, standing.client.name, standing.why) for standing in standings]

    @property
    def is_settled(self) -> bool:
        """Every protocol has been tried, or one has given a lease."""
        if any(lane.exchange for lane in self._lanes):
            return False
        return self.holding.lease is not None or all(
            one.spoken is not None for lane in self._lanes for one in lane.standings
        )

    # The five verbs

    def receive(self, lane: int, data: bytes, remote: TransportAddress, now: float) -> None:
        for one in self._lanes:
            if one.number == lane and one.exchange is not None:
                one.exchange.receive(data, remote, now)
        self._go(now)

    def fetched(self, lane: int, number: int, response: Response | None, now: float) -> None:
        for one in self._lanes:
            if one.number == lane and one.exchange is not None:
                one.exchange.fetched(number, response, now)
        self._go(now)

    def announced(self, data: bytes, now: float) -> None:
        """The gateway told something to all hosts; forged, it makes us ask the gateway, now and then.

        An epoch that jumped back makes the lease be renewed. Whatever else is told, in whichever of the two protocols,
        may come from a restart, too: whether the lease is still there is asked soon.
        """
        if self._stopping:
            return
        holding = self.holding
        if holding.lease is None:
            if now >= self._heed_at:
                self._heed_at = now + HEED_S
                self.again(now)
            return
        delay_s = ANNOUNCED_WITHIN_S * self._draw()
        client = holding.standing.client if holding.standing is not None else None
        anew = False
        if client is not None and not isinstance(client, UpnpClient):
            with contextlib.suppress(MalformedPacket):
                anew = client.announced_untrusted(data, now, holding.lease)
        if anew:
            holding.recover(now, delay_s)
        elif now >= self._heed_at:
            self._heed_at = now + HEED_S
            holding.watch_by(now + delay_s)
        self._go(now)

    def handle_timeout(self, now: float) -> None:
        for lane in self._lanes:
            if lane.exchange is not None:
                lane.exchange.handle_timeout(now)
        self._go(now)

    def next_deadline(self) -> Deadline | None:
        waits = [lane.exchange.next_deadline() for lane in self._lanes if lane.exchange is not None]
        found = [wait for wait in waits if wait is not None]
        if self.holding.lease is not None:
            found += self.holding.deadlines(is_busy=self._busy(self.holding.standing))
        elif not self._stopping:
            rests = [
                standing.rest_until
                for lane in self._lanes
                for standing in lane.standings
                if lane.exchange is None and standing.rest_until > NEVER_RESTS and not self._has_nothing_to_do(standing)
            ]
            found += [Deadline(at, "the gateway is asked again") for at in rests]
        return min(found, default=None)

    def take_transmits(self) -> list[Transmit]:
        taken, self._transmits = self._transmits, []
        return taken

    def take_events(self) -> list[Event]:
        taken, self._events = self._events, []
        return taken

    # What to do next

    def _go(self, now: float) -> None:
        if now >= self.holding.expires_at:
            self._events += self.holding.drop("did not renew it in time")
        for standing in (standing for lane in self._lanes for standing in lane.standings):
            if standing.rest_until <= now:
                standing.rest_until = NEVER_RESTS
        for _ in range(len(Task) * len(self._lanes) * 2):  # each turn ends a task or begins one
            if not any(self._settle(lane, now) or self._begin(lane, now) for lane in self._lanes):
                break

    def _settle(self, lane: Lane, now: float) -> bool:
        """Take the outcome of what is over in this lane."""
        exchange = lane.exchange
        if exchange is None:
            return False
        self._transmits += exchange.take_transmits()
        if not exchange.over:
            return False
        lane.exchange = None
        standing, outcome, holding = lane.standing, exchange.outcome, self.holding
        match lane.task, outcome:
            case Task.PROBE, _:
                self._probed(standing, bool(outcome), now)
            case Task.MAP | Task.RENEW, Lease():
                standing.why = ""
                self._events += holding.take(standing, outcome, now)
            case Task.RENEW, Refusal(silent=True):
                holding.renew_again(now)
            case Task.MAP | Task.RENEW, Refusal():
                self._events += holding.drop(outcome.why)
                lane.leave_behind(keep=outcome.silent)
                self._declined(standing, outcome, now)
            case Task.WATCH, _:
                holding.watch_later(now)
                if not isinstance(outcome, Lease) or standing.client.began_anew:
                    holding.recover(now, 0.0)
            case Task.RELEASE, _ if lane.leftover is not None:
                lane.leftover = None
            case Task.RELEASE, _:
                self._events += holding.drop("was told that it is no longer needed")
        return True

    def _begin(self, lane: Lane, now: float) -> bool:
        """Begin what is due in this lane."""
        if lane.exchange is not None:
            return False
        if lane.leftover is not None:
            standing, left = lane.leftover
            return self._run(lane, Task.RELEASE, standing, standing.client.release(left), now)
        lease, holder = self.holding.lease, self.holding.standing
        if lease is not None and holder is not None:
            if holder not in lane.standings:
                return False
            if lease.internal_port != self._port:
                return self._run(lane, Task.RELEASE, holder, holder.client.release(lease), now)
            if now >= self.holding.renew_at:
                return self._run(lane, Task.RENEW, holder, holder.client.map(self._port, lease), now)
            if now >= self.holding.watch_at:
                return self._run(lane, Task.WATCH, holder, holder.client.watch(lease), now)
            return False
        if self._stopping:
            return False
        for standing in lane.standings:
            if now < standing.rest_until or self._has_nothing_to_do(standing):
                continue
            if not standing.spoken:
                return self._run(lane, Task.PROBE, standing, standing.client.probe(), now)
            if self._may_map(lane, now):
                return self._run(lane, Task.MAP, standing, standing.client.map(self._port, None), now)
            return False
        return False

    def _has_nothing_to_do(self, standing: Standing) -> bool:
        return bool(standing.spoken) and not self._port

    def _may_map(self, lane: Lane, now: float) -> bool:
        """Not while the other lane does, nor by UPnP before the better protocols have been tried."""
        if any(one.exchange is not None and one.task in {Task.MAP, Task.RENEW} for one in self._lanes):
            return False
        direct = self._direct
        return lane is direct or (direct.exchange is None and all(now < one.rest_until for one in direct.standings))

    def _run(self, lane: Lane, task: Task, standing: Standing, script: Script[Any], now: float) -> bool:
        self._transmits += lane.run(task, standing, self.gateway, script, now)
        return True

    # Outcomes

    def _probed(self, standing: Standing, spoken: bool, now: float) -> None:
        if spoken and not standing.spoken:
            self._events.append(Found(self.gateway, standing.client.name, standing.client.detail))
        standing.spoken = spoken
        standing.why = ""
        standing.rest_until = NEVER_RESTS if spoken else self._in_a_while(RETRY_S, now)

    def _declined(self, standing: Standing, refusal: Refusal, now: float) -> None:
        if refusal.silent:
            standing.spoken = None
        rest_s = RETRY_S if refusal.retry_after_s is None else refusal.retry_after_s
        standing.rest_until = self._in_a_while(min(max(rest_s, RETRY_LEAST_S), RETRY_S), now)
        if refusal.why != standing.why:
            standing.why = refusal.why
            self._events.append(Declined(self.gateway, standing.client.name, refusal.why))

    def _abandon(self, *tasks: Task) -> None:
        """End requests of these kinds."""
        for lane in self._lanes:
            if lane.task in tasks:
                self._transmits += lane.abandon()

    def _busy(self, standing: Standing | None) -> bool:
        return any(lane.exchange is not None and lane.standing is standing for lane in self._lanes)

    def _in_a_while(self, seconds: float, now: float) -> float:
        """That, give or take a tenth: hosts that began together do not go on together."""
        return now + seconds * (0.9 + self._draw() / 5)

    def _draw(self) -> float:
        return int.from_bytes(self._random(4), "big") / (1 << 32)
