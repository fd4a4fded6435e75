"""``warren relay``: run a TURN server, by which members reach each other when there is no other way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from warren.cli import output
from warren.cli.groups import Group
from warren.errors import UsageError

if TYPE_CHECKING:
    from warren.relay.config import RelayConfig
    from warren.relay.plane import Plane
    from warren.relay.serve import Ready

_STATE = "/var/lib/warren-relay"
_UDP_PORT: Final = 3478
"""What `warren network relay add` takes a relay to have."""


@click.group("relay", cls=Group)
def command() -> None:
    """Run a relay: a TURN server for members that cannot reach each other directly."""


@command.command("run")
@click.option("--config", "config_file", metavar="FILE", type=click.Path(path_type=Path), help="relay.toml.")
@click.option(
    "--state",
    metavar="DIR",
    default=_STATE,
    envvar="WARREN_RELAY_STATE",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where its own certificate is kept.",
)
@click.option(
    "--secret-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Holds the secret that names and passwords are made with.",
)
@click.option("--udp-port", metavar="PORT", type=click.IntRange(0, 65_535), help="TURN over UDP, and STUN; 0: none.")
@click.option("--tcp-port", metavar="PORT", type=click.IntRange(0, 65_535), help="TURN over TCP; 0: none.")
@click.option("--tls-port", metavar="PORT", type=click.IntRange(0, 65_535), help="TURN over TLS; 0: none.")
@click.option("--metrics", metavar="ADDRESS:PORT", help="Serve /metrics and /healthz there.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when it serves; log lines as JSON.")
def run(
    *,
    config_file: Path | None,
    state: Path,
    secret_file: Path | None,
    udp_port: int | None,
    tcp_port: int | None,
    tls_port: int | None,
    metrics: str | None,
    as_json: bool,
) -> None:
    """Relay until Ctrl-C or SIGTERM.

    What an option says counts more than the file. Members may use a relay of their network that knows the network's
    secret: `warren network relay --help`.

    \b
    Example:
      warren relay run --secret-file /etc/warren/relay.secret --tls-port 443
    """
    from warren import log
    from warren.relay import serve
    from warren.relay.config import with_ports, with_secret_file
    from warren.relay.config_file import load

    if as_json:
        os.environ[log.FORMAT_VARIABLE] = "json"
    log.configure()
    config = with_ports(load(config_file), state, udp=udp_port, tcp=tcp_port, tls=tls_port, metrics=metrics)
    if secret_file is not None:
        config = with_secret_file(config, secret_file)
    _check(config)
    serve.run(config, _print_json if as_json else lambda _, ready: click.echo(_page(config, ready)))


def _check(config: RelayConfig) -> None:
    if not config.secrets and not config.users:
        raise UsageError("nobody could use this relay: give it --secret-file, or secrets or [users] in its file")


def _page(config: RelayConfig, ready: Ready) -> str:
    ports = [("UDP", ready.udp_port), ("TCP", ready.tcp_port), ("TLS", ready.tls_port)]
    places = ", ".join(f"{name} {port}" for name, port in ports if port is not None)
    lines = [f"relaying at {', '.join(map(str, ready.addresses))}: {places}"]
    if ready.certificate_sha256 is not None:
        lines.append(f"certificate SHA-256: {ready.certificate_sha256.hex()}")
    if ready.metrics_port is not None:
        lines.append(f"metrics on port {ready.metrics_port}")
    if config.secrets:
        told = f"warren network relay add NETWORK NAME {' '.join(_options(config, ready))} --secret-file FILE"
        lines += ["", "Where you administer a network, tell it of this relay; FILE holds the same secret:", ""]
        lines += [f"  {told}", ""]
    return "\n".join(lines)


def _options(config: RelayConfig, ready: Ready) -> Iterator[str]:
    """Of ``warren network relay add``. Who has a certificate for a name says that name."""
    vouched = ready.tls_port is not None and config.certificate is not None
    yield from ("HOST",) if vouched else map(str, ready.addresses)
    if ready.udp_port is None:
        yield "--no-udp"
    elif ready.udp_port != _UDP_PORT:
        yield f"--udp-port {ready.udp_port}"
    if ready.tcp_port is not None:
        yield f"--tcp-port {ready.tcp_port}"
    if ready.tls_port is not None:
        yield f"--tls-port {ready.tls_port}"
        if ready.certificate_sha256 is not None and not vouched:
            yield f"--certificate-sha256 {ready.certificate_sha256.hex()}"


def _print_json(_: Plane, ready: Ready) -> None:
    output.emit(
        {
            "udp_port": ready.udp_port,
            "tcp_port": ready.tcp_port,
            "tls_port": ready.tls_port,
            "metrics_port": ready.metrics_port,
            "certificate_sha256": ready.certificate_sha256.hex() if ready.certificate_sha256 else None,
            "addresses": [str(address) for address in ready.addresses],
        }
    )
