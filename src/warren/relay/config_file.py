"""``relay.toml``: what an operator tells a relay.

Everything is optional but who may use it (``secrets``, ``secret_file`` or ``[users]``)::

    listen = ["203.0.113.7", "2001:db8::7"]  # default: all addresses
    udp_port = 3478  # TURN over UDP, and STUN; 0: none
    tcp_port = 3478
    tls_port = 443
    relay_addresses = ["10.0.0.5"]  # for relayed addresses; default: those that this host talks to others by
    external_addresses = ["203.0.113.7"]  # what they look like from outside, behind a 1:1 NAT
    ports = [49152, 65535]
    realm = "warren"
    secret_file = "/etc/warren/relay.secret"
    discovery_addresses = ["203.0.113.7", "203.0.113.8"]
    discovery_port = 3479
    metrics = "127.0.0.1:9641"
    drain_s = 30

    [users]  # besides names made with the secret
    alice = "a password"

    [peers]
    allow = ["192.168.7.0/24"]
    deny = ["198.18.0.0/15"]
    nat64_prefixes = ["64:ff9b::/96"]
    own_ports = [51820]

    [limits]
    allocations = 4096
    allocations_per_user = 16
    allocations_per_address = 256
    user_mbit_s = 50
    total_mbit_s = 900

    [tls]
    certificate = "/etc/ssl/relay.pem"
    key = "/etc/ssl/relay.key"

An error names the file, the line and the key, and nothing of the file is then used.
"""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from warren.errors import UsageError
from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress
from warren.proto.turn.filter import NAT64, NAT64_LENGTHS
from warren.relay.config import RelayConfig, place_of_untrusted, secret_in
from warren.toml.document import read_bytes
from warren.toml.settings import Unusable, read

FILE_BYTES_MAX: Final = 1 << 20
_BYTES_PER_MBIT: Final = 125_000

Port = Annotated[int, Meta(ge=1, le=65_535)]
HighPort = Annotated[int, Meta(ge=1024, le=65_535)]
PortOrNone = Annotated[int, Meta(ge=0, le=65_535)]
Secret = Annotated[str, Meta(min_length=16, max_length=512)]
Texts = Annotated[tuple[str, ...], Meta(max_length=256)]


class _Peers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow: Texts = ()
    deny: Texts = ()
    nat64_prefixes: Annotated[tuple[str, ...], Meta(max_length=16)] = (str(NAT64),)
    own_ports: Annotated[tuple[Port, ...], Meta(max_length=64)] = ()


class _Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allocations: Annotated[int, Meta(ge=1, le=60_000)] = 4096
    allocations_per_user: Annotated[int, Meta(ge=1, le=60_000)] = 16
    allocations_per_address: Annotated[int, Meta(ge=1, le=60_000)] = 256
    user_mbit_s: Annotated[float, Meta(ge=0)] = 0.0
    total_mbit_s: Annotated[float, Meta(ge=0)] = 0.0


class _Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    certificate: str
    key: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen: Annotated[tuple[str, ...], Meta(max_length=32)] = ()
    udp_port: PortOrNone = 3478
    tcp_port: PortOrNone = 0
    tls_port: PortOrNone = 0
    relay_addresses: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    external_addresses: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    ports: tuple[HighPort, HighPort] = (49_152, 65_535)
    realm: Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[!#-\[\]-~]+$")] = "warren"
    secrets: Annotated[tuple[Secret, ...], Meta(max_length=8)] = ()
    secret_file: str | None = None
    discovery_addresses: Annotated[tuple[str, ...], Meta(max_length=2)] = ()
    discovery_port: Port = 3479
    metrics: str | None = None
    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    users: dict[Annotated[str, Meta(min_length=1, max_length=255)], Annotated[str, Meta(min_length=1)]] = {}
    peers: _Peers = _Peers()
    limits: _Limits = _Limits()
    tls: _Tls | None = None


def load(path: Path | None) -> RelayConfig:
    """None: the defaults.

    Raises UsageError for what is wrong in the file, OperationFailed when it, or one that it names, cannot be read.
    """
    return RelayConfig() if path is None else parse(read_bytes(path, FILE_BYTES_MAX), str(path))


def parse(data: bytes, name: str) -> RelayConfig:
    """Raises UsageError, which names ``name``, the line and the key; OperationFailed for an unreadable secret_file."""
    return read(data, name, _File, _convert)


def _convert(file: _File) -> RelayConfig:
    first, last = file.ports
    if first > last:
        raise Unusable("ports", f"{first} is behind {last}; say [first, last]")
    if not file.udp_port and not file.tcp_port and not file.tls_port:
        raise Unusable("udp_port", "no port is left to serve at")
    secrets = tuple(secret.encode() for secret in file.secrets)
    if file.secret_file is not None:
        secrets += (_secret_in(Path(file.secret_file)),)
    metrics = None if file.metrics is None else _place("metrics", file.metrics)
    return RelayConfig(
        listen=tuple(_address("listen", text) for text in file.listen),
        udp_port=file.udp_port or None,
        tcp_port=file.tcp_port or None,
        tls_port=file.tls_port or None,
        relay_addresses=_one_each("relay_addresses", file.relay_addresses),
        external_addresses=_one_each("external_addresses", file.external_addresses),
        ports=(first, last),
        realm=file.realm,
        secrets=secrets,
        users=dict(file.users),
        allow_peers=tuple(_network("peers.allow", text) for text in file.peers.allow),
        deny_peers=tuple(_network("peers.deny", text) for text in file.peers.deny),
        nat64_prefixes=tuple(_nat64(text) for text in file.peers.nat64_prefixes),
        own_ports=file.peers.own_ports,
        allocations=file.limits.allocations,
        allocations_per_user=file.limits.allocations_per_user,
        allocations_per_address=file.limits.allocations_per_address,
        user_bytes_per_s=file.limits.user_mbit_s * _BYTES_PER_MBIT,
        total_bytes_per_s=file.limits.total_mbit_s * _BYTES_PER_MBIT,
        discovery_addresses=_discovery(file),
        discovery_port=file.discovery_port,
        metrics=metrics,
        certificate=None if file.tls is None else Path(file.tls.certificate),
        key=None if file.tls is None else Path(file.tls.key),
        drain_s=file.drain_s,
    )


def _secret_in(path: Path) -> bytes:
    try:
        return secret_in(path)
    except UsageError as error:
        raise Unusable("secret_file", error) from None


def _address(key: str, text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise Unusable(key, f"{text!r} is no address") from None


def _one_each(key: str, texts: tuple[str, ...]) -> tuple[IPAddress, ...]:
    found = tuple(_address(key, text) for text in texts)
    if len({one.version for one in found}) < len(found):
        raise Unusable(key, "one IPv4 and one IPv6 address at most")
    if any(one.is_unspecified or one.is_multicast for one in found):
        raise Unusable(key, "no peer can reach such an address")
    return found


def _discovery(file: _File) -> tuple[IPAddress, ...]:
    key = "discovery_addresses"
    found = tuple(_address(key, text) for text in file.discovery_addresses)
    if found and (len(set(found)) != 2 or len({one.version for one in found}) != 1):
        raise Unusable(key, "discovery takes two addresses of one family")
    if found and (not file.udp_port or file.udp_port == file.discovery_port):
        raise Unusable("discovery_port", "discovery takes two UDP ports, this and udp_port")
    return found


def _network(key: str, text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Unusable(key, f"{error}; say 192.168.7.0/24") from None


def _nat64(text: str) -> IPv6Network:
    found = _network("peers.nat64_prefixes", text)
    if not isinstance(found, IPv6Network) or found.prefixlen not in NAT64_LENGTHS:
        lengths = ", ".join(map(str, NAT64_LENGTHS))
        raise Unusable("peers.nat64_prefixes", f"{text!r} is no prefix of RFC 6052: IPv6, with {lengths} bits")
    return found


def _place(key: str, text: str) -> TransportAddress:
    found = place_of_untrusted(text)
    if found is None:
        raise Unusable(key, f"{text!r} is no address and port; say 127.0.0.1:9641 or [::1]:9641")
    return found
