"""``warren coordinator run``: serve networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warren.cli import coordinator_token
from warren.cli.coordinator_place import extra, place, url_of
from warren.cli.groups import Group
from warren.errors import UsageError

if TYPE_CHECKING:
    from warren.coordinator.app import Ready


@click.group("coordinator", cls=Group)
def command() -> None:
    """Run a coordinator: it admits machines to networks and tells them of each other."""


command.add_command(coordinator_token.command)


@command.command("run")
@place
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
    with extra():
        _serve(
            state=state,
            database=database,
            listen=listen,
            urls=tuple(url_of(url) for url in urls),
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
            f"\n  warren login {ready.access}"
            f"\n  warren network {'invite ' + ready.network if ready.network else 'create home'}"
        )
    if ready.ticket is not None:
        click.echo(f"\nOn the first machine of {ready.network}, paste (this ticket works once, within the hour):\n")
        click.echo(f"  warren up {ready.ticket}")
    elif ready.network is not None:
        click.echo(f"\n{ready.network} has members; `warren network invite {ready.network}` makes a ticket for more.")
    click.echo("")
