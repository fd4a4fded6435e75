"""The values of a wg-quick file, one parser per kind of value.

Each ``parse_*`` takes the text right of the ``=`` (already stripped) and raises :class:`ValueError` with the rest of
a sentence that begins with the key: what is wrong and how to write it. Texts that could be a key are never quoted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)

from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import IPAddress, IPNetwork

IPInterface = IPv4Interface | IPv6Interface

MTU_MIN, MTU_MAX = 68, 65535
IPV6_MTU_MIN = 1280  # RFC 8200 §5
TABLE_AUTO, TABLE_OFF = "auto", "off"

_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_ZONE = re.compile(r"[A-Za-z0-9_=+.:-]{1,15}")
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_DOMAIN = re.compile(r"[A-Za-z0-9_~][A-Za-z0-9_.-]{0,252}")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?")
_SHOWN_MAX = 60

# Curve25519 points whose shared secret is zero whatever the private key (the list of the kernel's wireguard
# selftest), with the top bit, which X25519 ignores (RFC 7748 §5), cleared.
_LOW_ORDER = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a peer is said to be: ``host`` is an IP address or a name still to be resolved, ``zone`` an interface or
    index.
    """

    host: str
    port: int
    zone: str = ""

    @property
    def ip(self) -> IPAddress | None:
        """The address, or None when ``host`` is a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        zone = f"%{self.zone}" if self.zone else ""
        return f"[{self.host}{zone}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(text: str) -> str:
    """``text`` in quotes for an error, shortened; a text that may be (part of) a key is not shown."""
    if re.search(r"[A-Za-z0-9+/=]{30}", text):
        return "the value"
    text = text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
    return f'"{text}"'


def split_list(text: str) -> list[str]:
    """The non-empty entries of a list separated by commas or white space."""
    return text.replace(",", " ").split()


def parse_private_key(text: str) -> PrivateKey:
    key = PrivateKey.from_base64(text)
    if key.is_zero:
        raise ValueError("the key is all zero; make one with `wg genkey`")
    return key


def parse_public_key(text: str) -> PublicKey:
    key = PublicKey.from_base64(text)
    if key.raw[:31] + bytes([key.raw[31] & 0x7F]) in _LOW_ORDER:
        raise ValueError("the key is a low-order point, which protects nothing; ask the peer for its `wg pubkey`")
    return key


def parse_preshared_key(text: str) -> PresharedKey:
    return PresharedKey.from_base64(text)


def parse_number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or not least <= int(text) <= most:
        raise ValueError(f"{shown(text)} is not a number from {least} to {most}")
    return int(text)


def parse_port(text: str) -> int:
    return parse_number(text, 0, 65535)


def parse_mtu(text: str) -> int:
    return parse_number(text, MTU_MIN, MTU_MAX)


def parse_fwmark(text: str) -> int:
    """0 for ``off``."""
    if text.lower() == "off":
        return 0
    if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,8}", text):
        return int(text, 16)
    try:
        return parse_number(text, 0, 0xFFFFFFFF)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a mark; write a number like 51820 or 0xca6c, or off") from None


def parse_keepalive(text: str) -> int:
    """Seconds; 0 for ``off``."""
    if text.lower() == "off":
        return 0
    try:
        return parse_number(text, 0, 65535)
    except ValueError:
        raise ValueError(f"{shown(text)} is not a number of seconds from 0 to 65535, or off") from None


def parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{shown(text)} is neither true nor false")
    return text.lower() == "true"


def parse_table(text: str) -> int | str:
    """A table number, a name still to be looked up, or :data:`TABLE_AUTO` or :data:`TABLE_OFF`."""
    if text.lower() in (TABLE_AUTO, TABLE_OFF):
        return text.lower()
    if text.isdigit():
        return parse_number(text, 1, 0xFFFFFFFF)
    if not _TABLE_NAME.fullmatch(text):
        raise ValueError(
            f"{shown(text)} is not a routing table; write off, auto, a number, or a name of /etc/iproute2/rt_tables"
        )
    return text


def parse_interface_address(text: str) -> IPInterface:
    try:
        return _interface(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an address; write it like 10.0.0.1/24 or fd00::1/64") from None


def parse_allowed_ip(text: str) -> IPNetwork:
    """A network; host bits are cleared, a bare address is a network of one."""
    try:
        return _interface(text).network
    except ValueError:
        raise ValueError(f"{shown(text)} is not an address range; write it like 10.0.0.0/24 or fd00::/64") from None


def _interface(text: str) -> IPInterface:
    if not _ADDRESS.fullmatch(text):  # ip_interface() would also take zones and netmasks, which wg does not
        raise ValueError(text)
    return ip_interface(text)


def parse_dns(text: str) -> IPAddress | str:
    """An address, or a search domain."""
    if re.fullmatch(r"[0-9.]+|.*:.*", text):  # wg-quick's test of what is an address
        try:
            return ip_address(text)
        except ValueError:
            raise ValueError(f"{shown(text)} is not an address; write it like 10.0.0.53 or fd00::53") from None
    if not _DOMAIN.fullmatch(text):
        raise ValueError(f"{shown(text)} is neither an address like 10.0.0.53 nor a search domain like example.net")
    return text


def parse_endpoint(text: str) -> Endpoint:
    match = re.fullmatch(r"\[([^\[\]]*)\]:([^:]*)|([^:\[\]]*):([^:]*)", text)
    if match is None:
        forms = "192.0.2.1:51820, [2001:db8::1]:51820 or vpn.example.net:51820"
        raise ValueError(f"{shown(text)} is not an endpoint; write it like {forms}")
    v6, v6_port, host, port = match.groups()
    try:
        number = parse_number(v6_port if v6 is not None else port, 1, 65535)
    except ValueError as error:
        raise ValueError(f"the port {error}") from None
    return _endpoint_v6(v6, number) if v6 is not None else _endpoint_host(host, number)


def _endpoint_v6(text: str, port: int) -> Endpoint:
    host, percent, zone = text.partition("%")
    try:
        ip = IPv6Address(host)
    except AddressValueError:
        raise ValueError(f"{shown(text)} is not an IPv6 address; write the endpoint like [2001:db8::1]:51820") from None
    if percent and not _ZONE.fullmatch(zone):
        raise ValueError(f"{shown(zone)} is not an interface; write the endpoint like [fe80::1%eth0]:51820")
    return Endpoint(str(ip), port, zone)


def _endpoint_host(host: str, port: int) -> Endpoint:
    if re.fullmatch(r"[0-9.]+", host):
        try:
            return Endpoint(str(IPv4Address(host)), port)
        except AddressValueError:
            raise ValueError(f"{shown(host)} is not an IPv4 address; write the endpoint like 192.0.2.1:51820") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{shown(host)} is not a host name; write the endpoint like vpn.example.net:51820")
    return Endpoint(host, port)
