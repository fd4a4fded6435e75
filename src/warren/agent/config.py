"""``agent.toml``: what an operator states about this node, and what this node shall not do.

Everything is optional::

    engine = "auto"  # userspace (needs root), rootless, or auto: what works here, userspace first
    dns = true  # answer names and make the host ask us for them
    listen_port = 51820  # of every network that states none itself; default: random, chosen once
    ignored_interfaces = ["docker*"]  # their addresses are offered to nobody

    [public]  # public config: what cannot be discovered from here
    addresses = ["203.0.113.7", "[2001:db8::7]:51820"]
    gateway = "192.0.2.1"
    segment = "192.0.2.0/24"

    [keys]
    rotate_days = 7  # a fresh WireGuard key this often; 0: never
    announce_hours = 24  # so long before it takes over

    [reach]  # how others are reached
    port_mapping = true  # ask gateways for a port (UPnP, NAT-PMP, PCP)
    hard_nat = true  # try ports by the hundred where a NAT leaves no other way
    relays = true  # use the network's relays

    [proxy]  # an HTTP proxy; without it HTTPS_PROXY and NO_PROXY count
    url = "http://user:password@proxy.example:3128"

    [relay]  # relay for other members, where the network lets this node
    enabled = false
    udp_port = 3478
    tls_port = 443  # default: no TLS

    [network.home]  # by the network's name
    listen_port = 51821
    dns = false

:mod:`warren.agent.streams.config` has ``[[forward]]``, ``[socks]``, ``[gateway]``, ``[services]`` and
``[connectors]``.

An error names the file, the line and the key, and nothing of the file is then used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Final, Literal, cast, get_args

import msgspec
from msgspec import Meta

from warren.agent.stated import PublicTable, Stated, stated_in
from warren.agent.streams.config import (
    FORWARDS_MAX,
    ForwardTable,
    GatewayTable,
    SocksTable,
    StreamConfig,
    stream_config,
)
from warren.agent.streams.permits import PermitTable
from warren.errors import OperationFailed, UsageError
from warren.model.parts import NAME_PATTERN
from warren.reach.proxy import proxy_from
from warren.toml.document import read_bytes
from warren.toml.settings import Unusable, read

FILE_NAME: Final = "agent.toml"
SYSTEM_FILE: Final = Path("/etc/warren") / FILE_NAME
FILE_BYTES_MAX: Final = 1 << 20

Port = Annotated[int, Meta(ge=1, le=65_535)]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Pattern = Annotated[str, Meta(min_length=1, max_length=64)]
Wanted = Literal["auto", "userspace", "rootless"]
"""Which engine is to move packets."""

_USUALLY_IGNORED: Final = ("docker*", "br-*", "veth*", "virbr*", "cni*", "podman*", "lxc*", "lxdbr*", "vnet*")
"""Interfaces of containers and virtual machines: their addresses mean nothing to another host."""


class _Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rotate_days: Annotated[float, Meta(ge=0, le=3650)] = 7
    announce_hours: Annotated[float, Meta(ge=0, le=24 * 365)] = 24


class _Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    listen_port: Port | None = None
    dns: bool | None = None


class _Reach(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    port_mapping: bool = True
    hard_nat: bool = True
    relays: bool = True


class _Proxy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(max_length=1024)]


class _Relay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool = False
    udp_port: Port = 3478
    tls_port: Port | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    engine: str = "auto"
    dns: bool = True
    listen_port: Port | None = None
    ignored_interfaces: Annotated[tuple[Pattern, ...], Meta(max_length=256)] = _USUALLY_IGNORED
    public: PublicTable = PublicTable()
    keys: _Keys = _Keys()
    reach: _Reach = _Reach()
    proxy: _Proxy | None = None
    relay: _Relay = _Relay()
    forward: Annotated[tuple[ForwardTable, ...], Meta(max_length=FORWARDS_MAX)] = ()
    socks: SocksTable | None = None
    gateway: GatewayTable = GatewayTable()
    services: PermitTable = PermitTable()
    connectors: PermitTable = PermitTable()
    network: dict[Name, _Network] = {}


@dataclass(frozen=True, slots=True)
class OwnRelay:
    """The relay that this node is to be for others."""

    udp_port: int
    tls_port: int | None


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What :func:`load` gives. Durations in seconds."""

    engine: Wanted = "auto"
    dns: bool = True
    listen_port: int | None = None
    ignored_interfaces: tuple[str, ...] = _USUALLY_IGNORED
    stated: Stated = Stated()  # noqa: RUF009 - frozen
    rotate_s: float = 7 * 86_400.0
    """How long a WireGuard key is used; 0: for ever."""
    announce_s: float = 86_400.0
    """How long the next key is known to all before it is used."""
    port_mapping: bool = True
    hard_nat: bool = True
    relays: bool = True
    proxy: str | None = field(default=None, repr=False)
    """The URL of an HTTP proxy, maybe with a password in it; None: as the environment says."""
    relay: OwnRelay | None = None
    """None: this node relays for nobody."""
    streams: StreamConfig = StreamConfig()  # noqa: RUF009 - frozen
    dns_of: Mapping[str, bool] = field(default_factory=dict)
    listen_port_of: Mapping[str, int] = field(default_factory=dict)

    def ignores(self, interface: str) -> bool:
        return any(fnmatchcase(interface, pattern) for pattern in self.ignored_interfaces)

    def wants_dns(self, network: str) -> bool:
        return self.dns_of.get(network, self.dns)

    def port_for(self, network: str) -> int | None:
        """The port that is stated for ``network``; None: choose one."""
        return self.listen_port_of.get(network, self.listen_port)


def locate(state: Path) -> Path | None:
    """The file that counts: the one in the state directory, else the system's; None: there is none.

    Raises OperationFailed for a state directory that this user may not look into.
    """
    try:
        return next((path for path in (state / FILE_NAME, SYSTEM_FILE) if path.exists()), None)
    except OSError as error:
        reason = f"{error.filename} cannot be looked at: {error.strerror}"
        raise OperationFailed(f"{reason}; run as root or name another --state") from None


def load(path: Path | None) -> AgentConfig:
    """Raises UsageError for what is wrong in the file, OperationFailed when it cannot be read."""
    return AgentConfig() if path is None else parse(read_bytes(path, FILE_BYTES_MAX), str(path))


def parse(data: bytes, name: str) -> AgentConfig:
    """Raises UsageError, which names ``name``, the line and the key."""
    return read(data, name, _File, _convert)


def _convert(file: _File) -> AgentConfig:
    stated = stated_in(file.public)
    if file.keys.rotate_days and file.keys.announce_hours >= 24 * file.keys.rotate_days:
        raise Unusable("keys.announce_hours", "a key must be announced for less time than it is used")
    return AgentConfig(
        engine=_engine(file.engine),
        dns=file.dns,
        listen_port=file.listen_port,
        ignored_interfaces=file.ignored_interfaces,
        stated=stated,
        rotate_s=file.keys.rotate_days * 86_400,
        announce_s=file.keys.announce_hours * 3600,
        port_mapping=file.reach.port_mapping,
        hard_nat=file.reach.hard_nat,
        relays=file.reach.relays,
        proxy=None if file.proxy is None else _proxy(file.proxy.url),
        relay=OwnRelay(file.relay.udp_port, file.relay.tls_port) if file.relay.enabled else None,
        streams=stream_config(
            file.forward,
            file.socks,
            file.gateway,
            file.services,
            file.connectors,
            stated=[address.ip for address in stated.addresses],
        ),
        dns_of={name: one.dns for name, one in file.network.items() if one.dns is not None},
        listen_port_of={name: one.listen_port for name, one in file.network.items() if one.listen_port is not None},
    )


def _engine(text: str) -> Wanted:
    for one in get_args(Wanted):
        if text == one:
            return cast("Wanted", one)
    raise Unusable("engine", f"{text!r} is none of {', '.join(get_args(Wanted))}")


def _proxy(url: str) -> str:
    try:
        proxy_from(url)
    except UsageError as error:
        raise Unusable("proxy.url", error) from None
    return url
