"""The paths of the REST API of services and connectors, each one call of the service."""

from __future__ import annotations

from typing import Final

from litestar import delete, get, post
from litestar.params import FromPath, JSONBody

from warren.coordinator.web.given import Given, service_of
from warren.proto.control.administration import ConnectorEntry, ConnectorRequest, ServiceEntry, ServiceRequest


@post("/v1/networks/{network:str}/services")
async def add_service(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[ServiceRequest]
) -> ServiceEntry:
    """Have members serve something to others."""
    return await service_of(service).add_service(actor, network, data)


@get("/v1/networks/{network:str}/services")
async def list_services(service: Given, actor: Given, network: FromPath[str]) -> tuple[ServiceEntry, ...]:
    """The services of a network, and which members are to serve them."""
    return await service_of(service).services(actor, network)


@delete("/v1/networks/{network:str}/services/{name:str}", status_code=200)
async def remove_service(service: Given, actor: Given, network: FromPath[str], name: FromPath[str]) -> ServiceEntry:
    """Have a service served no longer."""
    return await service_of(service).remove_service(actor, network, name)


@post("/v1/networks/{network:str}/connectors")
async def add_connector(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[ConnectorRequest]
) -> ConnectorEntry:
    """Have members take streams for a service: at a port, for a TLS name, or as a web site."""
    return await service_of(service).add_connector(actor, network, data)


@get("/v1/networks/{network:str}/connectors")
async def list_connectors(service: Given, actor: Given, network: FromPath[str]) -> tuple[ConnectorEntry, ...]:
    """The connectors of a network, and which members are to have them."""
    return await service_of(service).connectors(actor, network)


@delete("/v1/networks/{network:str}/connectors/{name:str}", status_code=200)
async def remove_connector(service: Given, actor: Given, network: FromPath[str], name: FromPath[str]) -> ConnectorEntry:
    """Have streams taken by a connector no longer."""
    return await service_of(service).remove_connector(actor, network, name)


STREAMS: Final = (add_service, list_services, remove_service, add_connector, list_connectors, remove_connector)
