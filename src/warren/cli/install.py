"""``warren install``: the agent as a systemd service, of the system or of an ordinary user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command("install")
@click.option("--now", is_flag=True, help="Enable and start the service as well.")
@click.option("--print", "print_only", is_flag=True, help="Print the unit and touch nothing.")
@click.option("--remove", is_flag=True, help="Stop the service and remove the unit; keys and documents stay.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def command(now: bool, print_only: bool, remove: bool, as_json: bool) -> None:
    """Write a systemd unit that keeps the agent running, with as few rights as it needs.

    Root's starts with the system; that of any other user with his first login, with the rootless engine.

    \b
    Example:
      warren up 'warren-ticket:…'      join first, Ctrl-C when it works
      warren install --now             and from then on at every boot
      warren install --remove
    """
    import json

    from warren.agent import unit
    from warren.agent.places import places
    from warren.errors import UsageError

    if remove and (now or print_only):
        raise UsageError("--remove goes with neither --now nor --print")
    if now and print_only:
        raise UsageError("--print touches nothing and starts nothing; it goes without --now")
    is_root = os.geteuid() == 0
    executable = Path(sys.argv[0]).absolute()
    if executable.name != "warren":
        executable = Path(sys.executable).with_name("warren")
    if print_only:
        text = unit.unit_text(executable) if is_root else unit.user_unit_text(executable, places().state)
        click.echo(json.dumps({"unit": text}) if as_json else text, nl=as_json)
        return
    if remove:
        done = unit.remove(for_user=not is_root)
    elif is_root:
        done = unit.install(executable, start=now)
    else:
        done = unit.install_for_user(executable, places().state, start=now)
    if as_json:
        click.echo(json.dumps({"done": done}))
        return
    for line in done:
        click.echo(line)
