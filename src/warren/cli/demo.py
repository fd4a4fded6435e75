"""``warren demo``: the program at work on this machine, in a minute and without leaving a trace."""

from __future__ import annotations

import click

_TITLES = {
    "network": "Warren: three homes, an office and a data centre; real programs, real packets",
    "tunnel": "Warren: two hosts, one encrypted tunnel, real packets",
}


@click.command("demo")
@click.argument("what", type=click.Choice(list(_TITLES)), default="network", metavar="[network|tunnel]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per step instead of the page.")
def command(what: str, as_json: bool) -> None:
    """Show a network, or a single tunnel, at work between hosts that exist only inside this machine.

    The hosts are network namespaces: nothing outside them is touched, and they are gone at the end, on Ctrl-C too. Runs
    as root, or as any user where user namespaces are allowed.
    """
    import importlib
    import json
    import signal
    import sys
    import time

    from warren.lab import privilege

    privilege.ensure()
    from warren.proto import datapath

    demo = importlib.import_module(f"warren.lab.demo.{what}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    if not as_json:
        click.secho(_TITLES[what], bold=True)
        click.echo(f"data path: {'compiled' if datapath.COMPILED else 'pure Python (no compiler was there)'}\n")
    for number, step in enumerate(demo.run(), 1):
        if as_json:
            click.echo(json.dumps({"step": number, "title": step.title, **step.figures}))
            continue
        click.secho(f"{number}  {step.title}", bold=True)
        for line in step.lines:
            click.echo(f"     {line}".rstrip())
        click.echo()
    if not as_json:
        click.echo(f"Done in {time.monotonic() - started:.0f} s; the hosts and everything in them are gone.")
