"""What the parts of one network's reach share: its machines, the world, and the little that is not a machine's."""

from __future__ import annotations

from dataclasses import dataclass, field

from warren.paths.connectivity import Connectivity
from warren.paths.values import Surroundings
from warren.reach.courses import Courses
from warren.reach.doors import Doors, Owner
from warren.reach.drive import Drive
from warren.reach.outside import Outside
from warren.reach.peers import Peers
from warren.reach.sockets import PunchSockets
from warren.reach.uplinks import Uplinks


@dataclass(slots=True, eq=False)
class Parts:
    """Owned by :class:`warren.reach.reach.Reach`, in whose event loop all of it is used."""

    network: str
    """Its name, for the log."""
    doors: Doors
    owner: Owner
    paths: Connectivity
    peers: Peers
    relays: Uplinks
    sockets: PunchSockets
    drive: Drive
    outside: Outside
    courses: Courses
    around: Surroundings = field(default_factory=Surroundings)
    """Of this host."""
    port_number: int = 0
    """The tunnel's UDP port."""
    udp_blocked: bool = False
    tell_due: bool = True
    """Something changed that the owner may have to be told of."""

    @property
    def now(self) -> float:
        return self.doors.clock()
