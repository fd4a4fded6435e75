"""What the machines of paths and relays have decided, carried out: courses, bases, sockets, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from warren import log
from warren.paths import events as paths
from warren.paths.values import Path
from warren.reach.arrivals import Arrivals
from warren.reach.parts import Parts
from warren.reach.relay_values import BasesChanged, Came, ChannelBound, Reflected, UdpBlocked

_log = log.get("reach")


class Outcomes:
    """``selected`` is called when the path to a node is another."""

    def __init__(self, parts: Parts, arrivals: Arrivals, selected: Callable[[bytes], None]) -> None:
        self._parts = parts
        self._arrivals = arrivals
        self._selected = selected

    def of_relays(self, now: float) -> None:
        parts = self._parts
        for event in parts.relays.take_events():
            match event:
                case Came(base, peer, data):
                    self._arrivals.relayed(base, peer, data, now)
                case ChannelBound(base):
                    for node in parts.courses.refresh(base):
                        parts.owner.course_changed(node)
                case BasesChanged():
                    self.set_bases(now)
                    parts.outside.again(now)
                case Reflected(_, mapped):
                    parts.outside.reflected(mapped, now)
                case UdpBlocked(blocked):
                    parts.udp_blocked = blocked
                    parts.outside.again(now)
                    parts.paths.network_changed(now)
                    _log.info("%s: UDP %s", parts.network, "seems to be blocked here" if blocked else "passes")

    def of_paths(self, now: float) -> None:
        parts = self._parts
        for event in parts.paths.take_events():
            match event:
                case paths.Selected(node, path, why):
                    self._select(node, path, why, now)
                case paths.Mtu(node, _, size):
                    parts.peers.measured(node, size)
                    parts.owner.reach_changed()
                case paths.Mapped(base, address):
                    parts.outside.seen(base, address)
                    parts.tell_due = True
                case paths.SocketsWanted(node, count, base):
                    parts.paths.sockets_opened(node, parts.sockets.open(node, count, base), now)
                case paths.SocketsDone(node, keep):
                    parts.sockets.done(node, keep, parts.drive.port)
                case paths.SignalWanted(node, data):
                    parts.owner.send_signal(node, data)
                case paths.Learned(_, envelope):
                    parts.owner.learned(envelope)

    def _select(self, node: bytes, path: Path | None, why: str, now: float) -> None:
        parts = self._parts
        before = parts.courses.path(node)
        parts.peers.selected(node, why, lost=path is None)
        if path is not None:
            self._arrivals.keep_channels(path.base)
        if parts.courses.select(node, path, now) or path is None:
            parts.owner.course_changed(node)
        self._selected(node)
        if before is not None and before.base.kind == "relay" and path != before:
            parts.relays.doubt(before.base, now)

    def set_bases(self, now: float) -> None:
        """Addresses of this host or allocations are others."""
        parts = self._parts
        ready = [leg for leg in parts.relays.legs() if leg.ready]
        relayed = tuple((leg.base.relay, address) for leg in ready for address in leg.client.relayed)
        bases = (*parts.drive.bases, *(leg.base for leg in ready))
        by = tuple((leg.base.relay, leg.interface) for leg in ready if leg.interface)
        parts.paths.set_bases(bases, now, replace(parts.around, relayed=relayed, relay_uplinks=by))
        parts.outside.look_in_mirrors(now)
