"""What handlers of the REST API are given: the request, the service, and who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from litestar import Request
from litestar.di import NamedDependency

if TYPE_CHECKING:
    from warren.coordinator.service import Service

Given = NamedDependency[Any]
Web = Request[Any, Any, Any]


def service_of(service: Any) -> Service:
    return cast("Service", service)
