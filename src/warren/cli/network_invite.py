"""``warren network invite``: a ticket, as text to paste and as a QR code; ``invites`` and ``uninvite``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import output
from warren.cli.completion_names import INVITE, NETWORK
from warren.cli.network_values import TAG
from warren.errors import OperationFailed
from warren.proto.control.spans import INVITE_S_MAX

if TYPE_CHECKING:
    from warren.proto.control.administration import Invite

_QUIET_ZONES: Final = (2, 1)
"""Light modules around a QR code: the first that the terminal has room for. Four are the standard's (ISO/IEC 18004);
scanners manage with fewer.
"""


@click.command("invite")
@click.argument("network", type=NETWORK)
@click.option(
    "--uses",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    help="How many machines may join with it.",
)
@click.option(
    "--ttl", "ttl_s", metavar="TIME", type=output.Span(INVITE_S_MAX), default="1h", show_default=True, help="Good for."
)
@click.option("--tag", "tags", metavar="TAG", type=TAG, multiple=True, help="For who joins with it; again for more.")
@click.option("--ephemeral", is_flag=True, help="Who joins with it vanishes from the network when it is gone.")
@click.option("--qr/--no-qr", "qr", default=None, help="Print the QR code; by default on a terminal wide enough.")
@access_.access_option
@access_.json_option
def invite(
    *,
    network: str,
    uses: int,
    ttl_s: int,
    tags: tuple[str, ...],
    ephemeral: bool,
    qr: bool | None,
    access: str | None,
    as_json: bool,
) -> None:
    """Print a ticket that lets machines join NETWORK. It is a secret, and shown this once.

    \b
    Example:
      warren network invite home
      warren network invite home --uses 20 --ttl 7d --tag web
    """
    from warren.proto.control.administration import InviteRequest

    request = InviteRequest(uses=uses, ttl_s=ttl_s, tags=tags, ephemeral=ephemeral)
    made = access_.ask(access, lambda client: client.create_invite(network, request))
    if as_json:
        output.emit(made)
        return
    for line in _code(made.ticket, qr):
        click.echo(line)
    whom = "one machine" if made.uses == 1 else f"{made.uses} machines"
    click.echo(f"For {whom}, until {output.local_time(made.expires)}{_conditions(made)}; on the machine run:\n")
    click.echo(f"warren up '{made.ticket}'")


@click.command("invites")
@click.argument("network", type=NETWORK)
@access_.access_option
@access_.json_option
def invites(network: str, access: str | None, as_json: bool) -> None:
    """List the invites of NETWORK. Their tickets are not kept anywhere and cannot be shown again."""
    found = access_.ask(access, lambda client: client.invites(network))
    rows = [
        [invite.id, f"{invite.used} of {invite.uses}", _state(invite), ", ".join(invite.tags), _kind(invite)]
        for invite in found
    ]
    titles = ["ID", "USED", "STATE", "TAGS", "KIND"]
    nothing = f"There is no invite; `warren network invite {network}` makes one."
    output.listing(found, titles, rows, flexible=("TAGS",), nothing=nothing, as_json=as_json)


@click.command("uninvite")
@click.argument("network", type=NETWORK)
@click.argument("invite", type=INVITE)
@access_.access_option
@access_.json_option
def uninvite(network: str, invite: str, access: str | None, as_json: bool) -> None:
    """Make an invite worth nothing. INVITE is its id, as `invites` shows it. Who joined with it stays a member."""
    revoked = access_.ask(access, lambda client: client.revoke_invite(network, invite))
    output.answer(
        revoked,
        f"Nobody can join with invite {revoked.id} any more; it was used {revoked.used} times.",
        as_json=as_json,
    )


def _code(ticket: str, asked: bool | None) -> list[str]:
    """The QR code, if it was asked for or else fits the terminal."""
    width = output.terminal_width()
    if asked is False or (asked is None and width is None):
        return []
    codes = [qr_lines(ticket, quiet_zone) for quiet_zone in _QUIET_ZONES]
    fitting = [code for code in codes if width is None or output.visible_length(code[0]) <= width]
    return fitting[0] if fitting else codes[0] if asked else []


def qr_lines(text: str, quiet_zone: int) -> list[str]:
    """A QR code for terminals: two modules in one character, dark on light whatever the terminal's colours."""
    import segno

    try:
        code = segno.make_qr(text, error="l")
    except segno.DataOverflowError:
        raise OperationFailed(f"a text of {len(text)} characters does not fit a QR code; say --no-qr") from None
    size = len(code.matrix) + 2 * quiet_zone
    dark = {
        (x, y) for y, row in enumerate(code.matrix, quiet_zone) for x, module in enumerate(row, quiet_zone) if module
    }
    lines = []
    for y in range(0, size, 2):
        halves = "".join(" ▄▀█"[2 * ((x, y) in dark) + ((x, y + 1) in dark)] for x in range(size))
        lines.append(click.style(halves, fg="black", bg="bright_white"))
    return lines


def _conditions(invite: Invite) -> str:
    tags = f", with the {'tag' if len(invite.tags) == 1 else 'tags'} {', '.join(invite.tags)}" if invite.tags else ""
    return tags + (", ephemeral" if invite.ephemeral else "")


def _kind(invite: Invite) -> str:
    return "ephemeral" if invite.ephemeral else ""


def _state(invite: Invite) -> str:
    now = output.utc_now()
    if invite.revoked:
        return "revoked"
    if invite.used >= invite.uses:
        return "used up"
    if invite.expires <= now:
        return f"expired {output.ago(invite.expires, now)}"
    return f"open for {output.until(invite.expires, now)}"
