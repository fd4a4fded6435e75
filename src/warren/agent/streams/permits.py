"""What the operator of a node lets its networks make of it: what it serves, and where it listens.

Both are lists in ``agent.toml`` of one form: ``ADDRESS:PORT``, ``PREFIX:PORT``, ``NAME:PORT`` or ``unix:/PATH``, with
``*`` for any port or part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.model.parts import port_range
from warren.model.stream_places import PRIVILEGED_PORTS, Place, Target, unprivileged
from warren.model.tunnel import IPNetwork
from warren.toml.settings import Unusable

_FORM: Final = "say ADDRESS:PORT, PREFIX:PORT, {}unix:/PATH, with * for any port or {}"

_Short = Annotated[str, Meta(min_length=1, max_length=512)]


class PermitTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[services]`` and ``[connectors]``."""

    enabled: bool = True
    allow: Annotated[tuple[_Short, ...], Meta(max_length=256)] | None = None


@dataclass(frozen=True, slots=True)
class Allowed:
    """Targets of services that the operator lets this node serve, or places where it may listen. A name is matched as
    it is written, not by the addresses that it has.
    """

    text: str
    network: IPNetwork | None
    pattern: str
    """Of names or paths, where ``network`` is None."""
    ports: tuple[int, int] = (1, 65_535)

    def covers(self, target: Target) -> bool:
        if target.path:
            return self.pattern.startswith("/") and fnmatchcase(target.path, self.pattern)
        if not self.ports[0] <= target.port <= self.ports[1]:
            return False
        if self.network is None:
            return fnmatchcase(target.host.rstrip(".").lower(), self.pattern)
        try:
            return ip_address(target.host) in self.network
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Serving:
    """What this node serves of what the network wants of it."""

    enabled: bool = True
    allow: tuple[Allowed, ...] | None = None
    """None: everything but Unix sockets, and what :mod:`~warren.agent.streams.closed` closes."""

    def objection(self, target: Target) -> str:
        """Why ``target`` is not served, with what to do; empty: it may be."""
        if not self.enabled:
            return "the operator of this node has switched services off (agent.toml, [services] enabled)"
        if self.allow is None and target.path:  # often whoever connects there as this user has the user's power
            return (
                f"a Unix socket is served only if the operator of this node names it: agent.toml, [services] "
                f'allow = ["{target}", "*:*"]'
            )
        if self.allow is not None and not any(one.covers(target) for one in self.allow):
            return f"the operator of this node does not allow {target}; agent.toml, [services] allow, can add it"
        return ""


@dataclass(frozen=True, slots=True)
class Taking:
    """Where this node listens for connectors."""

    enabled: bool = True
    allow: tuple[Allowed, ...] | None = None
    """None: loopback from :data:`PRIVILEGED_PORTS` on; at a gateway every address and port. Unix sockets never."""

    def objection(self, places: Sequence[Place], *, gateway: bool) -> str:
        """Why this node does not listen at one of ``places``, with what to do; empty: it may. Whether it is a gateway
        is asked for public ones before.
        """
        if not self.enabled:
            return "the operator of this node has switched connectors off (agent.toml, [connectors] enabled)"
        for place in places:
            if self.allow is not None:
                if not any(_allows(one, place) for one in self.allow):
                    return (
                        f"the operator of this node does not allow it to listen at {place}; agent.toml, [connectors] "
                        "allow, can add it"
                    )
            elif place.path or (place.port < PRIVILEGED_PORTS and not gateway):
                return _unnamed(place, gateway=gateway)
        return ""


def _unnamed(place: Place, *, gateway: bool) -> str:
    """What the operator has to write to allow ``place`` as well as what is allowed without his word."""
    what = "on a Unix socket" if place.path else f"on loopback below port {PRIVILEGED_PORTS}"
    before = "*:*" if gateway else f"127.0.0.1:{PRIVILEGED_PORTS}-65535"
    other = "" if place.path else f"; or have the connector listen at another port, say {unprivileged(place.port)}"
    return (
        f"this node listens {what} only if its operator names the place: agent.toml, [connectors] "
        f'allow = ["{place}", "{before}"]{other}'
    )


def _allows(one: Allowed, place: Place) -> bool:
    if one.pattern == "*" and not place.path:  # at all addresses, so at each of them
        return one.ports[0] <= place.port <= one.ports[1]
    if place.address is None and not place.path:
        return False
    return one.covers(Target("" if place.path else str(place.address), place.port, place.path))


def serving_of(table: PermitTable) -> Serving:
    """``[services]``. Raises Unusable."""
    return Serving(table.enabled, _list(table, "services.allow", names=True))


def taking_of(table: PermitTable) -> Taking:
    """``[connectors]``. Raises Unusable."""
    return Taking(table.enabled, _list(table, "connectors.allow", names=False))


def _list(table: PermitTable, key: str, *, names: bool) -> tuple[Allowed, ...] | None:
    return None if table.allow is None else tuple(_allowed(text, key, names=names) for text in table.allow)


def _allowed(text: str, key: str, *, names: bool) -> Allowed:
    form = _FORM.format("NAME:PORT or ", "part of a name") if names else _FORM.format("*:PORT or ", "part of a path")
    if text.startswith("unix:/"):
        return Allowed(text, None, text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    try:
        ports = (1, 65_535) if port == "*" else port_range(port)
    except ValueError:
        raise Unusable(key, f"{text!r}: {form}") from None
    bracketed = re.fullmatch(r"\[([^\]]*)\](/[0-9]+)?", host)
    plain = f"{bracketed[1]}{bracketed[2] or ''}" if bracketed else host
    try:
        return Allowed(text, ip_network(plain), "", ports)
    except ValueError as error:
        if bracketed or ":" in host or re.fullmatch(r"[0-9./]+", host):
            raise Unusable(key, f"{text!r}: {error}; {form}") from None
    if not re.fullmatch(r"[A-Za-z0-9_.*?-]+" if names else r"\*", host):
        raise Unusable(key, f"{text!r}: {form}")
    return Allowed(text, None, host.rstrip(".").lower(), ports)
