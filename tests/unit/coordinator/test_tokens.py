"""Tokens: who may do what, for how long, and what the database knows of their secrets."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.coordinators import ADMIN_S, World, run, world
from warren.coordinator.minting import TOKEN_SCHEME, mint
from warren.coordinator.problems import Problem
from warren.coordinator.service import Options
from warren.proto.control.administration import Actor, InviteRequest, MemberChange, NetworkRequest, TokenRequest
from warren.proto.control.desired_state import ApplyRequest


def test_the_first_token_is_given_once_and_has_an_end() -> None:
    async def scenario(w: World) -> None:
        assert await w.service.first_token() is None
        (token,) = await w.service.tokens(w.admin)
        assert (token.label, token.role, token.network) == ("first", "admin", None)
        assert (token.expires - token.created).total_seconds() == ADMIN_S
        assert Options().first_token_ttl_s == 86_400

    run(scenario)


def test_a_token_ends_when_its_time_is_over_and_says_so() -> None:
    async def scenario(w: World) -> None:
        made = await w.service.create_token(w.admin, TokenRequest(label="ci", ttl_s=1))
        actor = await w.service.actor(made.secret)
        w.clock.now += 1
        with pytest.raises(Problem, match="expired at 2027-01-15 08:00 UTC") as refused:
            await w.service.actor(made.secret)
        assert refused.value.kind == "unauthorised"
        with pytest.raises(Problem, match="has expired"):  # an actor made before does not outlive it
            await w.service.create_network(actor, NetworkRequest(name="late"))

    run(scenario)


def test_a_revoked_token_is_refused_also_by_who_was_let_in_before() -> None:
    async def scenario(w: World) -> None:
        made = await w.service.create_token(w.admin, TokenRequest(label="ci", ttl_s=100))
        actor = await w.service.actor(made.secret)
        await w.service.revoke_token(w.admin, made.id)
        with pytest.raises(Problem, match="the token was revoked"):
            await w.service.actor(made.secret)
        with pytest.raises(Problem) as refused:
            await w.service.create_network(actor, NetworkRequest(name="late"))
        assert refused.value.kind == "unauthorised"
        assert made.id not in {token.id for token in await w.service.tokens(w.admin)}

    run(scenario)


@pytest.mark.parametrize(
    "secret", ["", "x", TOKEN_SCHEME, f"{TOKEN_SCHEME}{'a' * 52}", f"{TOKEN_SCHEME}{'é' * 52}", "a" * 5000]
)
def test_a_token_nobody_made_is_not_known(secret: str) -> None:
    async def scenario(w: World) -> None:
        with pytest.raises(Problem, match="not known here") as refused:
            await w.service.actor(secret)
        assert refused.value.kind == "unauthorised"

    run(scenario)


def test_an_actor_that_was_not_made_from_a_token_writes_nothing() -> None:
    async def scenario(w: World) -> None:
        for forged in (Actor(name="x", role="admin"), Actor(name="x", role="admin", token="abcdefgh")):
            with pytest.raises(Problem) as refused:
                await w.service.create_network(forged, NetworkRequest(name="other"))
            assert refused.value.kind == "unauthorised"

    run(scenario)


def test_a_reader_reads_and_changes_nothing() -> None:
    async def scenario(w: World) -> None:
        made = await w.service.create_token(w.admin, TokenRequest(label="look", role="reader", ttl_s=100))
        reader = await w.service.actor(made.secret)
        state = await w.service.desired_state(reader, "home")
        assert (await w.service.status(reader, "home")).network.name == "home"
        s = w.service
        for attempt in (
            s.create_token(reader, TokenRequest(label="more", ttl_s=1)),
            s.tokens(reader),
            s.revoke_token(reader, made.id),
            s.create_network(reader, NetworkRequest(name="x")),
            s.apply(reader, "home", ApplyRequest(state=state)),
            s.create_invite(reader, "home", InviteRequest()),
            s.revoke_invite(reader, "home", "x"),
            s.change_member(reader, "home", "x", MemberChange()),
            s.revoke_member(reader, "home", "x"),
        ):
            with pytest.raises(Problem) as refused:
                await attempt
            assert refused.value.kind == "forbidden"

    run(scenario)


def test_what_belongs_to_another_network_is_not_found() -> None:
    async def scenario(w: World) -> None:
        s = w.service
        other = await s.create_network(w.admin, NetworkRequest(name="other"))
        all_over = await s.create_token(w.admin, TokenRequest(label="all", ttl_s=100))
        made = await s.create_token(w.admin, TokenRequest(label="theirs", network="other", ttl_s=100))
        theirs = await s.actor(made.secret)
        invite = await s.create_invite(w.admin, "home", InviteRequest())
        state = await s.desired_state(theirs, "other")
        assert [network.name for network in await s.networks(theirs)] == ["other"]
        assert {event.network for event in await s.events(theirs, None)} == {other.id}
        assert [token.id for token in await s.tokens(theirs)] == [made.id]
        for ref in ("home", w.network.id):
            for attempt in (
                s.network(theirs, ref),
                s.desired_state(theirs, ref),
                s.plan(theirs, ref, state),
                s.apply(theirs, ref, ApplyRequest(state=state)),
                s.create_invite(theirs, ref, InviteRequest()),
                s.invites(theirs, ref),
                s.revoke_invite(theirs, ref, invite.id),
                s.members(theirs, ref),
                s.member(theirs, ref, "x"),
                s.change_member(theirs, ref, "x", MemberChange()),
                s.revoke_member(theirs, ref, "x"),
                s.revocations(theirs, ref),
                s.status(theirs, ref),
                s.events(theirs, ref),
                s.create_token(theirs, TokenRequest(label="x", network=ref, ttl_s=1)),
            ):
                with pytest.raises(Problem) as refused:
                    await attempt
                assert refused.value.kind == "not-found"
        for token_id in (all_over.id, w.admin.token):
            with pytest.raises(Problem, match="there is no token"):
                await s.revoke_token(theirs, token_id)
        with pytest.raises(Problem) as refused:
            await s.revoke_invite(theirs, "other", invite.id)
        assert refused.value.kind == "not-found"

    run(scenario)


def test_who_is_for_one_network_makes_neither_networks_nor_tokens_for_all() -> None:
    async def scenario(w: World) -> None:
        made = await w.service.create_token(w.admin, TokenRequest(label="x", network="home", ttl_s=100))
        actor = await w.service.actor(made.secret)
        for attempt in (
            w.service.create_network(actor, NetworkRequest(name="more")),
            w.service.create_token(actor, TokenRequest(label="more", ttl_s=1)),
        ):
            with pytest.raises(Problem) as refused:
                await attempt
            assert refused.value.kind == "forbidden"
        again = await w.service.create_token(actor, TokenRequest(label="more", network="home", ttl_s=1))
        assert again.network == w.network.id

    run(scenario)


def test_the_database_holds_no_secret_that_can_be_used(tmp_path: Path) -> None:
    async def main() -> list[str]:
        async with world(f"sqlite:///{tmp_path}/c.db") as w:
            token = await w.service.create_token(w.admin, TokenRequest(label="ci", ttl_s=100))
            ticket = await w.ticket()
            assert len(ticket.secret) * 8 >= 128
            return [token.secret, token.secret.removeprefix(TOKEN_SCHEME), ticket.secret.hex(), w.admin.token]

    token, text, secret, admin_id = asyncio.run(main())
    with closing(sqlite3.connect(tmp_path / "c.db")) as database:
        dump = "\n".join(database.iterdump()).lower()
    assert text[:8] in dump  # the id, by which one that was found is known
    assert admin_id in dump
    for shown_once in (token, text, text[9:], secret):
        assert shown_once.lower() not in dump
    raw = (tmp_path / "c.db").read_bytes()
    assert bytes.fromhex(secret) not in raw


def test_no_secret_is_made_that_never_ends() -> None:
    with pytest.raises(ValueError, match="expired before"):
        mint(bytes, now=0.0, ttl_s=0)


def test_a_minted_secret_does_not_show_itself() -> None:
    minted = mint(lambda n: bytes(range(n)), now=0.0, ttl_s=1)
    assert minted.text not in repr(minted)
    assert repr(minted.secret) not in repr(minted)


def test_who_has_the_database_makes_a_token_beside_the_running_coordinator(tmp_path: Path) -> None:
    from tests.support.coordinators import URL, seeded
    from warren.coordinator.service import Service
    from warren.coordinator.store import open_store

    async def main() -> None:
        url = f"sqlite:///{tmp_path}/c.db"
        async with world(url) as w:
            beside = Service(await open_store(url), urls=(URL,), wall_clock=w.clock, random=seeded(9))
            made = await beside.local_token("rescue", 60)
            await beside.close()
            assert (await w.service.actor(made.secret)).name == "token:rescue"

    asyncio.run(main())
