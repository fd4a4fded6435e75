"""Looking for a UPnP gateway by SSDP (UPnP Device Architecture 1.1 §1.3.2, §1.3.3), and where it can be spoken to."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import IPAddress
from warren.proto.portmap.http import unpack_head_untrusted

PORT: Final = 1900
GROUP4: Final = IPv4Address("239.255.255.250")
GROUP6: Final = IPv6Address("ff02::c")
TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
"""A gateway of version 2 answers both (§1.3.2); some answer only their own."""
WAIT_S: Final = 1
"""MX: how long an answer may be put off."""
_PATH_MAX: Final = 512
_ANSWER_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Location:
    """Where on the gateway something is: ``host`` only goes into the Host header, never into a connection."""

    host: IPAddress
    port: int
    path: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)
        return host if self.port == 80 else f"{host}:{self.port}"


def pack_search(target: str, *, to: IPAddress) -> bytes:
    """A search for ``target``, to be sent to ``to``: a multicast group, or a gateway itself (§1.3.2, without MX)."""
    host = f"[{to}]" if isinstance(to, IPv6Address) else str(to)
    waits = (f"MX: {WAIT_S}",) if to.is_multicast else ()
    lines = ("M-SEARCH * HTTP/1.1", f"HOST: {host}:{PORT}", 'MAN: "ssdp:discover"', *waits, f"ST: {target}", "", "")
    return "\r\n".join(lines).encode("ascii")


def unpack_answer_untrusted(data: bytes) -> Location:
    """Where the description of a gateway lies. Raises MalformedPacket for whatever does not answer a search for one."""
    if len(data) > _ANSWER_BYTES_MAX:
        raise MalformedPacket(f"an SSDP answer of {len(data)} bytes")
    status, headers = unpack_head_untrusted(data.partition(b"\r\n\r\n")[0])
    if status != 200 or headers.get("st") not in TARGETS:
        raise MalformedPacket("an SSDP answer about something else")
    return location_untrusted(headers.get("location", ""))


def location_untrusted(url: str) -> Location:
    """An absolute URL: plain HTTP, the host an address. Raises MalformedPacket."""
    scheme, separator, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    if not separator or scheme.lower() != "http" or "@" in authority:
        raise MalformedPacket("a URL that is not plain HTTP")
    host, port = authority, "80"
    if authority.startswith("["):
        host, bracket, after = authority[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            raise MalformedPacket("a URL without a host")
        port = after[1:] or port
    elif ":" in authority:
        host, _, port = authority.partition(":")
        if authority.count(":") > 1:
            raise MalformedPacket("a URL without a host")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65_535):
        raise MalformedPacket("a URL without a port")
    try:
        address: IPAddress = IPv6Address(host.partition("%")[0]) if ":" in host else IPv4Address(host)
    except ValueError:
        raise MalformedPacket("a URL that has a name instead of an address") from None
    return Location(address, int(port), path_untrusted(f"/{path}"))


def path_untrusted(path: str) -> str:
    """A path as it may stand in a request line. Raises MalformedPacket: nothing may end the line or begin another."""
    path = path.partition("#")[0]
    if not path.startswith("/") or len(path) > _PATH_MAX or any(not "!" <= letter <= "~" for letter in path):
        raise MalformedPacket("a path that cannot be asked for")
    return path
