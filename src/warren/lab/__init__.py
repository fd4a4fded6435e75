"""Rehearse networks on one machine: hosts, bridges, routers and bad links made of network namespaces.

    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, "10.0.0.1/24", "10.0.0.2/24")
        a.run(["ping", "-c1", "10.0.0.2"])

Needs root, or :func:`warren.lab.privilege.ensure` before. Linux ≥ 5.9, iproute2; nftables for routers with NAT.
"""

from warren.lab.bridge import Bridge
from warren.lab.capture import Capture
from warren.lab.direction import Counters
from warren.lab.host import Host
from warren.lab.impairment import Impairment
from warren.lab.lab import Lab
from warren.lab.link import End, ImpairedLink, Link
from warren.lab.program import Process
from warren.lab.remote import Call
from warren.lab.router import Masquerade, Router

__all__ = [
    "Bridge",
    "Call",
    "Capture",
    "Counters",
    "End",
    "Host",
    "ImpairedLink",
    "Impairment",
    "Lab",
    "Link",
    "Masquerade",
    "Process",
    "Router",
]
