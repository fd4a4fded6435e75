"""Gateways of each protocol, and what was told of them."""

from __future__ import annotations

import pytest

from tests.support.gateways import FakeGateway, Wire
from warren.proto.portmap.standing import Declined, Gained, Lost

KINDS = {
    "pcp": {"pcp": True},
    "nat-pmp": {"nat_pmp": True},
    "upnp": {"upnp": 2},
}
each_protocol = pytest.mark.parametrize("kind", KINDS)


def gateway_of(kind: str, **more: object) -> FakeGateway:
    return FakeGateway(**{**KINDS[kind], **more})  # type: ignore[arg-type]


def gained(wire: Wire) -> list[str]:
    return [str(event.lease.external) for event in wire.events if isinstance(event, Gained)]


def lost(wire: Wire) -> list[str]:
    return [event.why for event in wire.events if isinstance(event, Lost)]


def declined(wire: Wire) -> list[tuple[str, str]]:
    return [(event.protocol, event.why) for event in wire.events if isinstance(event, Declined)]
