"""``warren tunnel CONFIG``: a wg-quick config, run in the foreground."""

from __future__ import annotations

import os

import click


@click.command("tunnel")
@click.argument("config", metavar="CONFIG", type=click.Path())
@click.option("--name", metavar="IF", help="Name of the interface; by default that of the file, without .conf.")
@click.option("--check", is_flag=True, help="Read CONFIG, print what would be done, and touch nothing.")
@click.option("--json", "as_json", is_flag=True, help="Write log lines (or the plan of --check) as JSON.")
def command(config: str, name: str | None, check: bool, as_json: bool) -> None:
    """Run a WireGuard tunnel from a wg-quick config, in the foreground.

    CONFIG is the path of a standard wg-quick file, or NAME for /etc/wireguard/NAME.conf. Warren makes the interface,
    sets its addresses, routes and DNS, and logs to stderr until it is stopped. The stock `wg` tool shows the tunnel and
    changes it.

    \b
    Ctrl-C or SIGTERM  stops the tunnel and removes what was made
    SIGHUP             reads CONFIG again; peers that did not change keep their sessions
    kill -9            leaves the tunnel running; the same command adopts it again

    \b
    Example:
      warren tunnel ./home.conf
      wg show home
    """
    from warren import log
    from warren.tunnel.files import locate

    if as_json:
        os.environ[log.FORMAT_VARIABLE] = "json"  # for the data plane too
    log.configure()
    file = locate(config, name)
    from warren.tunnel import app

    if check:
        click.echo(app.describe(file, as_json=as_json))
    else:
        app.run(file)
