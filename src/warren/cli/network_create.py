"""``warren network create``, ``list`` and ``show``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from warren.cli import access as access_
from warren.cli import output
from warren.cli.completion_names import NETWORK
from warren.cli.network_values import LEASE, NAME, SUFFIX

if TYPE_CHECKING:
    from warren.api.rest import AdminClient
    from warren.proto.control.administration import Network
    from warren.proto.control.desired_state import DesiredState


@click.command("create")
@click.argument("name", type=NAME)
@click.option("--ipv4", "prefix4", metavar="PREFIX", help="An IPv4 block for the members too, such as 10.77.0.0/16.")
@click.option(
    "--suffix", metavar="SUFFIX", type=SUFFIX, default="internal", show_default=True, help="Of NODE.NAME.SUFFIX."
)
@click.option(
    "--lease",
    "lease_s",
    metavar="TIME",
    type=LEASE,
    default="24h",
    show_default=True,
    help="How long a member is one without hearing from the coordinator.",
)
@access_.access_option
@access_.json_option
def create(name: str, prefix4: str | None, suffix: str, lease_s: int, access: str | None, as_json: bool) -> None:
    """Make a network. Its IPv6 prefix follows from its key; its first policy lets members reach each other.

    \b
    Example:
      warren network create home --ipv4 10.77.0.0/16
    """
    from warren.proto.control.administration import NetworkRequest

    request = NetworkRequest(name=name, prefix4=prefix4, suffix=suffix, lease_s=lease_s)
    made = access_.ask(access, lambda client: client.create_network(request))
    if as_json:
        output.emit(made)
        return
    click.echo(f"{made.name} is made, with {_prefixes(made)}; its members may reach each other.")
    click.echo(f"`warren network invite {made.name}` prints a ticket for a machine to join.")


@click.command("list")
@access_.access_option
@access_.json_option
def list_(access: str | None, as_json: bool) -> None:
    """List the networks of the coordinator."""
    networks = access_.ask(access, lambda client: client.networks())
    rows = [
        [
            network.name,
            str(network.members),
            network.prefix6,
            network.prefix4 or "",
            network.suffix,
            output.span(network.lease_s),
            output.ago(network.created, output.utc_now()),
        ]
        for network in networks
    ]
    titles = ["NAME", "MEMBERS", "IPV6", "IPV4", "SUFFIX", "LEASE", "MADE"]
    nothing = "There is no network yet; `warren network create NAME` makes one."
    wide = ("NAME", "SUFFIX")
    output.listing(networks, titles, rows, right=("MEMBERS",), flexible=wide, nothing=nothing, as_json=as_json)


@click.command("show")
@click.argument("network", type=NETWORK)
@click.option("--toml", "as_toml", is_flag=True, help="Print it as a desired-state file, for `plan` and `apply`.")
@access_.access_option
@access_.json_option
def show(network: str, as_toml: bool, access: str | None, as_json: bool) -> None:
    """Show a network and its policy.

    \b
    Example:
      warren network show home --toml > home.toml
    """
    from warren.cli.network_render import render

    async def question(client: AdminClient) -> tuple[Network, DesiredState]:
        return await client.network(network), await client.desired_state(network)

    found, state = access_.ask(access, question)
    if as_json:
        output.emit({"network": found, "state": state})
    elif as_toml:
        click.echo(render(found.name, state), nl=False)
    else:
        _print(found, state)


def _print(network: Network, state: DesiredState) -> None:
    from warren.proto.control.desired import question_text, rule_text
    from warren.proto.control.desired_services import connector_text, service_text
    from warren.proto.control.spans import exact_span

    click.secho(network.name, bold=True)
    facts = {
        "id": network.id,
        "prefixes": _prefixes(network),
        "names": f"NODE.{network.name}.{network.suffix}",
        "lease": exact_span(network.lease_s),
        "members": str(network.members),
        "version": f"{network.version}, revision {network.revision}",
        "made": output.local_time(network.created),
    }
    for title, fact in facts.items():
        click.echo(f"  {click.style(title.ljust(8), dim=True)}  {fact}")
    click.echo("\nPolicy (the first rule that matches decides; without one nothing passes)")
    for number, rule in enumerate(state.policy, 1):
        colour = "green" if rule.action == "allow" else "red"
        click.echo(f"  {number:>3}  {click.style(output.clean(rule_text(rule)), fg=colour)}")
    if not state.policy:
        click.echo("  no rule: nothing passes")
    for title, lines in (
        ("Services", [f"{name}  {service_text(one)}" for name, one in (state.services or {}).items()]),
        ("Connectors", [f"{name}  {connector_text(one)}" for name, one in (state.connectors or {}).items()]),
    ):
        if lines:
            click.echo(f"\n{title}")
        for line in lines:
            click.echo(f"  {output.clean(line)}")
    if state.tests:
        click.echo("\nPolicy tests")
        for number, test in enumerate(state.tests, 1):
            click.echo(f"  {number:>3}  {output.clean(question_text(test))}")


def _prefixes(network: Network) -> str:
    return " and ".join(prefix for prefix in (network.prefix6, network.prefix4) if prefix)
