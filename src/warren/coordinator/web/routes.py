"""The paths of the REST API, each one call of the service. Their bodies: proto/control/{administration,desired_state}.

All of them stand behind :class:`~warren.coordinator.web.auth.Authenticated`; those that do not are in
:mod:`~warren.coordinator.web.public_routes`.
"""

from __future__ import annotations

from typing import Annotated, Final

from litestar import Response, delete, get, patch, post
from litestar.exceptions import ValidationException
from litestar.params import FromPath, JSONBody, QueryParameter

from warren.coordinator.problems import Problem
from warren.coordinator.web.auth import actor_of
from warren.coordinator.web.given import Given, Web, service_of
from warren.coordinator.web.metrics import CONTENT_TYPE, Metrics
from warren.coordinator.web.stream_routes import STREAMS
from warren.proto.control.administration import (
    Actor,
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
    RelayEntry,
    RelayRequest,
    Revoked,
    Token,
    TokenRequest,
)
from warren.proto.control.desired_state import ApplyRequest, DesiredState, Plan

After = Annotated[
    int | None,
    QueryParameter(ge=0, le=2**53, description="the events after that sequence number; without it the newest"),
]
Limit = Annotated[int, QueryParameter(ge=1, le=1000, description="how many at most")]


# Tokens


@post("/v1/tokens")
async def create_token(service: Given, actor: Given, data: JSONBody[TokenRequest]) -> NewToken:
    """Make a token. Its secret is shown this once."""
    return await service_of(service).create_token(actor, data)


@get("/v1/tokens")
async def list_tokens(service: Given, actor: Given) -> tuple[Token, ...]:
    """The tokens that are valid."""
    return await service_of(service).tokens(actor)


@delete("/v1/tokens/{token:str}", status_code=200)
async def revoke_token(service: Given, actor: Given, token: FromPath[str]) -> Token:
    """End a token at once."""
    return await service_of(service).revoke_token(actor, token)


# Networks


@post("/v1/networks")
async def create_network(service: Given, actor: Given, data: JSONBody[NetworkRequest]) -> Network:
    """Make a network, with one visible rule: its members reach each other."""
    return await service_of(service).create_network(actor, data)


@get("/v1/networks")
async def list_networks(service: Given, actor: Given) -> tuple[Network, ...]:
    """The networks that the token may see."""
    return await service_of(service).networks(actor)


@get("/v1/networks/{network:str}")
async def read_network(service: Given, actor: Given, network: FromPath[str]) -> Network:
    """One network."""
    return await service_of(service).network(actor, network)


@get("/v1/networks/{network:str}/state")
async def read_state(service: Given, actor: Given, network: FromPath[str]) -> DesiredState:
    """All that an operator decides of a network, as a desired state that changes nothing when it is applied."""
    return await service_of(service).desired_state(actor, network)


@post("/v1/networks/{network:str}/plan", status_code=200)
async def plan_state(service: Given, actor: Given, network: FromPath[str], data: JSONBody[DesiredState]) -> Plan:
    """What applying this desired state would change, and what is wrong with it. Changes nothing."""
    return await service_of(service).plan(actor, network, data)


@post("/v1/networks/{network:str}/apply", status_code=200)
async def apply_state(service: Given, actor: Given, network: FromPath[str], data: JSONBody[ApplyRequest]) -> Plan:
    """Apply a desired state, all of it or nothing."""
    return await service_of(service).apply(actor, network, data)


# Invites


@post("/v1/networks/{network:str}/invites")
async def create_invite(
    service: Given, actor: Given, network: FromPath[str], data: JSONBody[InviteRequest]
) -> NewInvite:
    """Make a ticket by which machines join. It is shown this once."""
    return await service_of(service).create_invite(actor, network, data)


@get("/v1/networks/{network:str}/invites")
async def list_invites(service: Given, actor: Given, network: FromPath[str]) -> tuple[Invite, ...]:
    """The invites of a network."""
    return await service_of(service).invites(actor, network)


@delete("/v1/networks/{network:str}/invites/{invite:str}", status_code=200)
async def revoke_invite(service: Given, actor: Given, network: FromPath[str], invite: FromPath[str]) -> Invite:
    """End an invite at once; who joined by it stays a member."""
    return await service_of(service).revoke_invite(actor, network, invite)


# Relays


@post("/v1/networks/{network:str}/relays")
async def add_relay(service: Given, actor: Given, network: FromPath[str], data: JSONBody[RelayRequest]) -> RelayEntry:
    """Let the members use a TURN server."""
    return await service_of(service).add_relay(actor, network, data)


@get("/v1/networks/{network:str}/relays")
async def list_relays(service: Given, actor: Given, network: FromPath[str]) -> tuple[RelayEntry, ...]:
    """The relays that members may use."""
    return await service_of(service).relays(actor, network)


@delete("/v1/networks/{network:str}/relays/{relay:str}", status_code=200)
async def remove_relay(service: Given, actor: Given, network: FromPath[str], relay: FromPath[str]) -> RelayEntry:
    """Have the members use a relay no longer."""
    return await service_of(service).remove_relay(actor, network, relay)


# Members


@get("/v1/networks/{network:str}/members")
async def list_members(service: Given, actor: Given, network: FromPath[str]) -> tuple[Member, ...]:
    """The members of a network."""
    return await service_of(service).members(actor, network)


@get("/v1/networks/{network:str}/members/{member:str}")
async def read_member(service: Given, actor: Given, network: FromPath[str], member: FromPath[str]) -> MemberStatus:
    """One member, by name or key, with its last report."""
    return await service_of(service).member(actor, network, member)


@patch("/v1/networks/{network:str}/members/{member:str}")
async def change_member(
    service: Given, actor: Given, network: FromPath[str], member: FromPath[str], data: JSONBody[MemberChange]
) -> Member:
    """Change a member's name, tags or routes."""
    return await service_of(service).change_member(actor, network, member, data)


@delete("/v1/networks/{network:str}/members/{member:str}", status_code=200)
async def revoke_member(service: Given, actor: Given, network: FromPath[str], member: FromPath[str]) -> Revoked:
    """End a membership: at once where connected, when its lease ends at the latest."""
    return await service_of(service).revoke_member(actor, network, member)


@get("/v1/networks/{network:str}/revocations")
async def list_revocations(service: Given, actor: Given, network: FromPath[str]) -> tuple[Revoked, ...]:
    """Whose membership was ended, while a lease of it may still run."""
    return await service_of(service).revocations(actor, network)


# Status


@get("/v1/networks/{network:str}/status")
async def read_status(service: Given, actor: Given, network: FromPath[str]) -> NetworkStatus:
    """A network and all its members with their last reports."""
    return await service_of(service).status(actor, network)


@get("/v1/networks/{network:str}/events")
async def list_network_events(
    request: Web, service: Given, actor: Given, network: FromPath[str], after: After = None, limit: Limit = 100
) -> tuple[Event, ...]:
    """The audit log of one network, oldest first."""
    _check_after(request, after)
    return await service_of(service).events(actor, network, after, limit)


@get("/v1/events")
async def list_events(
    request: Web, service: Given, actor: Given, after: After = None, limit: Limit = 100
) -> tuple[Event, ...]:
    """The audit log, oldest first."""
    _check_after(request, after)
    return await service_of(service).events(actor, None, after, limit)


@get("/metrics", sync_to_thread=False)
def read_metrics(metrics: Given, actor: Given) -> Response[bytes]:
    """Prometheus metrics, of all networks together: for tokens that are not bound to one."""
    if actor.network is not None:
        raise Problem("forbidden", "metrics are of all networks", "Use a token that is not bound to a network.")
    assert isinstance(metrics, Metrics)  # noqa: S101 - put there by the application
    return Response(metrics.text(), media_type=CONTENT_TYPE)


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
    *STREAMS,
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
