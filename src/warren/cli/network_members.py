"""``warren network members``, ``rename``, ``tag``, ``revoke`` and ``events``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from warren.cli import access as access_
from warren.cli import output
from warren.cli.completion_names import MEMBER, NETWORK
from warren.cli.network_values import NAME, TAG
from warren.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from warren.proto.control.administration import Member


@click.command("members")
@click.argument("network", type=NETWORK)
@access_.access_option
@access_.json_option
def members(network: str, access: str | None, as_json: bool) -> None:
    """List the members of NETWORK, as the coordinator knows them."""
    found = access_.ask(access, lambda client: client.members(network))
    now = output.utc_now()
    rows = [
        [
            member.name,
            click.style("online", fg="green") if member.connected else "offline",
            output.ago(member.connected_since if member.connected else member.last_seen, now),
            member.address6,
            member.address4 or "",
            output.until(member.lease_ends, now),
            ", ".join([*member.tags, *(["(ephemeral)"] if member.ephemeral else [])]),
        ]
        for member in found
    ]
    titles = ["NAME", "STATE", "SINCE", "IPV6", "IPV4", "LEASE", "TAGS"]
    nothing = f"Nobody is in {network} yet; `warren network invite {network}` prints a ticket."
    output.listing(found, titles, rows, flexible=("NAME", "TAGS"), nothing=nothing, as_json=as_json)


@click.command("rename")
@click.argument("network", type=NETWORK)
@click.argument("old", metavar="MEMBER", type=MEMBER)
@click.argument("new", metavar="NAME", type=NAME)
@access_.access_option
@access_.json_option
def rename(network: str, old: str, new: str, access: str | None, as_json: bool) -> None:
    """Give MEMBER the name NAME. Rules of the policy that name it by its old name do not follow."""
    from warren.proto.control.administration import MemberChange

    change = MemberChange(name=new)
    member = access_.ask(access, lambda client: client.change_member(network, old, change))
    output.answer(member, f"{old} is {member.name} now.", as_json=as_json)


@click.command("tag")
@click.argument("network", type=NETWORK)
@click.argument("member", type=MEMBER)
@click.argument("tags", metavar="[TAG]…", type=TAG, nargs=-1)
@click.option("--none", is_flag=True, help="Take all tags away.")
@access_.access_option
@access_.json_option
def tag(network: str, member: str, tags: tuple[str, ...], none: bool, access: str | None, as_json: bool) -> None:
    """Set the tags of MEMBER to exactly these.

    \b
    Example:
      warren network tag home web1 web public
    """
    from warren.proto.control.administration import MemberChange

    if bool(tags) == none:
        raise UsageError("say which tags it is to have, or --none")
    change = MemberChange(tags=tags)
    changed = access_.ask(access, lambda client: client.change_member(network, member, change))
    output.answer(changed, f"{changed.name} has {_tags(changed)}.", as_json=as_json)


@click.command("revoke")
@click.argument("network", type=NETWORK)
@click.argument("member", type=MEMBER)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@access_.access_option
@access_.json_option
def revoke(network: str, member: str, yes: bool, access: str | None, as_json: bool) -> None:
    """Shut MEMBER out of NETWORK for good; to come back it needs a new ticket.

    Members that are connected to the coordinator drop it at once, also in the middle of a transfer. Those that cannot
    reach the coordinator drop it when its lease ends at the latest.
    """
    found = access_.ask(access, lambda client: client.member(network, member))
    what = f"{found.name} ({found.address6}{f', {found.address4}' if found.address4 else ''})"
    output.confirm(f"Shut {what} out of {network}?", yes=yes)
    revoked = access_.ask(access, lambda client: client.revoke_member(network, found.id))
    if as_json:
        output.emit(revoked)
        return
    click.echo(f"{revoked.name} is out of {network}. Members that are connected to the coordinator drop it at once,")
    click.echo(f"all others when its lease ends: {_bound(revoked.lease_ended)}.")


@click.command("events")
@click.argument("network", type=NETWORK, required=False)
@click.option(
    "--after", metavar="N", type=click.IntRange(0), help="Those after the event number N.  [default: the newest]"
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most."
)
@access_.access_option
@access_.json_option
def events(network: str | None, after: int | None, limit: int, access: str | None, as_json: bool) -> None:
    """Show who changed what, and when: in NETWORK, or everywhere."""
    found = access_.ask(access, lambda client: client.events(network, after=after, limit=limit))
    rows = [
        [
            str(event.sequence),
            output.local_time(event.at),
            *map(output.clean, (event.actor, event.action, event.subject, event.detail)),
        ]
        for event in found
    ]
    titles = ["N", "WHEN", "WHO", "WHAT", "WHOM", "DETAIL"]
    nothing = "Nothing happened." if after is None else f"Nothing happened after event {after}."
    wide = ("WHO", "WHOM", "DETAIL")
    output.listing(found, titles, rows, right=("N",), flexible=wide, nothing=nothing, as_json=as_json)


def _bound(moment: datetime) -> str:
    left = output.until(moment, output.utc_now())
    return f"{output.local_time(moment)}, in {left} at the latest" if left != "ended" else "it has ended already"


def _tags(member: Member) -> str:
    return f"the {'tag' if len(member.tags) == 1 else 'tags'} {', '.join(member.tags)}" if member.tags else "no tags"
