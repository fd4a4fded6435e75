"""Where the demonstration of a network plays: three homes, an office, a mobile network and three public servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warren.errors import OperationFailed
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.lab import Lab
from warren.lab.network import Network
from warren.lab.site import Internet, Site

PATIENCE_S = 40.0


@dataclass(frozen=True, slots=True)
class World:
    """The hosts: ``dc1`` has the coordinator and a relay and is a member, ``dc2`` has another relay and is none,
    ``gateway`` is a member that publishes services of others, ``dave`` has no rights on his machine.
    """

    internet: Internet
    dc1: Host
    dc2: Host
    alice: Host
    bob: Host
    carol: Host
    gateway: Host
    dave: Host
    mobile: Site
    network: Network


def build(lab: Lab) -> World:
    internet = Internet(lab)
    dc1, dc2 = internet.server("dc1"), internet.server("dc2")
    alice = internet.site("home1", "port-restricted").host("alice")
    bob = internet.site("home2", "symmetric-sequential").host("bob")
    carol = internet.site("office", "udp-blocked").host("carol")
    gateway = internet.server("gw")
    dave = internet.site("home3", "port-restricted").host("dave")
    slower = Impairment(delay_s=0.012)
    mobile = internet.site("mobile", "cgn", lan="10.33.0.0/24", impairment=slower)
    mobile.attach(alice, interface="wwan0", metric=1000)
    url = f"https://{internet.address('dc1')}:8443"
    return World(internet, dc1, dc2, alice, bob, carol, gateway, dave, mobile, Network(dc1, "home", url=url))


def way(peer: dict[str, object]) -> str:
    return f"relayed by {peer['relay']}" if peer["path"] == "relayed" else f"{peer['path']} {peer['endpoint']}"


def answers(host: Host, target: str) -> bool:
    return host.run(["ping", "-n", "-c1", "-W1", target], check=False).returncode == 0


def until(host: Host, condition: Callable[[], bool], what: str) -> None:
    try:
        host.wait_for(condition, PATIENCE_S)
    except OperationFailed:
        raise OperationFailed(f"{host.name} waited {PATIENCE_S:.0f} s in vain for {what}") from None
