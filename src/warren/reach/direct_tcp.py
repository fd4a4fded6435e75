"""When members connect to each other over TCP: where one of them sends no UDP, or only small packets get through."""

from __future__ import annotations

from collections.abc import Sequence

from warren.model.tunnel import TransportAddress
from warren.reach.doors import Bridge
from warren.reach.parts import Parts
from warren.reach.tcp_paths import TcpDoors, TcpPaths
from warren.reach.translated import translated, translated_places


class DirectTcp:
    """Decides; :class:`warren.reach.tcp_paths.TcpPaths` offers, answers and keeps the connections."""

    def __init__(self, node: bytes, parts: Parts) -> None:
        """``node``: this one's key."""
        self._parts = parts
        owner = parts.owner
        self.paths = TcpPaths(
            node,
            TcpDoors(parts.doors.clock, self._addresses, self._punch, owner.send_signal, owner.course_changed),
            parts.peers.check_key,
        )

    def consider(self, node: bytes) -> None:
        """The path to ``node``, or what is known of it, may be another."""
        parts = self._parts
        path, peer = parts.courses.path(node), parts.peers.get(node)
        if path is None or peer is None:
            return
        since = self.paths.wanted_since(node)
        if parts.paths.is_narrow(node):
            self.paths.want(node)
        elif not path.relayed:
            if since is not None and parts.paths.is_wide(node, since):
                self.paths.release(node)
        elif parts.udp_blocked or "no-udp" in peer.nat.split():
            self.paths.want(node)

    async def _addresses(self) -> list[TransportAddress]:
        """Where TCP from the port of the tunnel's number comes from."""
        parts = self._parts
        places = translated_places(parts.relays.places(), parts.around)
        seen = await parts.doors.tcp_mapped(places, parts.port_number)
        own = [
            TransportAddress(base.address, parts.port_number) for base in parts.drive.bases if base.address is not None
        ]
        return list(dict.fromkeys([*seen, *own]))

    async def _punch(self, remote: Sequence[TransportAddress], key: bytes, controlling: bool) -> Bridge | None:
        there = translated(remote, self._parts.around)
        return await self._parts.doors.punch_tcp(there, key, controlling, self._parts.port_number)
