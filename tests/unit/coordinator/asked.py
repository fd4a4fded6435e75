"""What an operator may ask a coordinator for, of a service and of a connector, and what members then read."""

from __future__ import annotations

from tests.support.coordinators import World
from warren.model.documents import NetworkSpec, Rule
from warren.proto.control.administration import ConnectorRequest, ServiceRequest

ALL = Rule(action="allow", sources=("members",), destinations=("members",))


def service(name: str = "web", at: str = "member:n", target: str = "localhost:80", **more: object) -> ServiceRequest:
    return ServiceRequest(name=name, at=tuple(at.split()), target=target, **more)  # type: ignore[arg-type]


def connector(name: str = "shop", at: str = "member:n", to: str = "web", **more: object) -> ConnectorRequest:
    return ConnectorRequest(name=name, at=tuple(at.split()), service=to, **more)  # type: ignore[arg-type]


async def spec(w: World) -> NetworkSpec:
    found = (await w.map()).spec
    assert found is not None
    return found
