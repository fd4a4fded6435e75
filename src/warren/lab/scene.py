"""A scene: an Internet, sites, hosts and what runs on them, as values.

:mod:`warren.lab.scene_reader` reads them from TOML, :mod:`warren.lab.scene_build` builds them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Final, Literal

from warren.errors import UsageError
from warren.lab.impairment import Impairment
from warren.lab.site import LAN
from warren.lab.site_kinds import SiteKind
from warren.toml.lines import Path

RelayKind = Literal["warren", "coturn"]

COORDINATOR_PORT: Final = 8443
_LAN: Final = IPv4Network(LAN)


@dataclass(frozen=True, slots=True)
class SceneServer:
    """A public host."""

    name: str
    families: str = "46"
    relay: RelayKind | None = None
    link: Impairment | None = None


@dataclass(frozen=True, slots=True)
class SceneSite:
    """A site with its hosts; ``kind_name`` is what the scene calls its kind."""

    name: str
    kind: SiteKind
    kind_name: str
    lan: IPv4Network = _LAN
    hosts: tuple[str, ...] = ()
    gateway: tuple[str, ...] = ()
    """Protocols by which its hosts may ask the router for ports: upnp, nat-pmp, pcp."""
    link: Impairment | None = None
    """What the cable to the Internet does to packets."""


@dataclass(frozen=True, slots=True)
class SceneNetwork:
    name: str
    members: tuple[str, ...]
    """Hosts and servers."""
    ipv4: str | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    name: str
    description: str = ""
    seed: int = 1
    servers: tuple[SceneServer, ...] = ()
    sites: tuple[SceneSite, ...] = ()
    coordinator: str | None = None
    """The server that runs it; None: nothing of Warren runs."""
    coordinator_port: int = COORDINATOR_PORT
    networks: tuple[SceneNetwork, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Those of the sites, each once: one at several sites has several uplinks, the first site's the best."""
        return tuple(dict.fromkeys(host for site in self.sites for host in site.hosts))

    def sites_of(self, host: str) -> tuple[SceneSite, ...]:
        return tuple(site for site in self.sites if host in site.hosts)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in a document."""

    path: Path
    """Where; empty: the document as a whole."""
    what: str


class SceneMistakes(UsageError):
    """A document that is no scene. ``mistakes`` has at least one."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(f"this is no scene: {mistakes[0].what}")
        self.mistakes = mistakes


@dataclass(slots=True)
class MistakeList:
    """Mistakes as they are found; reading goes on behind each."""

    found: list[Mistake] = field(default_factory=list)

    def add(self, path: Path, what: str) -> None:
        self.found.append(Mistake(path, what))

    def raise_any(self) -> None:
        if self.found:
            raise SceneMistakes(tuple(self.found))
