"""``warren service``: what members of a network serve to others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import entries, output
from warren.cli.completion_names import NETWORK, SELECTORS, SERVICE
from warren.cli.groups import Group
from warren.cli.network_values import COMMENT, CONNECT_TIMEOUT, HEALTH, IDLE, NAME, TARGET, made_of

if TYPE_CHECKING:
    from warren.api.rest import AdminClient
    from warren.proto.control.administration import ServiceEntry

_PORT: Final = click.IntRange(1, 65_535)


@click.group("service", cls=Group)
def command() -> None:
    """What members of a network serve to others: a host and port that they reach, under one name.

    Each serving member answers for a service at an address of its own for it; NAME.svc.NETWORK.SUFFIX leads to all of
    them, and rules of the policy speak of `service:NAME`. Where streams come in is a connector's business (`warren
    connector`), or a forward's (`warren forward`).
    """


@command.command("add")
@click.argument("network", type=NETWORK)
@click.argument("name", type=NAME)
@click.option(
    "--at",
    metavar="SELECTOR",
    type=SELECTORS,
    multiple=True,
    required=True,
    help="Who serves it: member:NAME, tag:TAG, members; may be given several times.",
)
@click.option(
    "--target",
    metavar="HOST:PORT",
    type=TARGET,
    required=True,
    help="Where it is, as a serving member reaches it: HOST:PORT, [IPV6]:PORT, or unix:/PATH.",
)
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True, help="What it speaks.")
@click.option("--port", metavar="PORT", type=_PORT, help="At the service's address; else that of the target.")
@click.option(
    "--connect-timeout",
    metavar="TIME",
    type=CONNECT_TIMEOUT,
    default="5s",
    show_default=True,
    help="How long to try to connect to the target.",
)
@click.option("--idle", metavar="TIME", type=IDLE, help="End streams on which nothing moves for so long; else none.")
@click.option(
    "--health",
    metavar="TIME",
    type=HEALTH,
    default="10s",
    show_default=True,
    help="How often a serving member tries to connect (of UDP: sends an empty datagram); 0: never. "
    "While that fails others serve.",
)
@click.option("--proxy-protocol", is_flag=True, help="Tell the target the client's address (PROXY protocol v2).")
@click.option(
    "--helper",
    type=click.Choice(["none", "ftp", "tftp"]),
    default="none",
    show_default=True,
    help="The protocol opens connections of its own, which need help.",
)
@click.option("--comment", metavar="TEXT", type=COMMENT, default="", help="A line for people.")
@entries.wait_option
@access_.access_option
@access_.json_option
def add(
    *,
    network: str,
    name: str,
    at: tuple[str, ...],
    target: str,
    protocol: str,
    port: int | None,
    connect_timeout: int,
    idle: int | None,
    health: int,
    proxy_protocol: bool,
    helper: str,
    comment: str,
    wait_s: int,
    access: str | None,
    as_json: bool,
) -> None:
    """Have members of NETWORK serve NAME to the others, if the policy lets them.

    \b
    Example:
      warren service add home shop --at member:web1 --target localhost:8080 --port 80
    """
    from warren.proto.control.administration import ServiceRequest

    request = made_of(
        f"service {name}",
        ServiceRequest,
        name=name,
        at=at,
        target=target,
        protocol=protocol,
        port=port,
        connect_timeout_s=connect_timeout,
        idle_s=idle,
        health_s=health,
        proxy_protocol=proxy_protocol,
        helper=helper,
        comment=comment,
    )

    async def add_it(client: AdminClient) -> ServiceEntry:
        made = await client.add_service(network, request)
        return await entries.when_said(made, lambda: client.services(network), wait_s)

    entry = access_.ask(access, add_it)
    at_whom = entries.members(entry.served_by, entry.served_by_count)
    text = f"{network} has service {entry.name}: {entry.full_name}, {entry.protocol} {entry.port}, at {at_whom}."
    output.answer(entry, text, as_json=as_json)
    if not as_json:
        entries.warn([*entry.warnings, *(entries.hindrances(entry) if wait_s else ())])


@command.command("list")
@click.argument("network", type=NETWORK)
@access_.access_option
@access_.json_option
def list_(network: str, access: str | None, as_json: bool) -> None:
    """List the services of NETWORK, and what keeps which member from serving them."""
    found = access_.ask(access, lambda client: client.services(network))
    rows = [
        [one.name, f"{one.protocol} {one.port}", _at(one), entries.working(one), one.target, ", ".join(one.connectors)]
        for one in found
    ]
    titles = ["NAME", "PORT", "AT", "WORKS", "TARGET", "CONNECTORS"]
    nothing = f"There is no service; `warren service add {network} NAME --at … --target …` makes one."
    output.listing(found, titles, rows, flexible=("AT", "TARGET"), nothing=nothing, as_json=as_json)
    if not as_json:
        entries.warn(f"{one.name}: {line}" for one in found for line in (*one.warnings, *entries.hindrances(one)))


@command.command("remove")
@click.argument("network", type=NETWORK)
@click.argument("name", type=SERVICE)
@access_.access_option
@access_.json_option
def remove(network: str, name: str, access: str | None, as_json: bool) -> None:
    """Have the members of NETWORK serve NAME no longer. Connectors that lead to it go first."""
    entry = access_.ask(access, lambda client: client.remove_service(network, name))
    output.answer(entry, f"{network} has service {entry.name} no longer.", as_json=as_json)


def _at(entry: ServiceEntry) -> str:
    return entries.selected(entry.at, entry.served_by_count)
