"""``warren exec``: run a program inside the overlay."""

from __future__ import annotations

import click

from warren.cli import access_agent


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", metavar="[--] COMMAND [ARGUMENT]…", nargs=-1, required=True, type=click.UNPROCESSED)
@access_agent.run_option
def command(command: tuple[str, ...], run: str | None) -> None:
    """Run COMMAND in the overlay: it reaches members, services and what is behind them, and resolves their names.

    That needs no rights. With the rootless engine, where this machine's other programs do not reach the overlay, the
    command sees the overlay alone, and not this machine's own network. With the userspace engine all programs reach
    it, and COMMAND is run as it is.

    The exit status is that of COMMAND; 127 when there is no such program, 126 when it cannot be executed.

    \b
    Example:
      warren exec curl http://web.home.internal/
      warren exec -- ssh -6 alice.home.internal
    """
    from warren.agent.entering import enter_overlay, execute
    from warren.agent.places import places
    from warren.errors import Unreachable

    where = places(run=run)
    try:
        enter_overlay(where)
    except Unreachable:
        status = access_agent.status(run)  # says it when there is no agent at all
        if status.engine == "rootless":
            raise
    execute(command)
