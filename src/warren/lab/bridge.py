"""An Ethernet switch between lab hosts."""

from __future__ import annotations

import itertools
from pathlib import Path

from warren.lab.host import Host

INTERFACE = "br0"


class Bridge(Host):
    """A bridge in a host of its own: ``run`` and ``capture(INTERFACE)`` look at it. Made by :meth:`Lab.bridge`.

    It floods multicast and forwards at once: no spanning tree, no snooping.
    """

    def __init__(self, name: str, *, artifacts: Path, scratch: Path) -> None:
        super().__init__(name, artifacts=artifacts, scratch=scratch)
        self._ports = itertools.count()

    def set_up(self) -> None:
        # The switch itself takes part in nothing: no address, not even a link-local one.
        self.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        self.ip(
            f"link add {INTERFACE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
            f"link set {INTERFACE} up",
        )

    def new_port(self) -> str:
        """The name for the next interface that :meth:`take_port` will make part of the bridge."""
        return f"port{next(self._ports)}"

    def take_port(self, interface: str) -> None:
        """Make an interface of this host a port of the bridge."""
        self.ip(f"link set {interface} master {INTERFACE}")
