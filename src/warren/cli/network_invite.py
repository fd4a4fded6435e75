"""``warren network invite``: a ticket, as text to paste and as a QR code; ``invites`` and ``uninvite``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import output
from warren.cli.completion_names import NETWORK
from warren.cli.network_values import TAG
from warren.errors import OperationFailed

if TYPE_CHECKING:
    from warren.proto.control.administration import Invite

_QUIET_ZONE: Final = 2
"""Light modules around a QR code. Four are the standard's (ISO/IEC 18004); scanners manage with two."""


@click.command("invite")
@click.argument("network", type=NETWORK)
@click.option("--uses", metavar="N", type=click.IntRange(1, 100_000), default=1, show_default=True)
@click.option("--ttl", "ttl_s", metavar="TIME", type=output.Span(), default="1h", show_default=True, help="Good for.")
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
    """  # noqa: D301 - \b keeps click from rewrapping a paragraph
    from warren.proto.control.administration import InviteRequest

    request = InviteRequest(uses=uses, ttl_s=ttl_s, tags=tags, ephemeral=ephemeral)
    made = access_.ask(access, lambda client: client.create_invite(network, request))
    if as_json:
        output.emit(made)
        return
    code = qr_lines(made.ticket) if _wants_code(qr) else []
    if qr or _fit(code):
        for line in code:
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
    if as_json:
        output.emit(found)
        return
    if not found:
        click.echo(f"There is no invite; `warren network invite {network}` makes one.")
        return
    rows = [
        [invite.id, f"{invite.used} of {invite.uses}", _state(invite), ", ".join(invite.tags), _kind(invite)]
        for invite in found
    ]
    for line in output.table(["ID", "USED", "STATE", "TAGS", "KIND"], rows, flexible=("TAGS",)):
        click.echo(line)


@click.command("uninvite")
@click.argument("network", type=NETWORK)
@click.argument("invite")
@access_.access_option
@access_.json_option
def uninvite(network: str, invite: str, access: str | None, as_json: bool) -> None:
    """Make an invite worth nothing. INVITE is its id, as `invites` shows it. Who joined with it stays a member."""
    revoked = access_.ask(access, lambda client: client.revoke_invite(network, invite))
    if as_json:
        output.emit(revoked)
    else:
        click.echo(f"Nobody can join with invite {revoked.id} any more; it was used {revoked.used} times.")


def qr_lines(text: str) -> list[str]:
    """A QR code for terminals: two modules in one character, dark on light whatever the terminal's colours."""
    import segno

    try:
        code = segno.make_qr(text, error="l")
    except segno.DataOverflowError:
        raise OperationFailed(f"a text of {len(text)} characters does not fit a QR code; say --no-qr") from None
    size = len(code.matrix)
    dark = {
        (x, y) for y, row in enumerate(code.matrix, _QUIET_ZONE) for x, module in enumerate(row, _QUIET_ZONE) if module
    }
    columns = range(size + 2 * _QUIET_ZONE)
    lines = []
    for y in range(0, size + 2 * _QUIET_ZONE, 2):
        halves = "".join(" ▄▀█"[2 * ((x, y) in dark) + ((x, y + 1) in dark)] for x in columns)
        lines.append(click.style(halves, fg="black", bg="bright_white"))
    return lines


def _wants_code(asked: bool | None) -> bool:
    return output.terminal_width() is not None if asked is None else asked


def _fit(lines: list[str]) -> bool:
    width = output.terminal_width()
    return bool(lines) and width is not None and output.visible_length(lines[0]) <= width


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
