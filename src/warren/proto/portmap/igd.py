"""What a UPnP gateway says it is, and how it is told what to do (UPnP-IGD 1 and 2: description, SOAP actions)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from warren.errors import MalformedPacket
from warren.proto.portmap.http import Response, pack_soap
from warren.proto.portmap.ssdp import Location, location_untrusted, path_untrusted
from warren.proto.portmap.xml import Element, parse_untrusted

CONNECTION_TYPES: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""The best first."""
FIREWALL_TYPE: Final = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1"
SERVICES_MAX: Final = 4
"""Of one kind: a gateway with several uplinks has several, and not each is connected."""
VALUE_MAX: Final = 256

FAULTS: Final = {
    401: "does not know the action",
    402: "does not understand the request",
    501: "fails at it",
    606: "does not allow it",
    701: "has no room left",  # WANIPv6FirewallControl: PinholeSpaceExhausted
    702: "has its IPv6 firewall switched off",
    703: "does not allow ways in by IPv6",
    708: "does not take a pinhole for every sender",
    709: "does not take a pinhole for every sender",
    718: "has given the port to another host",
    724: "only maps equal ports, and this one is taken",
    727: "only maps all ports at once",
    728: "has no room left",
    729: "has given the port away in another manner",
    732: "does not take the port",
}
"""UPnP errors, each completing "the gateway …"."""


@dataclass(frozen=True, slots=True)
class Service:
    type: str
    control: Location

    @property
    def version(self) -> int:
        return int(self.type[-1])


@dataclass(frozen=True, slots=True)
class Description:
    model: str
    """Printable and short."""
    connections: tuple[Service, ...]
    """Services that map IPv4 ports, the best first."""
    firewall: Service | None
    """The service that opens IPv6 pinholes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The gateway refuses an action."""

    code: int

    @property
    def why(self) -> str:
        return FAULTS.get(self.code, f"refuses with UPnP error {self.code}")


def unpack_description_untrusted(body: bytes, location: Location) -> Description:
    """The document that lies at ``location``. Services elsewhere than on that host are refused.

    Raises MalformedPacket.
    """
    root = parse_untrusted(body)
    stated = root.value("URLBase")
    base = location_untrusted(stated) if stated else location
    if base.host != location.host:
        raise MalformedPacket("a description that lies on another host")
    found: dict[str, list[Service]] = {}
    for element in root.all("service"):
        kind = element.value("serviceType")
        if kind in CONNECTION_TYPES or kind == FIREWALL_TYPE:
            services = found.setdefault(kind, [])
            if len(services) < SERVICES_MAX:
                services.append(Service(kind, _control_untrusted(element, base)))
    connections = [service for kind in CONNECTION_TYPES for service in found.get(kind, ())]
    firewalls = found.get(FIREWALL_TYPE, [])
    if not connections and not firewalls:
        raise MalformedPacket("a description without a service for mapping ports")
    device = root.first("device")
    model = " ".join((device.value("modelName"), device.value("modelNumber"))) if device else ""
    return Description(printable(model), tuple(connections), firewalls[0] if firewalls else None)


def _control_untrusted(element: Element, base: Location) -> Location:
    url = element.value("controlURL")
    if "://" in url:
        control = location_untrusted(url)
        if control.host != base.host:
            raise MalformedPacket("a service that lies on another host")
        return control
    path = url if url.startswith("/") else base.path.rpartition("/")[0] + "/" + url
    return Location(base.host, base.port, path_untrusted(path))


def pack_action(service: Service, action: str, arguments: tuple[tuple[str, str], ...] = ()) -> bytes:
    """An HTTP request. The names are ours; the values are escaped."""
    inner = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in arguments)
    envelope = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{action} xmlns:u="{service.type}">{inner}</u:{action}></s:Body></s:Envelope>\r\n'
    )
    control = service.control
    return pack_soap(control.authority, control.path, f"{service.type}#{action}", envelope.encode())


def unpack_action_untrusted(response: Response, action: str) -> dict[str, str] | Fault:
    """What an action gave back, or its fault. Raises MalformedPacket."""
    if response.status not in {200, 500}:
        raise MalformedPacket(f"HTTP status {response.status}")
    root = parse_untrusted(response.body)
    answer = root.first(f"{action}Response")
    if response.status == 200 and answer is not None:
        return {child.name: child.text[:VALUE_MAX] for child in answer.children}
    code = next((element.text for element in root.all("errorCode")), "")
    if not (code.isascii() and code.isdigit() and 1 <= len(code) <= 4):
        raise MalformedPacket("an answer to another action, or to none")
    return Fault(int(code))


def printable(text: str) -> str:
    """A gateway's word about itself, as it may be shown: one line of at most 64 characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:VALUE_MAX]).split())[:64]
