"""What a relay is told, as a value; and what a command line says besides a file."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed, UsageError
from warren.model.tunnel import IPAddress, IPNetwork, TransportAddress
from warren.proto.turn.filter import NAT64

_SECRET_FILE_BYTES_MAX: Final = 4096

_log = logging.getLogger("warren.relay")


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """One relay. Rates in bytes a second, 0: unlimited."""

    listen: tuple[IPAddress, ...] = ()
    """Empty: all addresses."""
    udp_port: int | None = 3478
    tcp_port: int | None = None
    tls_port: int | None = None
    """0 has the kernel choose; None: not served."""
    relay_addresses: tuple[IPAddress, ...] = ()
    """At most one of each family; a family that is not named has the address this host uses towards others."""
    external_addresses: tuple[IPAddress, ...] = ()
    ports: tuple[int, int] = (49_152, 65_535)
    """First and last."""
    realm: str = "warren"
    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    users: dict[str, str] = field(default_factory=dict, repr=False)
    allow_peers: tuple[IPNetwork, ...] = ()
    deny_peers: tuple[IPNetwork, ...] = ()
    nat64_prefixes: tuple[IPv6Network, ...] = (NAT64,)
    own_ports: tuple[int, ...] = ()
    """UDP ports of this very host that may be peers: a WireGuard tunnel's, for those who reach it by the relay only."""
    allocations: int = 4096
    allocations_per_user: int = 16
    allocations_per_address: int = 256
    user_bytes_per_s: float = 0.0
    total_bytes_per_s: float = 0.0
    discovery_addresses: tuple[IPAddress, ...] = ()
    """Two addresses of this host, of one family, at which it answers for behaviour discovery (RFC 5780); or none."""
    discovery_port: int = 3479
    """The other port for that, besides ``udp_port``."""
    metrics: TransportAddress | None = None
    certificate: Path | None = None
    key: Path | None = None
    state: Path | None = None
    """Where the self-made certificate is kept; needed with ``tls_port`` unless one is given."""
    drain_s: float = 0.0


def with_ports(
    config: RelayConfig,
    state: Path,
    *,
    udp: int | None = None,
    tcp: int | None = None,
    tls: int | None = None,
    metrics: str | None = None,
) -> RelayConfig:
    """What a command line says besides: None leaves a port as it is, 0 serves none. Raises UsageError."""
    place = config.metrics
    if metrics is not None:
        place = place_of_untrusted(metrics)
        if place is None:
            raise UsageError(f"--metrics: {metrics!r} is no address and port; say 127.0.0.1:9641 or [::1]:9641")
    changed = replace(
        config,
        udp_port=config.udp_port if udp is None else udp or None,
        tcp_port=config.tcp_port if tcp is None else tcp or None,
        tls_port=config.tls_port if tls is None else tls or None,
        metrics=place,
        state=state,
    )
    if changed.udp_port is None and changed.tcp_port is None and changed.tls_port is None:
        raise UsageError("no port is left to serve at; give one with --udp-port, --tcp-port or --tls-port")
    if changed.tcp_port is not None and changed.tcp_port == changed.tls_port:
        raise UsageError(
            f"TCP port {changed.tcp_port} cannot be both tcp_port and tls_port: choose another one for TLS"
        )
    return changed


def with_secret_file(config: RelayConfig, path: Path) -> RelayConfig:
    """With one more secret; raises as :func:`secret_in`."""
    return replace(config, secrets=(*config.secrets, secret_in(path)))


def secret_in(path: Path) -> bytes:
    """Raises OperationFailed or UsageError, which name the file."""
    try:
        with path.open("rb") as file:
            secret = file.read(_SECRET_FILE_BYTES_MAX).strip()
            if os.fstat(file.fileno()).st_mode & 0o004:
                _log.warning("other users may read the secret %s; run `chmod 600 %s`", path, path)
    except OSError as error:
        raise OperationFailed(
            f"the secret {path} cannot be read: {error.strerror}; name a file this user may read"
        ) from None
    if not 16 <= len(secret) <= 512:
        raise UsageError(f"{path} holds {len(secret)} bytes; a secret has 16 to 512: `openssl rand -hex 32` makes one")
    return secret


def place_of_untrusted(text: str) -> TransportAddress | None:
    """``ADDRESS:PORT`` or ``[ADDRESS]:PORT``; None when it is neither."""
    match = re.fullmatch(r"\[([^\]]+)\]:(\d{1,5})|([0-9.]+):(\d{1,5})", text)
    if match is None:
        return None
    host, port = match[1] or match[3], int(match[2] or match[4])
    try:
        ip = ip_address(host)
    except ValueError:
        return None
    return TransportAddress(ip, port) if port <= 65_535 else None
