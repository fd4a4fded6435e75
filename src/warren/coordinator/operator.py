"""What the operator of the machine may do without a token: whoever can read the database can sign for its networks
anyway. Each use leaves its line in the audit log, under a token of its own that lives for a minute at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from warren.coordinator.problems import Problem
from warren.coordinator.rows import FactRow, UrlRow
from warren.coordinator.service import Service
from warren.coordinator.store import Store, open_store
from warren.errors import OperationFailed
from warren.identity.signing import SigningKey
from warren.model.tickets import Access, access_text
from warren.proto.control.administration import (
    Actor,
    InviteRequest,
    NetworkRequest,
    Token,
    TokenRequest,
)

URLS_MAX: Final = 8

_TTL_S: Final = 60
_LABEL: Final = "local operator"
"""Whom the audit log names."""
_IDENTITY: Final = "identity"


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A new token. ``access`` None: nobody has said yet how the coordinator is reached."""

    id: str
    secret: str = field(repr=False)
    access: str | None = field(repr=False)
    expires: datetime


@asynccontextmanager
async def acting(service: Service) -> AsyncIterator[Actor]:
    """An actor that may do everything, until the end of the block."""
    token = await service.local_token(_LABEL, _TTL_S)
    actor = await service.actor(token.secret)
    try:
        yield actor
    finally:
        await service.revoke_token(actor, token.id)


@asynccontextmanager
async def beside(url: str) -> AsyncIterator[tuple[Service, Store]]:
    """The service on the database at ``url``, which a running coordinator may be using too: it serves nobody and
    takes no part. Raises WarrenError.
    """
    store = await open_store(url)
    service = Service(store, urls=(), wall_clock=time.time, random=os.urandom)
    try:
        yield service, store
    finally:
        await service.close()


async def create_token(
    service: Service,
    store: Store,
    *,
    label: str,
    ttl_s: int,
    role: Literal["admin", "reader"],
    network: str | None,
    urls: tuple[str, ...],
) -> MadeToken:
    """``urls`` empty: where the coordinator was reached last. Raises Problem, OperationFailed."""
    async with store.read() as transaction:
        identity = await transaction.get(FactRow, _IDENTITY)
        known = await transaction.find(UrlRow, order="seen", descending=True, limit=URLS_MAX)
    if identity is None:
        raise OperationFailed("no coordinator has run with this database yet; its first start prints an access string")
    urls = urls or tuple(row.url for row in known)
    async with acting(service) as actor:
        made = await service.create_token(actor, TokenRequest(label=label, role=role, network=network, ttl_s=ttl_s))
    access = (
        access_text(Access(urls=urls, key=SigningKey(identity.value).verify_key, secret=made.secret)) if urls else None
    )
    return MadeToken(made.id, made.secret, access, made.expires)


async def list_tokens(service: Service, _: Store) -> tuple[Token, ...]:
    """Raises Problem."""
    async with acting(service) as actor:
        return tuple(token for token in await service.tokens(actor) if token.id != actor.token)


async def revoke_token(service: Service, token_id: str) -> Token:
    """Raises Problem."""
    async with acting(service) as actor:
        return await service.revoke_token(actor, token_id)


async def network_ticket(service: Service, name: str) -> str | None:
    """A one-use ticket to the network of that name, which is made unless it is there; None when it has members.

    Raises Problem.
    """
    async with acting(service) as actor:
        try:
            network = await service.network(actor, name)
        except Problem as problem:
            if problem.kind != "not-found":
                raise
            network = await service.create_network(actor, NetworkRequest(name=name))
        if network.members:
            return None
        return (await service.create_invite(actor, network.id, InviteRequest())).ticket
