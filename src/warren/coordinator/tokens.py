"""Tokens of administrators and programs: made, shown, revoked, and who asks by one."""

from __future__ import annotations

from typing import Final, Literal, cast

import msgspec

from warren.coordinator.conditions import above, equal
from warren.coordinator.core import Core
from warren.coordinator.minting import TOKEN_SCHEME, Minted, hash_of_token, mint
from warren.coordinator.problems import Problem
from warren.coordinator.rows import FactRow, TokenRow
from warren.coordinator.work import Work, key_of, refuse_actor, shown, when
from warren.identity.signing import VerifyKey
from warren.proto.control.administration import Actor, NewToken, Token, TokenRequest
from warren.proto.control.spans import exact_span

TOKENS_MAX: Final = 10_000
"""That have not expired; a person with more has lost sight of them."""

_FIRST: Final = "first-token"


class Tokens:
    def __init__(self, core: Core) -> None:
        self._core = core

    async def first(self) -> str | None:
        """The secret of an admin token when this database never had one; else None."""

        async def operation(work: Work) -> str | None:
            if await work.get(FactRow, _FIRST) is not None or await work.count(TokenRow):
                return None
            await work.put(FactRow(name=_FIRST, value=b""))
            request = TokenRequest(label="first", ttl_s=self._core.options.first_token_ttl_s)
            return (await self._make(work, "coordinator", request, None)).secret

        return await self._core.write(operation)

    async def local(self, label: str, ttl_s: int) -> NewToken:
        """An admin token for who has the database itself, when the last one was lost or has expired."""

        async def operation(work: Work) -> NewToken:
            return await self._make(work, "coordinator", TokenRequest(label=label, ttl_s=ttl_s), None)

        return await self._core.write(operation)

    async def actor(self, secret: str) -> Actor:
        """Who asks. The only maker of actors. Problem ``unauthorised``, which tells of a token that is known, and was
        thus once right, why it is not any more.
        """
        digest = hash_of_token(secret)
        row = None
        if digest is not None:
            async with self._core.read() as work:
                row = await work.one(TokenRow, equal("hash", digest))
        now = self._core.now()
        if row is None or row.revoked or row.expires <= now:
            self._core.metrics.tokens_refused += 1
            if row is None:
                refuse_actor("the token is not known here")
            refuse_actor(
                "the token was revoked"
                if row.revoked
                else f"the token expired at {when(row.expires):%Y-%m-%d %H:%M} UTC"
            )
        return Actor(name=f"token:{row.label}", role=_role(row), network=_network(row), token=row.id)

    async def create(self, actor: Actor, request: TokenRequest) -> NewToken:
        """Problem ``forbidden`` when the new one could do more than the one who makes it."""

        async def operation(work: Work) -> NewToken:
            await work.authorise(actor)
            network = None
            if request.network is not None:
                network = (await work.network_for(actor, request.network)).key
            elif actor.network is not None:
                raise Problem(
                    "forbidden", "the token is for one network", "Name that network in the request for the new one."
                )
            if await work.count(TokenRow, above("expires", work.now)) >= TOKENS_MAX:
                raise Problem("limit", f"there are {TOKENS_MAX} tokens", "Revoke those that nobody uses.")
            return await self._make(work, actor.name, request, network)

        return await self._core.write(operation)

    async def list(self, actor: Actor) -> tuple[Token, ...]:
        """Those that are neither revoked nor expired, the oldest first."""
        async with self._core.read() as work:
            await work.authorise(actor)
            rows = await work.find(TokenRow, above("expires", work.now), equal("revoked", False), order="created")
        return tuple(_value(row) for row in rows if actor.network is None or _network(row) == actor.network)

    async def revoke(self, actor: Actor, token_id: str) -> Token:
        """From the next request on it is refused. Problem ``not-found``."""

        async def operation(work: Work) -> Token:
            await work.authorise(actor)
            row = await work.get(TokenRow, token_id)
            hidden = row is not None and actor.network is not None and row.network != key_of(actor.network)
            if row is None or hidden or row.expires <= work.now:
                raise Problem("not-found", f"there is no token {shown(token_id)}", "List the tokens to see their ids.")
            if not row.revoked:
                row = msgspec.structs.replace(row, revoked=True)
                await work.put(row)
                work.event(actor.name, "token.revoke", row.network, row.id, row.label)
            return _value(row)

        return await self._core.write(operation)

    async def _make(self, work: Work, actor: str, request: TokenRequest, network: bytes | None) -> NewToken:
        minted = mint(self._core.random, now=work.now, ttl_s=request.ttl_s)
        if await work.get(TokenRow, minted.id) is not None:
            raise Problem("conflict", "the same random number came twice", "Try again.")
        row = _row(minted, request, network)
        await work.put(row)
        work.event(actor, "token.create", network, row.id, f"{row.label}, {row.role}, for {exact_span(request.ttl_s)}")
        token = _value(row)
        return NewToken(
            **{name: getattr(token, name) for name in token.__struct_fields__}, secret=TOKEN_SCHEME + minted.text
        )


def _row(minted: Minted, request: TokenRequest, network: bytes | None) -> TokenRow:
    return TokenRow(
        id=minted.id,
        label=request.label,
        role=request.role,
        network=network,
        hash=minted.hash,
        created=minted.created,
        expires=minted.expires,
        revoked=False,
    )


def _value(row: TokenRow) -> Token:
    return Token(
        id=row.id,
        label=row.label,
        role=_role(row),
        network=_network(row),
        created=when(row.created),
        expires=when(row.expires),
    )


def _role(row: TokenRow) -> Literal["admin", "reader"]:
    return cast(Literal["admin", "reader"], row.role)


def _network(row: TokenRow) -> str | None:
    return None if row.network is None else str(VerifyKey(row.network))
