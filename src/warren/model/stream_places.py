"""Where a stream goes and where streams come in, as people write it: targets, places to listen, domains."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

from warren.model.ip import join_host_port
from warren.model.parts import SUFFIX_PATTERN
from warren.model.tunnel import IPAddress, IPNetwork

HOST_CHARACTERS_MAX: Final = 253
LOOPBACK: Final = IPv4Address("127.0.0.1")
PRIVILEGED_PORTS: Final = 1024
"""Below it the programs of a host take whoever listens on its loopback for root."""
_CLOUD: Final = "where a cloud answers each machine for itself"
METADATA: Final[tuple[tuple[IPNetwork, str], ...]] = (
    (IPv4Network("169.254.0.0/16"), f"link-local, {_CLOUD}"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fd00:ec2::/32"), _CLOUD),  # Amazon's
    (IPv6Network("fd20:ce::254/128"), _CLOUD),  # Google's
    (IPv4Network("168.63.129.16/32"), _CLOUD),  # Azure's
    (IPv4Network("100.100.100.200/32"), _CLOUD),  # Alibaba's
    (IPv4Network("192.0.0.192/32"), _CLOUD),  # Oracle's
)
"""Where no target is unless the operator of the serving node says so: whoever asks there is taken for the machine, and
may be given its credentials. What each is goes on after "ADDRESS is".
"""

_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?")
_NUMERIC: Final = re.compile(r"(^|\.)(0x[0-9a-f]*|[0-9]+)\.?$", re.IGNORECASE)
"""The last label is a number, so whoever reads it takes it for an address (WHATWG URL, "ends in a number")."""
_PATH: Final = re.compile(r"unix:(/[!-~]{1,106})")  # unix(7): sun_path has 108 bytes with the NUL
_TARGET_FORM: Final = "say HOST:PORT, [IPV6]:PORT or unix:/PATH"
_LISTEN_FORM: Final = "say PORT, ADDRESS:PORT, *:PORT or unix:/PATH"


class Target(NamedTuple):
    """Where a stream goes: ``host`` and ``port``, or the Unix socket ``path`` (then ``host`` is empty, ``port`` 0)."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else join_host_port(self.host, self.port)


class Place(NamedTuple):
    """Where streams come in. ``address`` None: everywhere, both IP versions."""

    address: IPAddress | None
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join_host_port("*" if self.address is None else str(self.address), self.port)


def parse_target(text: str) -> Target:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``; an address is then in its usual spelling. Raises ValueError,
    saying what it may be.
    """
    path = _path(text)
    if path:
        return Target("", 0, path)
    check_no_url(text)
    host, separator, port = text.rpartition(":")
    if not host and re.fullmatch("[0-9]+", port):
        raise ValueError(f"{text!r}: say 127.0.0.1:{port} for the serving member itself")
    if not separator or text.startswith("unix:"):
        raise ValueError(f"{text!r} is no target: {_TARGET_FORM}")
    if host.startswith("[") or ":" in host:
        host = str(_bracketed(host, text))
    elif not _HOST.fullmatch(host) or len(host) > HOST_CHARACTERS_MAX:
        raise ValueError(f"{text!r} is no target: {_TARGET_FORM}")
    elif _NUMERIC.search(host):  # resolvers read 127.1, 0x7f.1 and 2130706433 as addresses too
        host = str(_address4(host, text))
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - refused
        raise ValueError(f"{text!r} is nobody's address; for the serving member itself say 127.0.0.1 or [::1]")
    return Target(host, _port(port, text))


def check_no_url(text: str) -> None:
    """Raises ValueError for ``http://…`` and the like, which is what people have at hand for a web server."""
    scheme, found, _ = text.partition("://")
    if found:
        raise ValueError(f"{text!r}: say HOST:PORT, without {scheme}:// and what follows the port")


def parse_listen(text: str) -> Place:
    """``PORT`` (on IPv4's loopback), ``ADDRESS:PORT``, ``*:PORT`` or ``unix:/PATH``. Raises ValueError."""
    path = _path(text)
    if path:
        return Place(None, 0, path)
    host, separator, port = text.rpartition(":")
    if not separator or host == "localhost":
        return Place(LOOPBACK, _port(port, text))
    if not host:
        raise ValueError(f"{text!r}: say {port} for this host alone, or *:{port} for everybody")
    if host == "*":
        return Place(None, _port(port, text))
    address: IPAddress
    if host.startswith("[") or ":" in host:
        address = _bracketed(host, text)
    elif _NUMERIC.search(host):
        address = _address4(host, text)
    else:
        raise ValueError(f"{text!r} is no place to listen: {_LISTEN_FORM}")
    if address.is_multicast or (address.version == 6 and address.is_link_local):
        raise ValueError(f"{text!r}: nothing can listen at {address}; choose another address, or * for all")
    return Place(address, _port(port, text))


def _path(text: str) -> str:
    """That of ``unix:/PATH``; empty: it is something else. Raises ValueError for one that no socket can have."""
    found = _PATH.fullmatch(text)
    if found is not None:
        return found[1]
    if text.startswith("unix:/"):
        raise ValueError(f"{text!r} is no Unix socket: a path has 107 characters at most, of ASCII, and no spaces")
    return ""


def unprivileged(port: int) -> int:
    """What to listen at instead of a port below :data:`PRIVILEGED_PORTS`: 8080 for 80, 8443 for 443."""
    return port + 8000


def check_domain(text: str) -> None:
    """Raises ValueError for what is no DNS name, or looks like an address: TLS names no addresses (RFC 6066 §3)."""
    if len(text) > HOST_CHARACTERS_MAX or not re.fullmatch(SUFFIX_PATTERN, text):
        raise ValueError(f"{text!r} is no domain: lower-case letters, digits and hyphens, as in shop.example.com")
    if _NUMERIC.search(text):
        raise ValueError(f"{text} is no domain but an address; clients must ask by a name")


def _bracketed(host: str, text: str) -> IPv6Address:
    if not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: put the IPv6 address in brackets, as in [2001:db8::7]:80")
    try:
        address = IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError(f"{text!r}: there is no IPv6 address in the brackets") from None
    if address.ipv4_mapped is not None:
        raise ValueError(f"{text!r}: say the IPv4 address {address.ipv4_mapped} itself")
    if address.scope_id is not None:
        raise ValueError(f"{text!r}: an address of one link only will not do; choose another one")
    return address


def _address4(host: str, text: str) -> IPv4Address:
    try:
        return IPv4Address(host)
    except ValueError:
        raise ValueError(f"{text!r}: {host} is no IPv4 address; write all four numbers") from None


def _port(port: str, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65_535:
        raise ValueError(f"{text!r}: a port is 1 to 65535")
    return int(port)
