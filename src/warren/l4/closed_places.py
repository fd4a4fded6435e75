"""Addresses that the target of a service may not have, unless the operator of this node names them.

A target is for the serving member to resolve and to reach, but a network's authority names it. What comes out of such a
stream has the address of this node. In the overlay that would be a bridge: into another network, which its operator has
not asked for, or back into the same one, whose policy would see this node in place of the client. And at link-local
addresses a cloud tells its machine secrets, since it takes whoever asks for that machine.

So each address is held against the list right before it is connected to, and exactly that address is connected to: a
name that leads elsewhere meanwhile gains nothing.
"""

from __future__ import annotations

from warren.l4.config import Way
from warren.l4.limits import allowed
from warren.model.ip import join_host_port, unmapped
from warren.model.tunnel import IPAddress
from warren.proto.turn.filter import held_addresses


def objection(ip: IPAddress, port: int, way: Way) -> str:
    """Why no stream of ``way`` may go from the host's side to ``ip`` and ``port``, a sentence; empty: it may."""
    if not way.closed:
        return ""
    for form in dict.fromkeys((unmapped(ip), *held_addresses(ip))):
        for closed in way.closed:
            if allowed(form, (closed.prefix,)) and not _is_opened(form, port, way):
                place = join_host_port(str(form), port)
                return (
                    f"{form} is {closed.what}, where no service leads unless the operator of this node names it: "
                    f'agent.toml, [services] allow has to have "{place}" (and "*:*" for everything else)'
                )
    return ""


def _is_opened(ip: IPAddress, port: int, way: Way) -> bool:
    return any(one.ports[0] <= port <= one.ports[1] and allowed(ip, (one.prefix,)) for one in way.opened)
