"""Addresses that services of a node do not lead to unless its operator names them: those of its networks, those that
are reached through members, and those where a cloud answers each machine for itself; pure.

``[services] allow`` opens one by naming an address or a prefix that lies in what is closed: 10.0.0.0/8 is somebody's
own network and does not mean 10.77.0.0/16 of an overlay in it, nor does ``*``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from warren.agent.streams.directory import Directory, NetworkView
from warren.agent.streams.permits import Serving
from warren.l4.config import Closed, Opened
from warren.model.stream_places import METADATA
from warren.model.tunnel import IPNetwork


def closed(views: Sequence[NetworkView]) -> tuple[Closed, ...]:
    """For the services of all networks. Subnets behind members are on the way of root's host only: where the overlay
    is a namespace of its own, the host's side does not lead there.
    """
    found = list(clouds())
    for view in views:
        found += _of(view.label, view.directory, behind=not view.transparent_port)
    return tuple(found)


def clouds() -> tuple[Closed, ...]:
    """Where a cloud answers each machine for itself: for subnets behind this node as well."""
    return tuple(Closed(prefix=str(network), what=what) for network, what in METADATA)


def _of(label: str, directory: Directory, *, behind: bool) -> Iterator[Closed]:
    for prefix in directory.prefixes:
        yield Closed(prefix=str(prefix), what=f"an address of network {label}")
    for network in directory.behind if behind else ():
        yield Closed(prefix=str(network), what=f"reached through a member of network {label}")


def opened(places: Sequence[Closed], serving: Serving, own: Directory) -> tuple[Opened, ...]:
    """What of ``places`` is open to the services of one network: what the operator names, and the node's own addresses
    in that very network, which programs of this host may be listening at.
    """
    outer = [ip_network(one.prefix) for one in places]
    found = [
        Opened(prefix=str(one.network), ports=one.ports)
        for one in serving.allow or ()
        if one.network is not None and any(_is_within(one.network, network) for network in outer)
    ]
    ips = (own.own.address6, own.own.address4 if len(own.prefixes) > 1 else None)
    return (*found, *(Opened(prefix=str(ip_network(ip))) for ip in ips if ip is not None))


def _is_within(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.prefixlen >= outer.prefixlen and inner.network_address in outer
