"""Builds a scene: hosts, links, NATs, and what runs on them, in a lab."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from warren.lab.gateway import start_gateway
from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.network import Network, environment
from warren.lab.scene import Scene, SceneSite
from warren.lab.scene_plan import Plan, PlannedSite, plan
from warren.lab.site import INSIDE, OUTSIDE, Internet, Site

_AT_ONCE: Final = 4
"""So many agents are started at a time: each needs most of a core for a second."""


@dataclass(slots=True)
class Stage:
    """A scene that stands."""

    plan: Plan
    lab: Lab
    internet: Internet
    sites: dict[str, Site] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)

    @property
    def access(self) -> str:
        """The administrator's access string; empty without a coordinator."""
        return next((network.access for network in self.networks.values()), "")

    def environment(self, host: Host) -> dict[str, str]:
        """What a program on ``host`` needs in order to find its agent, and the coordinator as its administrator."""
        found = environment(host) | self.proxies(host)
        if self.access:
            found["WARREN_ACCESS"] = self.access
        return found

    def proxies(self, host: Host) -> dict[str, str]:
        """What tells ``host`` of the proxy of its site."""
        urls = [site.proxy for site in self.sites.values() if site.proxy and host.name in _hosts_of(self, site)]
        return {"HTTPS_PROXY": urls[0]} if urls else {}


def build(lab: Lab, scene: Scene, tell: Callable[[str], None]) -> Stage:
    """Build ``scene`` in an empty lab, telling each step in a few words. Everybody has joined when it returns.

    Raises OperationFailed when a program is missing or something does not come up; the lab ends what is there.
    """
    stage = Stage(plan(scene), lab, Internet(lab))
    tell("the Internet and its sites")
    for server in scene.servers:
        stage.internet.server(server.name, families=server.families, impairment=server.link)
    for site, planned in zip(scene.sites, stage.plan.sites, strict=True):
        _build_site(stage, site, planned)
    if scene.coordinator is not None:
        _build_networks(stage, scene, scene.coordinator, tell)
    return stage


def _build_site(stage: Stage, site: SceneSite, planned: PlannedSite) -> None:
    lab = stage.lab
    made = stage.internet.site(site.name, site.kind, lan=str(site.lan), impairment=site.link)
    stage.sites[site.name] = made
    for uplink in planned.uplinks:
        host = lab.hosts.get(uplink.host) or lab.host(uplink.host)
        made.attach(host, interface=uplink.interface, metric=uplink.metric)
    if site.gateway:
        protocols: Any = site.gateway
        start_gateway(made.router, lan=INSIDE, wan=OUTSIDE, protocols=protocols)


def _build_networks(stage: Stage, scene: Scene, coordinator: str, tell: Callable[[str], None]) -> None:
    lab, urls = stage.lab, stage.plan.urls
    server = lab.hosts[coordinator]
    for planned in stage.plan.networks:
        network = Network(server, planned.name, url=urls[0], prefix4=planned.ipv4)
        if not stage.networks:
            tell(f"the coordinator on {coordinator}")
            port = scene.coordinator_port
            listen = _again("--listen", (f"0.0.0.0:{port}", f"[::]:{port}"))
            network.run_coordinator(*_again("--url", urls[1:]), *listen, "--no-relay")
        network.access = network.access or stage.access
        network.create()
        stage.networks[planned.name] = network
    _start_relays(stage, scene, tell)
    joined: set[str] = set()
    for planned in stage.plan.networks:
        tell(f"the members of {planned.name}")
        network = stage.networks[planned.name]
        tickets = network.ticket("--uses", str(max(1, len(planned.members))))
        for some in _batches(planned.members):
            for name in some:
                _join(stage, network, lab.hosts[name], tickets, begun=name in joined)
            for name in some:
                if name not in joined:
                    network.wait_up(lab.hosts[name])
        joined.update(planned.members)


def _join(stage: Stage, network: Network, host: Host, ticket: str, *, begun: bool) -> None:
    if begun:
        network.warren(host, "up", ticket)
        return
    network.join(host, ticket=ticket, wait=False, env=stage.proxies(host))


def _hosts_of(stage: Stage, site: Site) -> tuple[str, ...]:
    return next(tuple(up.host for up in planned.uplinks) for planned in stage.plan.sites if planned.name == site.name)


def _start_relays(stage: Stage, scene: Scene, tell: Callable[[str], None]) -> None:
    """Each relay serves all networks, with one secret."""
    if not stage.networks:
        return
    first, *others = stage.networks.values()
    for server, planned in zip(scene.servers, stage.plan.servers, strict=True):
        if server.relay is not None:
            tell(f"the relay on {server.name}")
            start = first.start_relay if server.relay == "warren" else first.start_coturn
            start(stage.lab.hosts[server.name], addresses=planned.addresses)
    for network in others:
        for relay in first.relays:
            network.add_relay(relay)


def _again(option: str, values: Sequence[str]) -> list[str]:
    return list(itertools.chain.from_iterable((option, value) for value in values))


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(names), _AT_ONCE):
        yield names[begin : begin + _AT_ONCE]
