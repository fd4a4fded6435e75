"""``warren coordinator token``: administrators' tokens, on the coordinator's machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from warren.cli import output
from warren.cli.access import json_option
from warren.cli.coordinator_place import extra, place, url_of
from warren.cli.groups import Group
from warren.errors import OperationFailed, UsageError
from warren.proto.control.spans import TOKEN_S_MAX

if TYPE_CHECKING:
    from warren.coordinator.operator import MadeToken
    from warren.coordinator.service import Service
    from warren.coordinator.store import Store
    from warren.proto.control.administration import Token

T = TypeVar("T")

_LABEL_CHARACTERS_MAX = 64  # as in proto.control.administration.TokenRequest


@click.group("token", cls=Group)
def command() -> None:
    """Tokens of administrators, straight in the database: for when the last one is lost."""


@command.command("create")
@place
@click.option("--label", metavar="TEXT", default="operator", show_default=True, help="What it is for.")
@click.option(
    "--ttl", "ttl_s", metavar="TIME", type=output.Span(TOKEN_S_MAX), default="24h", show_default=True, help="Good for."
)
@click.option(
    "--role",
    type=click.Choice(["admin", "reader"]),
    default="admin",
    show_default=True,
    help="A reader changes nothing.",
)
@click.option("--network", metavar="NAME", help="Only for this network.")
@click.option(
    "--url", "urls", metavar="URL", multiple=True, help="How to reach the coordinator, for the access string."
)
@json_option
def create(
    *,
    state: Path,
    database: str | None,
    label: str,
    ttl_s: int,
    role: Literal["admin", "reader"],
    network: str | None,
    urls: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a token and print the access string with it, this once."""
    if not (0 < len(label) <= _LABEL_CHARACTERS_MAX and label.isprintable()):
        raise UsageError(f"--label is a text of 1 to {_LABEL_CHARACTERS_MAX} characters that can be printed")
    found = tuple(url_of(url) for url in urls)

    async def work(service: Service, store: Store) -> MadeToken:
        from warren.coordinator.operator import create_token

        return await create_token(service, store, label=label, ttl_s=ttl_s, role=role, network=network, urls=found)

    made = _with_database(state, database, work)
    if as_json:
        expires = made.expires.isoformat()
        output.emit({"id": made.id, "access": made.access, "secret": made.secret, "expires": expires})
    else:
        click.echo(f"Token {made.id}, good until {made.expires:%Y-%m-%d %H:%M} UTC; shown this once:\n")
        click.echo(f"  warren login {made.access}" if made.access else f"  {made.secret}")


@command.command("list")
@place
@json_option
def list_(*, state: Path, database: str | None, as_json: bool) -> None:
    """Show the tokens that are valid; never their secrets."""

    async def work(service: Service, store: Store) -> tuple[Token, ...]:
        from warren.coordinator.operator import list_tokens

        return await list_tokens(service, store)

    found = _with_database(state, database, work)
    if as_json:
        output.emit(found)
        return
    for one in found:
        where = f"network {one.network}" if one.network else "all networks"
        click.echo(
            f"{one.id}  {one.role:<6}  until {one.expires:%Y-%m-%d %H:%M} UTC  {where}  {output.clean(one.label)}"
        )
    if not found:
        click.echo("No token is valid; `warren coordinator token create` makes one.")


@command.command("revoke")
@place
@click.argument("token_id", metavar="ID")
@json_option
def revoke(*, state: Path, database: str | None, token_id: str, as_json: bool) -> None:
    """End a token at once."""

    async def work(service: Service, _: Store) -> Token:
        from warren.coordinator.operator import revoke_token

        return await revoke_token(service, token_id)

    revoked = _with_database(state, database, work)
    output.answer({"id": revoked.id, "revoked": True}, f"Token {revoked.id} is revoked.", as_json=as_json)


def _with_database(state: Path, database: str | None, work: Callable[[Service, Store], Awaitable[T]]) -> T:
    import asyncio

    with extra():
        from warren.coordinator.app import DATABASE_FILE, database_in
        from warren.coordinator.operator import beside

        if database is None:
            _check_readable(state, state / DATABASE_FILE)

        async def run() -> T:
            async with beside(database or database_in(state)) as (service, store):
                return await work(service, store)

        return asyncio.run(run())


def _check_readable(state: Path, file: Path) -> None:
    try:
        file.stat()
    except PermissionError:
        raise OperationFailed(f"{state} is another user's; run as the user of the coordinator, or as root") from None
    except OSError:
        raise OperationFailed(f"{state} holds no coordinator; say where it is with --state or --database") from None
