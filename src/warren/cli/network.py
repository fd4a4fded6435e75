"""``warren network``: what an operator does with networks. The commands are in the files beside this one."""

from __future__ import annotations

from typing import Final

import click

from warren.cli.groups import LazyGroup

_SECTIONS: Final = {
    "Networks": {
        "create": ("warren.cli.network_create:create", "Make a network."),
        "list": ("warren.cli.network_create:list_", "List the networks of the coordinator."),
        "show": ("warren.cli.network_create:show", "Show a network and its policy; --toml: as a file to edit."),
        "events": ("warren.cli.network_members:events", "Who changed what, and when."),
    },
    "Desired state": {
        "plan": ("warren.cli.network_plan:plan", "Show what a desired-state file would change."),
        "apply": ("warren.cli.network_plan:apply", "Change the network to what the file says, all or nothing."),
    },
    "Relays": {
        "relay": ("warren.cli.network_relay:command", "Which relays the members may use."),
    },
    "Members": {
        "invite": ("warren.cli.network_invite:invite", "Print a ticket that lets machines join."),
        "invites": ("warren.cli.network_invite:invites", "List the invites."),
        "uninvite": ("warren.cli.network_invite:uninvite", "Make an invite worth nothing."),
        "members": ("warren.cli.network_members:members", "List the members."),
        "rename": ("warren.cli.network_members:rename", "Give a member another name."),
        "tag": ("warren.cli.network_members:tag", "Set the tags of a member."),
        "revoke": ("warren.cli.network_members:revoke", "Shut a member out."),
    },
}


@click.group("network", cls=LazyGroup, sections=_SECTIONS)
def command() -> None:
    """Create networks, invite machines, plan and apply policies, revoke members.

    These commands talk to a coordinator, which `warren login` makes known here.
    """
