"""The paths of the REST API, each one call of the service. What they take and give is in proto/control/administration.

``PUBLIC`` needs no token; everything else stands behind :class:`~warren.coordinator.web.auth.Authenticated`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.params import FromPath, JSONBody, QueryParameter

from warren import __version__
from warren.coordinator.problems import Problem
from warren.coordinator.tls import Served
from warren.coordinator.web.auth import actor_of
from warren.coordinator.web.door import CERTIFICATE
from warren.coordinator.web.metrics import CONTENT_TYPE, Metrics
from warren.proto.control.administration import (
    Actor,
    ApplyRequest,
    ConnectorEntry,
    ConnectorRequest,
    DesiredState,
    Event,
    Invite,
    InviteRequest,
    Member,
    MemberChange,
    MemberStatus,
    Network,
    NetworkRequest,
    NetworkStatus,
    NewInvite,
    NewToken,
    Plan,
    RelayEntry,
    RelayRequest,
    Revoked,
    ServiceEntry,
    ServiceRequest,
    Token,
    TokenRequest,
)

if TYPE_CHECKING:
    from warren.coordinator.service import Service

Given = NamedDependency[Any]
Web = Request[Any, Any, Any]
After = Annotated[
    int | None,
    QueryParameter(ge=0, le=2**53, description="the events after that sequence number; without it the newest"),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many at most")]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which coordinator answers, and its word that the certificate of this connection is its own."""

    key: str
    certificate_sha256: str
    """Hexadecimal, of the DER form."""
    statement: str
    """Hexadecimal: an Ed25519 signature of ``key`` over the certificate's hash."""
    time: datetime
    version: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the coordinator lives, or is ready to serve."""

    status: str


# Public


@get("/v1/identity", sync_to_thread=False)
def read_identity(request: Web, service: Given) -> Identity:
    """Which coordinator this is. Verify the statement with the key that you pinned."""
    served = request.scope["state"][CERTIFICATE]
    assert isinstance(served, Served)  # noqa: S101 - put there by the server
    return Identity(
        key=str(service.identity.verify_key),
        certificate_sha256=served.certificate_sha256.hex(),
        statement=served.statement.hex(),
        time=datetime.now(UTC),
        version=__version__,
    )


@get("/health/live", sync_to_thread=False)
def read_liveness() -> Health:
    """The process answers."""
    return Health(status="live")


@get("/health/ready")
async def read_readiness(service: Given) -> Health:
    """The database answers too."""
    await _of(service).ready()
    return Health(status="ready")


# Tokens


@post("/v1/tokens")
async def create_token(service: Given, actor: Given, data: JSONBody[TokenRequest]) -> NewToken:
    """Make a token. Its secret is shown this once."""
    return await _of(service).create_token(actor, data)


@get("/v1/tokens")
async def list_tokens(service: Given, actor: Given) -> tuple[Token, ...]:
    """The tokens that are valid."""
    return await _of(service).tokens(actor)


@delete("/v1/tokens/{token:str}", status_code=200)
async def revoke_token(service: Given, actor: Given, token: FromPath[str]) -> Token:
    """End a token at once."""
    return await _of(service).revoke_token(actor, token)


# Networks


@post("/v1/networks")
async def create_network(service: Given, actor: Given, data: JSONBody[NetworkRequest]) -> Network:
    """Make a network, with one visible rule: its members reach each other."""
    return await _of(service).create_network(actor, data)


@get("/v1/networks")
async def list_networks(service: Given, actor: Given) -> tuple[Network, ...]:
    """The networks that the token may see."""
    return await _of(service).networks(actor)


@get("/v1/networks/{network:str}")
async def read_network(service: Given, actor: Given, network: FromPath[str]) -> Network:
    """One network."""
    return await _of(service).network(actor, network)


@get("/v1/networks/{network:str}/state")
async def read_state(service: Given, actor: Given, network: FromPath[str]) -> DesiredState:
    """All that an operator decides of a network, as a desired state that changes nothing when it is applied."""
    return await _of(service).desired_state(actor, network)


@post("/v1/networks/{network:str}/plan", status_code=200)
async def plan_state(service: Given, actor: Given, network: FromPath[str], data: JSONBody[DesiredState]) -> Plan:
    """What applying this desired state would change, and what is wrong with it. Changes nothing."""
    return await _of(service).plan(actor, network, data)


@post("/v1/networks/{network:str}/apply", status_code=200)
async def apply_state(service: Given, actor: Given, network: FromPath[str], data: JSONBody[ApplyRequest]) -> Plan:
    """Apply a desired state, all of it or nothing."""
    return await _of(service).apply(actor, network, data)


# Invites


@post("/v1/networks/{network:str}/invites")
async def create_invite(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[InviteRequest]
) -> NewInvite:
    """Make a ticket by which machines join. It is shown this once."""
    return await _of(service).create_invite(actor, network, data)


@get("/v1/networks/{network:str}/invites")
async def list_invites(service: Given, actor: Given, network: FromPath[str]) -> tuple[Invite, ...]:
    """The invites of a network."""
    return await _of(service).invites(actor, network)


@delete("/v1/networks/{network:str}/invites/{invite:str}", status_code=200)
async def revoke_invite(service: Given, actor: Given, network: FromPath[str], invite: FromPath[str]) -> Invite:
    """End an invite at once; who joined by it stays a member."""
    return await _of(service).revoke_invite(actor, network, invite)


# Relays


@post("/v1/networks/{network:str}/relays")
async def add_relay(service: Given, actor: Given, network: FromPath[str], data: JSONBody[RelayRequest]) -> RelayEntry:
    """Let the members use a TURN server."""
    return await _of(service).add_relay(actor, network, data)


@get("/v1/networks/{network:str}/relays")
async def list_relays(service: Given, actor: Given, network: FromPath[str]) -> tuple[RelayEntry, ...]:
    """The relays that members may use."""
    return await _of(service).relays(actor, network)


@delete("/v1/networks/{network:str}/relays/{relay:str}", status_code=200)
async def remove_relay(service: Given, actor: Given, network: FromPath[str], relay: FromPath[str]) -> RelayEntry:
    """Have the members use a relay no longer."""
    return await _of(service).remove_relay(actor, network, relay)


# Services and connectors


@post("/v1/networks/{network:str}/services")
async def add_service(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[ServiceRequest]
) -> ServiceEntry:
    """Have members serve something to others."""
    return await _of(service).add_service(actor, network, data)


@get("/v1/networks/{network:str}/services")
async def list_services(service: Given, actor: Given, network: FromPath[str]) -> tuple[ServiceEntry, ...]:
    """The services of a network, and which members are to serve them."""
    return await _of(service).services(actor, network)


@delete("/v1/networks/{network:str}/services/{name:str}", status_code=200)
async def remove_service(service: Given, actor: Given, network: FromPath[str], name: FromPath[str]) -> ServiceEntry:
    """Have a service served no longer."""
    return await _of(service).remove_service(actor, network, name)


@post("/v1/networks/{network:str}/connectors")
async def add_connector(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[ConnectorRequest]
) -> ConnectorEntry:
    """Have members take streams for a service: at a port, for a TLS name, or as a web site."""
    return await _of(service).add_connector(actor, network, data)


@get("/v1/networks/{network:str}/connectors")
async def list_connectors(service: Given, actor: Given, network: FromPath[str]) -> tuple[ConnectorEntry, ...]:
    """The connectors of a network, and which members are to have them."""
    return await _of(service).connectors(actor, network)


@delete("/v1/networks/{network:str}/connectors/{name:str}", status_code=200)
async def remove_connector(service: Given, actor: Given, network: FromPath[str], name: FromPath[str]) -> ConnectorEntry:
    """Have streams taken by a connector no longer."""
    return await _of(service).remove_connector(actor, network, name)


# Members


@get("/v1/networks/{network:str}/members")
async def list_members(service: Given, actor: Given, network: FromPath[str]) -> tuple[Member, ...]:
    """The members of a network."""
    return await _of(service).members(actor, network)


@get("/v1/networks/{network:str}/members/{member:str}")
async def read_member(service: Given, actor: Given, network: FromPath[str], member: FromPath[str]) -> MemberStatus:
    """One member, by name or key, with its last report."""
    return await _of(service).member(actor, network, member)


@patch("/v1/networks/{network:str}/members/{member:str}")
async def change_member(
    service: Given, actor: Given, network: FromPath[str], member: FromPath[str], data: JSONBody[MemberChange]
) -> Member:
    """Change a member's name, tags or routes."""
    return await _of(service).change_member(actor, network, member, data)


@delete("/v1/networks/{network:str}/members/{member:str}", status_code=200)
async def revoke_member(service: Given, actor: Given, network: FromPath[str], member: FromPath[str]) -> Revoked:
    """End a membership: at once where connected, when its lease ends at the latest."""
    return await _of(service).revoke_member(actor, network, member)


@get("/v1/networks/{network:str}/revocations")
async def list_revocations(service: Given, actor: Given, network: FromPath[str]) -> tuple[Revoked, ...]:
    """Whose membership was ended, while a lease of it may still run."""
    return await _of(service).revocations(actor, network)


# Status


@get("/v1/networks/{network:str}/status")
async def read_status(service: Given, actor: Given, network: FromPath[str]) -> NetworkStatus:
    """A network and all its members with their last reports."""
    return await _of(service).status(actor, network)


@get("/v1/networks/{network:str}/events")
async def list_network_events(
    request: Web, service: Given, actor: Given, network: FromPath[str], after: After = None, limit: Limit = 100
) -> tuple[Event, ...]:
    """The audit log of one network, oldest first."""
    _check_after(request, after)
    return await _of(service).events(actor, network, after, limit)


@get("/v1/events")
async def list_events(
    request: Web, service: Given, actor: Given, after: After = None, limit: Limit = 100
) -> tuple[Event, ...]:
    """The audit log, oldest first."""
    _check_after(request, after)
    return await _of(service).events(actor, None, after, limit)


@get("/metrics", sync_to_thread=False)
def read_metrics(metrics: Given, actor: Given) -> Response[bytes]:
    """Prometheus metrics, of all networks together: for tokens that are not bound to one."""
    if actor.network is not None:
        raise Problem("forbidden", "metrics are of all networks", "Use a token that is not bound to a network.")
    assert isinstance(metrics, Metrics)  # noqa: S101 - put there by the application
    return Response(metrics.text(), media_type=CONTENT_TYPE)


PUBLIC: Final = (read_identity, read_liveness, read_readiness)
GUARDED: Final = (
    create_token,
    list_tokens,
    revoke_token,
    create_network,
    list_networks,
    read_network,
    read_state,
    plan_state,
    apply_state,
    create_invite,
    list_invites,
    revoke_invite,
    add_relay,
    list_relays,
    remove_relay,
    add_service,
    list_services,
    remove_service,
    add_connector,
    list_connectors,
    remove_connector,
    list_members,
    read_member,
    change_member,
    revoke_member,
    list_revocations,
    read_status,
    list_network_events,
    list_events,
    read_metrics,
)


def provide_actor(request: Web) -> Actor:
    """Who asks, as the middleware found out."""
    return actor_of(request.scope["state"])


def _check_after(request: Web, after: int | None) -> None:
    """The framework takes the text ``null`` for no number at all; here it is a mistake."""
    if after is None and "after" in request.query_params:
        raise ValidationException("after is no number")


def _of(service: Any) -> Service:
    return cast("Service", service)
