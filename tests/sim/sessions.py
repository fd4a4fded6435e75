"""Two hosts with a session, for tests of what comes after it."""

from __future__ import annotations

from tests.support.wireguard_pair import Host, Wire


def connected(wire: Wire) -> tuple[Host, Host]:
    """Two hosts with a fresh session that ``a`` initiated, nothing under way and no passive timer running."""
    a, b = wire.pair()
    a.send(a.packet_to(b))
    wire.settle()
    b.send(b.packet_to(a))
    wire.advance(20)
    return a, b
