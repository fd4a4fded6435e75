"""``warren network relay``: which TURN servers the members of a network may use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from warren.cli import access as access_
from warren.cli import output
from warren.cli.completion_names import NETWORK
from warren.cli.groups import Group
from warren.cli.network_values import NAME
from warren.errors import UsageError

if TYPE_CHECKING:
    from warren.proto.control.administration import RelayEntry

_PORT: Final = click.IntRange(1, 65_535)
_SECRET_CHARACTERS: Final = range(16, 257)


@click.group("relay", cls=Group)
def command() -> None:
    """Which relays the members may use when there is no direct way: `warren relay run`, or coturn."""


@command.command("add")
@click.argument("network", type=NETWORK)
@click.argument("name", type=NAME)
@click.argument("hosts", metavar="HOST…", nargs=-1, required=True)
@click.option("--udp-port", metavar="PORT", type=_PORT, default=3478, show_default=True, help="TURN over UDP.")
@click.option("--no-udp", is_flag=True, help="It has no UDP port.")
@click.option("--tcp-port", metavar="PORT", type=_PORT, help="TURN over TCP.")
@click.option("--tls-port", metavar="PORT", type=_PORT, help="TURN over TLS, usually 443.")
@click.option(
    "--certificate-sha256",
    metavar="HEX",
    help="Of its TLS certificate (DER), as the relay prints it; without it, certificate authorities are asked.",
)
@click.option(
    "--secret-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The secret that it shares with the coordinator, on one line; - reads it from stdin.",
)
@access_.access_option
@access_.json_option
def add(
    *,
    network: str,
    name: str,
    hosts: tuple[str, ...],
    udp_port: int,
    no_udp: bool,
    tcp_port: int | None,
    tls_port: int | None,
    certificate_sha256: str | None,
    secret_file: Path,
    access: str | None,
    as_json: bool,
) -> None:
    """Let the members of NETWORK use the relay at HOST (addresses or DNS names, all of one server) and call it NAME.

    \b
    Example:
      warren network relay add home frankfurt relay.example.com --tls-port 443 --secret-file relay.secret
    """
    from warren.proto.control.administration import RelayRequest

    request = RelayRequest(
        name=name,
        hosts=tuple(_host(host) for host in hosts),
        udp_port=None if no_udp else udp_port,
        tcp_port=tcp_port,
        tls_port=tls_port,
        certificate_sha256=None if certificate_sha256 is None else _digest(certificate_sha256),
        secret=_secret(secret_file),
    )
    entry = access_.ask(access, lambda client: client.add_relay(network, request))
    output.answer(
        entry, f"The members of {network} may use relay {entry.name} at {', '.join(entry.hosts)}.", as_json=as_json
    )


@command.command("list")
@click.argument("network", type=NETWORK)
@access_.access_option
@access_.json_option
def list_(network: str, access: str | None, as_json: bool) -> None:
    """List the relays that the members of NETWORK may use."""
    found = access_.ask(access, lambda client: client.relays(network))
    rows = [[one.name, ", ".join(one.hosts), _ports(one), "coordinator" if one.own else "operator"] for one in found]
    titles = ["NAME", "HOSTS", "PORTS", "FROM"]
    nothing = "There is no relay; `warren coordinator run` brings one, and `warren relay run` is one."
    output.listing(found, titles, rows, flexible=("HOSTS",), nothing=nothing, as_json=as_json)


@command.command("remove")
@click.argument("network", type=NETWORK)
@click.argument("name", type=NAME)
@access_.access_option
@access_.json_option
def remove(network: str, name: str, access: str | None, as_json: bool) -> None:
    """Have the members of NETWORK use the relay NAME no longer."""
    entry = access_.ask(access, lambda client: client.remove_relay(network, name))
    output.answer(entry, f"The members of {network} use relay {entry.name} no longer.", as_json=as_json)


def _host(text: str) -> str:
    import re

    from warren.proto.control.administration import HOST_PATTERN

    if not re.match(HOST_PATTERN, text) or len(text) > 253:
        raise UsageError(f"{text!r} is no host: write an IP address or a DNS name, without a port")
    return text


def _digest(text: str) -> str:
    digits = text.replace(":", "").lower()
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        raise UsageError("--certificate-sha256 is 64 hexadecimal digits, as the relay prints them")
    return digits


def _secret(file: Path) -> str:
    if str(file) == "-":
        text = sys.stdin.readline().strip()
    else:
        try:
            text = file.read_text().strip()
        except OSError as error:
            what = f"--secret-file {file} cannot be read: {error.strerror}"
            raise UsageError(f"{what}; name the file that the relay has the secret from") from None
        except UnicodeDecodeError:
            raise UsageError(f"--secret-file {file} holds no text, but the relay's secret is one line of it") from None
    if len(text) not in _SECRET_CHARACTERS or not text.isprintable() or "\n" in text:
        raise UsageError("the relay's secret is one line of 16 to 256 characters; `openssl rand -hex 32` makes one")
    return text


def _ports(entry: RelayEntry) -> str:
    ports = {"UDP": entry.udp_port, "TCP": entry.tcp_port, "TLS": entry.tls_port}
    return ", ".join(f"{name} {port}" for name, port in ports.items() if port is not None)
