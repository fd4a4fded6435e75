"""``warren coordinator``: serve networks, and look after the tokens of who administers them."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from warren.cli import output
from warren.cli.access import json_option
from warren.cli.groups import Group
from warren.errors import OperationFailed, UsageError
from warren.proto.control.spans import TOKEN_S_MAX

if TYPE_CHECKING:
    from warren.coordinator.app import Ready
    from warren.coordinator.operator import MadeToken
    from warren.coordinator.service import Service
    from warren.coordinator.store import Store
    from warren.proto.control.administration import Token

T = TypeVar("T")

_STATE = "/var/lib/warren-coordinator"
_LABEL_CHARACTERS_MAX = 64  # as in proto.control.administration.TokenRequest


def _place(function: Callable[..., None]) -> Callable[..., None]:
    """The options that say where the coordinator keeps its state."""
    state = click.option(
        "--state",
        metavar="DIR",
        default=_STATE,
        envvar="WARREN_COORDINATOR_STATE",
        show_default=True,
        type=click.Path(path_type=Path),
        help="Where keys and the database are kept.",
    )
    database = click.option(
        "--database",
        metavar="URL",
        envvar="WARREN_DATABASE",
        help="sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME; by default a file in the state directory.",
    )
    return state(database(function))


@click.group("coordinator", cls=Group)
def command() -> None:
    """Run a coordinator: it admits machines to networks and tells them of each other."""


@command.command("run")
@_place
@click.option(
    "--listen",
    metavar="ADDRESS:PORT",
    multiple=True,
    help="Where to listen; again for more.  [default: [::]:8443 and 0.0.0.0:8443]",
)
@click.option("--url", "urls", metavar="URL", multiple=True, help="How others reach it, as https://HOST:PORT.")
@click.option("--tls-certificate", metavar="FILE", type=click.Path(path_type=Path), help="Own certificate, PEM.")
@click.option("--tls-key", metavar="FILE", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--network", metavar="NAME", help="Make this network unless it is there, and print a ticket to it.")
@click.option("--relay/--no-relay", default=True, help="Also relay for members without a direct path (the default).")
@click.option(
    "--relay-udp-port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=3478,
    show_default=True,
    help="Of the relay, for UDP and TCP; 0: none.",
)
@click.option(
    "--relay-tls-port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=443,
    show_default=True,
    help="Of the relay, for networks that block UDP; 0: none.",
)
@click.option(
    "--connections-per-source",
    metavar="N",
    type=click.IntRange(1),
    default=128,
    show_default=True,
    help="Connections of one address (IPv6: one /64) not yet authenticated; how often it may ask grows with it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when it serves; log lines as JSON.")
def run(
    *,
    state: Path,
    database: str | None,
    listen: tuple[str, ...],
    urls: tuple[str, ...],
    tls_certificate: Path | None,
    tls_key: Path | None,
    network: str | None,
    relay: bool,
    relay_udp_port: int,
    relay_tls_port: int,
    connections_per_source: int,
    as_json: bool,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    The first start makes its keys and its database and prints an access string: whoever has it administers the
    coordinator. SIGHUP reads the certificate again; a changed file is also noticed within seconds.

    \b
    Example:
      warren coordinator run --url https://warren.example.com:8443 --network home
    """
    from warren import log

    if as_json:
        os.environ[log.FORMAT_VARIABLE] = "json"
    log.configure()
    with _extra():
        _serve(
            state=state,
            database=database,
            listen=listen,
            urls=tuple(_url(url) for url in urls),
            certificate=tls_certificate,
            key=tls_key,
            network=None if network is None else _name(network),
            relay_ports=(relay_udp_port or None, relay_tls_port or None) if relay else None,
            connections_per_source=connections_per_source,
            announce=_print_json if as_json else _print_text,
        )


def _serve(
    *,
    relay_ports: tuple[int | None, int | None] | None,
    connections_per_source: int,
    announce: Callable[[Ready], None],
    **settings: Any,
) -> None:
    import asyncio

    from warren.coordinator import app
    from warren.coordinator.limits import Limits, Rate
    from warren.coordinator.own_relay import OwnRelay

    limits = Limits(
        unproven_per_source=connections_per_source,
        requests=Rate(burst=max(200, 4 * connections_per_source), per_s=max(50, connections_per_source)),
    )
    relay = None if relay_ports is None else OwnRelay(*relay_ports)
    asyncio.run(app.run(app.Configuration(**settings, relay=relay, limits=limits), announce))


@command.group("token", cls=Group)
def token() -> None:
    """Tokens of administrators, straight in the database: for when the last one is lost."""


@token.command("create")
@_place
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
    found = tuple(_url(url) for url in urls)

    async def work(service: Service, store: Store) -> MadeToken:
        from warren.coordinator.operator import create_token

        return await create_token(service, store, label=label, ttl_s=ttl_s, role=role, network=network, urls=found)

    made = _with_database(state, database, work)
    if as_json:
        expires = made.expires.isoformat()
        output.emit({"id": made.id, "access": made.access, "secret": made.secret, "expires": expires})
    else:
        click.echo(f"Token {made.id}, good until {made.expires:%Y-%m-%d %H:%M} UTC; shown this once:\n")
        click.echo(f"  export WARREN_ACCESS={made.access}" if made.access else f"  {made.secret}")


@token.command("list")
@_place
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


@token.command("revoke")
@_place
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

    with _extra():
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


@contextmanager
def _extra() -> Iterator[None]:
    """What the extra ``coordinator`` brings is imported inside: some of it at once, some when it is needed first."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "warren"}:
            raise
        raise OperationFailed(
            f"the coordinator needs {missing}, which is not installed; run `pip install 'warren[coordinator]'`"
        ) from None


def _url(text: str) -> str:
    """``HOST``, ``HOST:PORT`` or ``https://HOST:PORT``, as the last of these. Raises UsageError."""
    import msgspec

    from warren.model.parts import Url

    url = text if "://" in text else f"https://{text}"
    try:
        return msgspec.convert(url.rstrip("/"), Url)
    except msgspec.ValidationError:
        raise UsageError(f"{text} is no URL of a coordinator; write it like https://warren.example.com:8443") from None


def _name(text: str) -> str:
    """The name of a network. Raises UsageError."""
    import msgspec

    from warren.model.parts import Name

    try:
        return msgspec.convert(text, Name)
    except msgspec.ValidationError:
        raise UsageError(f"{text} is no name for a network; use a-z, 0-9 and inner hyphens") from None


def _print_json(ready: Ready) -> None:
    import msgspec

    click.echo(msgspec.json.encode({"event": "ready", **msgspec.to_builtins(ready)}).decode())


def _print_text(ready: Ready) -> None:
    click.echo(f"coordinator {ready.key}\nreached at  {', '.join(ready.urls)}")
    click.echo(f"relays at   {', '.join(ready.relay) or 'no port'}")
    if ready.access is not None:
        click.echo(
            "\nWho has this access string administers the coordinator. It is shown this once and good for a day;"
            "\n`warren coordinator token create` makes another. Where you administer from, paste:\n"
            f"\n  export WARREN_ACCESS={ready.access}"
            f"\n  warren network {'invite ' + ready.network if ready.network else 'create home'}"
        )
    if ready.ticket is not None:
        click.echo(f"\nOn the first machine of {ready.network}, paste (this ticket works once, within the hour):\n")
        click.echo(f"  warren up {ready.ticket}")
    elif ready.network is not None:
        click.echo(f"\n{ready.network} has members; `warren network invite {ready.network}` makes a ticket for more.")
    click.echo("")
