"""``warren connector``: where streams to the services of a network come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import entries, output
from warren.cli.completion_names import CONNECTOR, NETWORK, SELECTORS, SERVICE
from warren.cli.groups import Group
from warren.cli.network_values import COMMENT, DOMAIN, LISTEN, NAME, PREFIX, made_of

if TYPE_CHECKING:
    from warren.api.rest import AdminClient
    from warren.proto.control.administration import ConnectorEntry

_RATE: Final = click.FloatRange(0, 1_000_000, min_open=True)
_STREAMS: Final = click.IntRange(1, 65_536)


@click.group("connector", cls=Group)
def command() -> None:
    """Where streams to a service come in: at a port of a member's host, for TLS names, or as web sites.

    A connector that others than the host itself can connect to needs a member whose operator lets it be a gateway
    (agent.toml, `[gateway] enabled = true`).
    """


@command.command("add")
@click.argument("network", type=NETWORK)
@click.argument("name", type=NAME)
@click.option("--service", metavar="NAME", type=SERVICE, required=True, help="Where streams go.")
@click.option(
    "--at",
    metavar="SELECTOR",
    type=SELECTORS,
    multiple=True,
    required=True,
    help="At which members they come in: member:NAME, tag:TAG, members; may be given several times.",
)
@click.option(
    "--kind",
    type=click.Choice(["port", "tls", "http"]),
    default="port",
    show_default=True,
    help="port: everything; tls: TLS for a domain, passed on as it is; http: a web site, the gateway ends TLS.",
)
@click.option(
    "--listen",
    metavar="PLACE",
    type=LISTEN,
    help="PORT (of loopback), ADDRESS:PORT, *:PORT or unix:/PATH; else loopback at the service's port, or *:443. Below "
    "1024 on loopback, and unix:, only where a member's agent.toml names it.",
)
@click.option("--domain", "domains", metavar="DOMAIN", type=DOMAIN, multiple=True, help="Of tls and http.")
@click.option(
    "--certificate",
    type=click.Choice(["acme", "internal", "none"]),
    default="acme",
    show_default=True,
    help="Of http: from a certificate authority, from the gateway's own, or no TLS at all.",
)
@click.option("--source", "sources", metavar="PREFIX", type=PREFIX, multiple=True, help="Let only these in.")
@click.option("--rate", metavar="NUMBER", type=_RATE, help="New streams a second that one source may open.")
@click.option("--streams", metavar="NUMBER", type=_STREAMS, default=4096, show_default=True, help="At the same time.")
@click.option(
    "--accepts-proxy-protocol", is_flag=True, help="A load balancer says who the client is (PROXY protocol v2)."
)
@click.option("--comment", metavar="TEXT", type=COMMENT, default="", help="A line for people.")
@entries.wait_option
@access_.access_option
@access_.json_option
def add(
    *,
    network: str,
    name: str,
    service: str,
    at: tuple[str, ...],
    kind: str,
    listen: str | None,
    domains: tuple[str, ...],
    certificate: str,
    sources: tuple[str, ...],
    rate: float | None,
    streams: int,
    accepts_proxy_protocol: bool,
    comment: str,
    wait_s: int,
    access: str | None,
    as_json: bool,
) -> None:
    """Have members of NETWORK take streams for a service, and call that NAME.

    \b
    Examples:
      warren connector add home db --service db --at members --listen 5432
      warren connector add home shop --service shop --at tag:gateway --kind http --domain shop.example.com
    """
    from warren.proto.control.administration import ConnectorRequest

    request = made_of(
        f"connector {name}",
        ConnectorRequest,
        name=name,
        service=service,
        at=at,
        kind=kind,
        listen=listen or "",
        domains=domains,
        certificate=certificate,
        sources=sources,
        rate=rate,
        streams_max=streams,
        accepts_proxy_protocol=accepts_proxy_protocol,
        comment=comment,
    )

    async def add_it(client: AdminClient) -> ConnectorEntry:
        made = await client.add_connector(network, request)
        return await entries.when_said(made, lambda: client.connectors(network), wait_s)

    entry = access_.ask(access, add_it)
    where = f"{_what(entry)} of {entries.members(entry.taken_by, entry.taken_by_count)}"
    text = f"{network} has connector {entry.name} to service {entry.service}: {where}."
    output.answer(entry, text, as_json=as_json)
    if not as_json:
        entries.warn([*entry.warnings, *(entries.hindrances(entry) if wait_s else ())])


@command.command("list")
@click.argument("network", type=NETWORK)
@access_.access_option
@access_.json_option
def list_(network: str, access: str | None, as_json: bool) -> None:
    """List the connectors of NETWORK, and what keeps which member from taking streams for them."""
    found = access_.ask(access, lambda client: client.connectors(network))
    rows = [
        [one.name, one.service, one.kind, one.listen, ", ".join(one.domains), _at(one), entries.working(one)]
        for one in found
    ]
    titles = ["NAME", "SERVICE", "KIND", "LISTENS", "DOMAINS", "AT", "WORKS"]
    nothing = f"There is no connector; `warren connector add {network} NAME --service … --at …` makes one."
    output.listing(found, titles, rows, flexible=("DOMAINS", "AT"), nothing=nothing, as_json=as_json)
    if not as_json:
        entries.warn(f"{one.name}: {line}" for one in found for line in (*one.warnings, *entries.hindrances(one)))


@command.command("remove")
@click.argument("network", type=NETWORK)
@click.argument("name", type=CONNECTOR)
@access_.access_option
@access_.json_option
def remove(network: str, name: str, access: str | None, as_json: bool) -> None:
    """Have the members of NETWORK take streams for the connector NAME no longer."""
    entry = access_.ask(access, lambda client: client.remove_connector(network, name))
    output.answer(entry, f"{network} has connector {entry.name} no longer.", as_json=as_json)


def _at(entry: ConnectorEntry) -> str:
    return entries.selected(entry.at, entry.taken_by_count)


def _what(entry: ConnectorEntry) -> str:
    """``*:443 (tls for a.example)``."""
    names = f" for {', '.join(entry.domains)}" if entry.domains else ""
    return entry.listen if entry.kind == "port" else f"{entry.listen} ({entry.kind}{names})"
