"""A forward as it is written: ``[ADDR:]PORT TARGET:PORT[/udp]``.

It listens at ``8080`` (of IPv4's loopback), ``127.0.0.1:8080``, ``[::1]:8080``, ``*:8080`` or ``unix:/PATH`` on the
host's side, or at ``overlay:8080``, which is this node's overlay addresses. Streams go to a member (``db:5432``,
``db.home:5432``) or a service (``page``, which has a port of its own), or to an address of the overlay or behind a
member (``10.7.0.9:5432``); those that come from the overlay may go to the host's side instead (``localhost:5432``,
``192.0.2.7:5432``, ``unix:/PATH``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from warren.model.stream_places import Place, Target, check_no_url, parse_listen, parse_target

OVERLAY: Final = "overlay"
_TARGET_FORM: Final = "say NAME:PORT, ADDRESS:PORT, or the name of a service"
_LISTEN_FORM: Final = f"say PORT, ADDRESS:PORT, *:PORT, {OVERLAY}:PORT or unix:/PATH"


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward. Equal ones listen at the same place, and go to the same target."""

    listen: Place
    target: Target
    """Port 0: that of the service which it names."""
    protocol: Literal["tcp", "udp"] = "tcp"
    overlay: bool = False
    """It listens on this node's overlay addresses at the port of ``listen``."""

    @property
    def place(self) -> str:
        """Where it listens, as it is shown, and named to be removed."""
        where = f"{OVERLAY}:{self.listen.port}" if self.overlay else str(self.listen)
        return where if self.protocol == "tcp" else f"{where}/udp"

    @property
    def aim(self) -> str:
        """Where it goes, as it is shown."""
        return self.target.host if not self.target.port and not self.target.path else str(self.target)

    @property
    def id(self) -> str:
        """Of its entry in the stream process."""
        return f"forward {self.place}"


@dataclass(frozen=True, slots=True)
class Socks:
    """A SOCKS5 server, which needs no target: its clients say where to."""

    listen: Place

    @property
    def place(self) -> str:
        """As that of a forward; no forward may have the same."""
        return str(self.listen)

    @property
    def aim(self) -> str:
        return "the overlay"

    @property
    def id(self) -> str:
        return f"socks {self.place}"


def parse_socks(text: str) -> Socks:
    """``[ADDRESS:]PORT`` of a loopback address. Raises ValueError."""
    place = _listen(text)
    if place.path or place.address is None or not place.address.is_loopback:
        raise ValueError(f"{text!r}: SOCKS asks for no password, so it is for this host alone: say PORT or [::1]:PORT")
    return Socks(place)


def parse_forward(listen: str, target: str) -> Forward:
    """Raises ValueError, saying what it may be."""
    check_no_url(target)
    target, protocol = _protocol(target)
    if not target.partition(":")[0].strip():
        raise ValueError(f"{target!r} is no target: {_TARGET_FORM}")
    goal = parse_target(target) if ":" in target else parse_target(f"{target}:1")._replace(port=0)
    if not goal.port and not goal.path and goal.host[-1].isdigit() and "." in goal.host:
        raise ValueError(f"{target!r} is no target: say {target}:PORT")
    overlay = listen.startswith(f"{OVERLAY}:")
    if overlay and not listen.removeprefix(f"{OVERLAY}:").isdigit():
        raise ValueError(f"{listen!r} is no place to listen: say {OVERLAY}:PORT")
    place = _listen(listen.removeprefix(f"{OVERLAY}:") if overlay else listen)
    if protocol == "udp" and (place.path or goal.path):
        raise ValueError("a Unix socket takes streams only, no UDP")
    if overlay and not goal.port and not goal.path:
        raise ValueError(f"{target!r} is no target: say HOST:PORT or unix:/PATH")
    if goal.path and not overlay:
        raise ValueError(f"{target}: only a forward that listens in the overlay goes to a Unix socket of this host")
    return Forward(place, goal, protocol, overlay)


def parse_place(text: str) -> str:
    """Where a forward listens, as :attr:`Forward.place` says it: what names one that is to be removed."""
    listen, protocol = _protocol(text)
    if listen.startswith(f"{OVERLAY}:"):
        return text if protocol == "udp" else listen
    place = str(_listen(listen))
    return place if protocol == "tcp" else f"{place}/udp"


def _listen(text: str) -> Place:
    """Raises ValueError."""
    if ":" not in text and not text.isdigit():
        raise ValueError(f"{text!r} is no place to listen: {_LISTEN_FORM}")
    return parse_listen(text)


def _protocol(text: str) -> tuple[str, Literal["tcp", "udp"]]:
    rest, slash, protocol = text.rpartition("/")
    if not slash or text.startswith("unix:"):
        return text, "tcp"
    if protocol == "tcp":
        return rest, "tcp"
    if protocol == "udp":
        return rest, "udp"
    raise ValueError(f"{text!r}: behind the slash goes tcp or udp")
