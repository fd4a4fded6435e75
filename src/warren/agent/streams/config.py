"""The parts of ``agent.toml`` about streams, checked.

All of it is optional::

[[forward]]  # as `warren forward`, as long as it stands here
listen = "8080"  # [ADDRESS:]PORT, *:PORT, overlay:PORT or unix:/PATH
target = "db:5432"  # NAME:PORT, ADDRESS:PORT; /udp behind it for UDP

[socks]
listen = "1080"  # a SOCKS5 server for programs of this host

[gateway]  # take streams from outside for the network, where it names this node
enabled = false
domain = "gw.example.org"  # connector `shop` without a domain is shop.gw.example.org
acme_directory = "https://acme.example/dir"  # default: Let's Encrypt
acme_email = "admin@example.org"
acme_ca = "/etc/ssl/acme-root.pem"  # who signed the directory's certificate, if no public authority

[services]  # what this node may serve, whatever the network says
enabled = true
allow = ["127.0.0.1:*", "10.0.0.0/8:80", "web.lan:443", "unix:/run/*"]  # default: all but unix:

[connectors]  # where this node may listen for the network's connectors
enabled = true
allow = ["127.0.0.1:8000-8999", "*:443"]  # default: loopback from port 1024 on; with [gateway] every address and port
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.agent.streams.forward_text import Forward, Socks, parse_forward, parse_socks
from warren.agent.streams.permits import PermitTable, Serving, Taking, serving_of, taking_of
from warren.model.stream_places import check_domain
from warren.model.tunnel import IPAddress
from warren.toml.settings import Unusable

FORWARDS_MAX: Final = 256
"""In the file, and as many by command: each is a listener, and a line of status."""
DOMAIN_CHARACTERS_MAX: Final = 189
"""Of a gateway's domain: with a connector's name and a dot before it, 253 are the most that DNS takes."""

_Short = Annotated[str, Meta(min_length=1, max_length=512)]


class ForwardTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: _Short
    target: _Short


class SocksTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: _Short


class GatewayTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool = False
    domain: _Short | None = None
    acme_directory: Annotated[str, Meta(max_length=256)] | None = None
    acme_email: Annotated[str, Meta(max_length=254)] | None = None
    acme_ca: _Short | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """That this node takes streams from outside."""

    domain: str | None = None
    """In which connectors without a domain of their own have a name."""
    acme_directory: str | None = None
    acme_email: str | None = None
    acme_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """All of it."""

    forwards: tuple[Forward, ...] = ()
    socks: Socks | None = None
    gateway: Gateway | None = None
    """None: this node takes nothing from outside."""
    serving: Serving = Serving()  # noqa: RUF009 - frozen
    taking: Taking = Taking()  # noqa: RUF009 - frozen
    known_as: IPv4Address | None = None
    """By which others know this node, though it may not have it itself."""


def stream_config(
    forwards: tuple[ForwardTable, ...],
    socks: SocksTable | None,
    gateway: GatewayTable,
    services: PermitTable,
    connectors: PermitTable,
    stated: Sequence[IPAddress] = (),
) -> StreamConfig:
    """``stated``: where others reach this node, as the operator says. Raises Unusable."""
    found: dict[str, Forward] = {}
    for number, table in enumerate(forwards):
        try:
            forward = parse_forward(table.listen, table.target)
        except ValueError as error:
            raise _at(number, error) from None
        other = next((one for one in found.values() if _meet(one, forward)), None)
        if other is not None:
            both = other.place if other.place == forward.place else f"{other.place} and {forward.place}"
            raise _at(number, f"two forwards cannot listen at {both}")
        found[forward.place] = forward
    server = None if socks is None else _socks(socks.listen)
    if server is not None and server.place in found:
        raise Unusable("socks.listen", f"a forward listens at {server.place} already")
    taking = _gateway(gateway)  # mistakes are told also while it is switched off
    return StreamConfig(
        forwards=tuple(found.values()),
        socks=server,
        gateway=taking if gateway.enabled else None,
        serving=serving_of(services),
        taking=taking_of(connectors),
        known_as=next((ip for ip in stated if isinstance(ip, IPv4Address)), None),
    )


def _meet(one: Forward, other: Forward) -> bool:
    """Whether one place takes what comes to the other, so that both cannot be had."""
    if one.listen.path or other.listen.path or one.overlay != other.overlay:
        return one.place == other.place
    if (one.protocol, one.listen.port) != (other.protocol, other.listen.port):
        return False
    addresses = {one.listen.address, other.listen.address}
    return len(addresses) == 1 or None in addresses


def _at(number: int, reason: object) -> Unusable:
    error = Unusable("forward", reason)
    error.path = ("forward", number)
    return error


def _socks(text: str) -> Socks:
    try:
        return parse_socks(text)
    except ValueError as error:
        raise Unusable("socks.listen", error) from None


def _gateway(table: GatewayTable) -> Gateway:
    if table.domain is not None:
        try:
            check_domain(table.domain)
        except ValueError as error:
            raise Unusable("gateway.domain", error) from None
        if len(table.domain) > DOMAIN_CHARACTERS_MAX:
            raise Unusable("gateway.domain", f"it has more than {DOMAIN_CHARACTERS_MAX} characters")
    if table.acme_directory is not None and not re.fullmatch("https://[!-~]+", table.acme_directory):
        raise Unusable("gateway.acme_directory", f"{table.acme_directory!r} is no address: say https://HOST/PATH")
    if table.acme_email is not None and not re.fullmatch("[!-~]+@[!-~]+", table.acme_email):
        raise Unusable("gateway.acme_email", f"{table.acme_email!r} is no mail address: say admin@example.org")
    path = None if table.acme_ca is None else Path(table.acme_ca)
    if path is not None and not path.is_absolute():
        raise Unusable("gateway.acme_ca", f"{table.acme_ca!r} is no absolute path")
    return Gateway(table.domain, table.acme_directory, table.acme_email, path)
