"""Reads a scene from a document such as this one.

::

    description = "Two homes and a data centre"
    seed = 1  # decides what bad links do

    [server.dc]  # a public host
    families = "46"  # "4", "6" or "46"
    relay = "warren"  # or "coturn"; left out: none

    [site.home]  # a router, a LAN and the hosts on it
    kind = "port-restricted"  # or its parts: nat, carrier, firewall, families, proxy
    lan = "192.168.1.0/24"
    hosts = ["alice"]  # one that is in several sites has several uplinks
    gateway = ["upnp", "pcp"]  # the router gives out ports when asked by these protocols
    link = { delay_s = 0.02, loss = 0.01 }  # to the Internet

    [site.office]
    nat = { mapping = "apdm", filtering = "apdf", allocation = "random" }  # or a name
    firewall = { udp = "dropped", tcp_ports = [443] }
    hosts = ["bob"]

    [coordinator]
    server = "dc"
    port = 8443

    [network.home]
    members = ["alice", "bob", "dc"]
    ipv4 = "10.77.0.0/16"
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any, Final, TypeVar

from warren.lab.firewall import Firewall
from warren.lab.impairment import Impairment
from warren.lab.lab import NAME
from warren.lab.nat import NatKind, nat_kind
from warren.lab.scene import (
    COORDINATOR_PORT,
    MistakeList,
    RelayKind,
    Scene,
    SceneNetwork,
    SceneServer,
    SceneSite,
)
from warren.lab.scene_values import SceneValues, hint
from warren.lab.site import ATTACHMENTS_MAX, LAN
from warren.lab.site_kinds import SITE_KINDS, Families, SiteKind
from warren.toml.lines import Path

T = TypeVar("T")

HOSTS_MAX: Final = 200
_TOP: Final = ("description", "seed", "server", "site", "coordinator", "network")
_SERVER: Final = ("families", "relay", "link")
_PARTS: Final = ("nat", "carrier", "firewall", "families", "proxy")
_SITE: Final = ("kind", *_PARTS, "lan", "hosts", "gateway", "link")
_COORDINATOR: Final = ("server", "port")
_NETWORK: Final = ("members", "ipv4")
_RELAYS: Final[tuple[RelayKind, ...]] = ("warren", "coturn")
_FAMILIES: Final[tuple[Families, ...]] = ("4", "6", "46")
_GATEWAYS: Final = ("upnp", "nat-pmp", "pcp")
_RELAY_PORTS: Final = (443, 3478)
_LAN_BITS: Final = range(16, 25)
_PORT_MAX: Final = 65_535
_SITE_NAME_MAX: Final = 20
"""The router's name has more letters, and a host's name has 32 at most."""


def read_scene(name: str, parsed: Mapping[str, Any]) -> Scene:
    """The scene ``name`` from what tomllib made of it. Raises SceneMistakes, which has all there are."""
    return _Reader(parsed).scene(name)


class _Reader:
    def __init__(self, parsed: Mapping[str, Any]) -> None:
        self._parsed = parsed
        self._mistakes = MistakeList()
        self._values = SceneValues(self._mistakes)

    def scene(self, name: str) -> Scene:
        parsed = self._parsed
        if not NAME.fullmatch(name):
            self._mistakes.add(
                (), f"a scene's name is that of its file, and {name!r} is not 1 to 32 letters, digits, '-'"
            )
        self._values.no_strangers(parsed, (), _TOP)
        scene = Scene(
            name,
            description=self._values.text(parsed, (), "description") or "",
            seed=self._values.number(parsed, (), "seed", 0, 2**63, 1),
            servers=tuple(self._each("server", self._server)),
            sites=tuple(self._each("site", self._site)),
            networks=tuple(self._each("network", self._network)),
        )
        scene = self._coordinated(scene)
        self._check_names(scene)
        self._check_networks(scene)
        self._mistakes.raise_any()
        return scene

    # Parts

    def _server(self, name: str, table: Mapping[str, Any]) -> SceneServer:
        path = ("server", name)
        self._values.no_strangers(table, path, _SERVER)
        families = self._values.choice(table, path, "families", _FAMILIES) or "46"
        return SceneServer(name, families, self._values.choice(table, path, "relay", _RELAYS), self._link(table, path))

    def _site(self, name: str, table: Mapping[str, Any]) -> SceneSite:
        path = ("site", name)
        self._values.no_strangers(table, path, _SITE)
        if len(name) > _SITE_NAME_MAX:
            self._mistakes.add(path, f"the name of a site has {_SITE_NAME_MAX} letters at most")
        kind, kind_name = self._kind(table, path)
        gateway = self._values.texts(table, path, "gateway", _GATEWAYS)
        if gateway and not kind.nat:
            self._mistakes.add((*path, "gateway"), "without a NAT there are no ports to give out: leave gateway out")
        lan = self._values.made((*path, "lan"), table.get("lan"), _lan) or IPv4Network(LAN)
        if "lan" in table and not kind.nat:
            self._mistakes.add((*path, "lan"), "a site without a NAT has public addresses: leave lan out")
        hosts = self._values.texts(table, path, "hosts")
        return SceneSite(name, kind, kind_name, lan, hosts, gateway, self._link(table, path))

    def _kind(self, table: Mapping[str, Any], path: Path) -> tuple[SiteKind, str]:
        parts = [part for part in _PARTS if part in table]
        if "kind" in table:
            if parts:
                self._mistakes.add((*path, parts[0]), f"kind says that already: leave kind or {parts[0]} out")
            name = self._values.choice(table, path, "kind", tuple(SITE_KINDS))
            return (SITE_KINDS[name], name) if name else (SiteKind(), "")
        if not parts:
            self._mistakes.add(path, 'say what kind of site this is, as kind = "port-restricted", or nat = "…"')
        kind = SiteKind()
        for part in parts:
            made = self._part(table, path, part)
            if made is not None:
                kind = self._values.made((*path, part), {part: made}, lambda change: replace(kind, **change)) or kind  # noqa: B023
        return kind, ""

    def _part(self, table: Mapping[str, Any], path: Path, part: str) -> object:
        here, value = (*path, part), table[part]
        match part:
            case "nat" | "carrier":
                if isinstance(value, str):
                    return self._values.made(here, value, nat_kind)
                return self._values.record(here, value, NatKind)
            case "firewall":
                return self._values.record(here, value, Firewall)
            case "families":
                return self._values.choice(table, path, part, _FAMILIES)
        if type(value) is not bool:
            self._mistakes.add(here, "this is true or false")
            return None
        return value

    def _network(self, name: str, table: Mapping[str, Any]) -> SceneNetwork:
        path = ("network", name)
        self._values.no_strangers(table, path, _NETWORK)
        ipv4 = self._values.made((*path, "ipv4"), table.get("ipv4"), _prefix4)
        if "members" not in table:
            self._mistakes.add((*path, "members"), "this key is missing: it lists hosts and servers")
        return SceneNetwork(name, self._values.texts(table, path, "members"), ipv4)

    def _coordinated(self, scene: Scene) -> Scene:
        if "coordinator" not in self._parsed:
            if scene.networks:
                self._mistakes.add(("network",), "a network needs a coordinator: add [coordinator] with server = …")
            return scene
        path: Path = ("coordinator",)
        table = self._values.table(path, self._parsed["coordinator"])
        self._values.no_strangers(table, path, _COORDINATOR)
        servers = {server.name: server for server in scene.servers}
        if not servers:
            self._mistakes.add(path, "a coordinator runs on a server, and there is none: add [server.NAME]")
        elif "server" not in table:
            self._mistakes.add((*path, "server"), f"this key is missing: say {', '.join(servers)}")
        name = self._values.choice(table, path, "server", tuple(servers)) if servers else None
        port = self._values.number(table, path, "port", 1, _PORT_MAX, COORDINATOR_PORT)
        server = servers.get(name or "")
        if server and server.relay == "warren" and port in _RELAY_PORTS:
            self._mistakes.add((*path, "port"), f"the relay on {server.name} has port {port}: choose another")
        return replace(scene, coordinator=name, coordinator_port=port)

    # What must hold between the parts

    def _check_names(self, scene: Scene) -> None:
        """A host is one in all sites; any other name is taken once. Routers and switches are hosts of the lab, too."""
        taken = {"internet": "the core"}
        for server in scene.servers:
            self._take(("server", server.name), server.name, "a server", taken)
        for site in scene.sites:
            self._take(("site", site.name), site.name, "a site", taken)
            taken.update(
                {f"{site.name}-{part}": f"a part of site {site.name}" for part in ("lan", "router", "carrier")}
            )
        for number_of_site, site in enumerate(scene.sites):
            earlier = {host for other in scene.sites[:number_of_site] for host in other.hosts}
            for number, host in enumerate(site.hosts):
                path = ("site", site.name, "hosts", number)
                if host in site.hosts[:number]:
                    self._mistakes.add(path, f"{host} is in this list twice")
                elif host in earlier:
                    continue
                else:
                    self._take(path, host, "a host", taken)
        if len(scene.servers) + len(scene.sites) > ATTACHMENTS_MAX:
            self._mistakes.add(("site",), f"a scene has {ATTACHMENTS_MAX} servers and sites at most")
        if len(scene.hosts) > HOSTS_MAX:
            self._mistakes.add(("site",), f"a scene has {HOSTS_MAX} hosts at most")

    def _take(self, path: Path, name: str, what: str, taken: dict[str, str]) -> None:
        if not NAME.fullmatch(name):
            self._mistakes.add(path, f"the name {name!r} is not 1 to 32 letters, digits and '-', beginning with no '-'")
        elif name in taken:
            self._mistakes.add(path, f"the name {name} is taken by {taken[name]}")
        taken.setdefault(name, what)

    def _check_networks(self, scene: Scene) -> None:
        known = [*scene.hosts, *(server.name for server in scene.servers)]
        for network in scene.networks:
            for number, member in enumerate(network.members):
                path = ("network", network.name, "members", number)
                if member not in known:
                    self._mistakes.add(path, f"there is no host or server {member!r}{hint(member, known)}")
                elif member in network.members[:number]:
                    self._mistakes.add(path, f"{member} is in this list twice")

    # Values

    def _each(self, key: str, read: Callable[[str, Mapping[str, Any]], T]) -> Iterable[T]:
        tables = self._values.table((key,), self._parsed.get(key, {}))
        return [read(name, self._values.table((key, name), value)) for name, value in tables.items()]

    def _link(self, table: Mapping[str, Any], path: Path) -> Impairment | None:
        return self._values.record((*path, "link"), table["link"], Impairment) if "link" in table else None


def _lan(text: object) -> IPv4Network:
    lan = _network4(text, "192.168.1.0/24")
    if lan.prefixlen not in _LAN_BITS or not lan.is_private:
        raise ValueError(f"{text!r} is no private range of /16 to /24; say 192.168.1.0/24")
    return lan


def _prefix4(text: object) -> str:
    return str(_network4(text, "10.77.0.0/16"))


def _network4(text: object, example: str) -> IPv4Network:
    if not isinstance(text, str):
        raise ValueError(f'this is a text in quotes, as "{example}"')  # noqa: TRY004 - a mistake in a file, not a bug
    try:
        return IPv4Network(text)
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 range; say {example}") from None
