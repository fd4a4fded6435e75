"""Gateways of a test's making, and a wire between them and the lease machine: one clock, moved by hand."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.portmap import natpmp, ssdp
from warren.proto.portmap.exchange import Datagram, Ended, Fetching, Transmit
from warren.proto.portmap.http import Response
from warren.proto.portmap.lease import PortMapper
from warren.proto.portmap.standing import Event
from warren.proto.portmap.values import Gateway

HOME = Gateway(ip_address("192.168.1.1"), 2, ip_address("192.168.1.20"))
HOME6 = Gateway(ip_address("fe80::1"), 2, ip_address("2a0c:d000:1:1::20"))
OUTSIDE = IPv4Address("45.80.1.2")
HTTP_PORT = 5000
_ARGUMENT = re.compile(r"<(New\w+|\w+)>([^<]*)</\1>")


@dataclass
class Entry:
    """What a gateway holds for one external port."""

    client: IPAddress
    port: int
    expires_at: float
    nonce: bytes = b""


@dataclass
class FakeGateway:
    """A gateway as the RFCs have it, with switches for what real and hostile ones do."""

    gateway: Gateway = HOME
    pcp: bool = False
    nat_pmp: bool = False
    upnp: int = 0
    """The version of the IGD; 0: none."""
    external: IPAddress = OUTSIDE
    entries: dict[int, Entry] = field(default_factory=dict)
    started_at: float = 0.0
    epoch_lie: Callable[[int], int] = lambda epoch: epoch
    lifetime: Callable[[int], int] = lambda asked: asked
    refuses: int = 0
    """The result, or UPnP error, that mapping ends with."""
    error_lifetime: int = 60
    external_port: Callable[[int], int] = lambda port: port
    only_permanent: bool = False
    is_lying: bool = False
    """It says that it has mapped by UPnP, and has not."""
    location: str = ""
    http_port: int = HTTP_PORT
    deaf: bool = False
    pinholes: dict[int, tuple[str, int]] = field(default_factory=dict)
    spoil: Callable[[bytes], list[bytes]] = lambda answer: [answer]
    """What becomes of an answer by UDP."""
    asked: list[str] = field(default_factory=list)

    def reboot(self, now: float) -> None:
        self.entries.clear()
        self.pinholes.clear()
        self.started_at = now

    # UDP

    def datagram(self, data: bytes, port: int, now: float) -> list[bytes]:
        if self.deaf:
            return []
        if port == ssdp.PORT:
            return self._search(data)
        if data[0] == 2 and self.pcp:
            answer = self._pcp(data, now)
        elif data[0] == 2 and self.nat_pmp:
            answer = struct.pack("!BBHI", 0, 128, 1, self._epoch(now))  # RFC 6886 §3.5: not this version
        elif data[0] == 0 and self.nat_pmp:
            answer = self._nat_pmp(data, now)
        else:
            return []
        return self.spoil(answer)

    def _epoch(self, now: float) -> int:
        return self.epoch_lie(int(now - self.started_at))

    def announcement(self, now: float) -> bytes:
        if self.pcp:
            return struct.pack("!BBBBII12x", 2, 128, 0, 0, 0, self._epoch(now))
        return struct.pack("!BBHI", 0, 128, 0, self._epoch(now)) + self.external.packed

    def _nat_pmp(self, data: bytes, now: float) -> bytes:
        operation = data[1]
        self.asked.append(f"nat-pmp {operation}")
        if operation == 0:
            return struct.pack("!BBHI", 0, 128, 0, self._epoch(now)) + self.external.packed
        _, internal, external, lifetime = struct.unpack_from("!HHHI", data, 2)
        head = struct.pack("!BBHI", 0, 129, self.refuses, self._epoch(now))
        if lifetime == 0:
            self.entries = {
                key: one
                for key, one in self.entries.items()
                if (one.client, one.port) != (self.gateway.source, internal)
            }
            return head + struct.pack("!HHI", internal, 0, 0)
        given, granted = self._give(internal, external, lifetime, now)
        return head + struct.pack("!HHI", internal, given, granted)

    def _pcp(self, data: bytes, now: float) -> bytes:
        opcode, lifetime = struct.unpack_from("!BxxI", data, 1)
        self.asked.append(f"pcp {opcode}")
        if opcode == 0:
            return struct.pack("!BBBBII12x", 2, 128, 0, 0, 0, self._epoch(now))
        nonce, protocol, internal, external = struct.unpack_from("!12sB3xHH", data, 24)
        held = next((one for one in self.entries.values() if one.port == internal), None)
        result = 2 if held and held.nonce != nonce else self.refuses
        if result:
            head = struct.pack("!BBBBII12x", 2, 129, 0, result, self.error_lifetime, self._epoch(now))
            return head + data[24:]
        if lifetime == 0:
            self.entries = {key: one for key, one in self.entries.items() if one.port != internal}
            given, granted = external, 0
        else:
            given, granted = self._give(internal, external, lifetime, now, nonce)
        head = struct.pack("!BBBBII12x", 2, 129, 0, 0, granted, self._epoch(now))
        outside = self.external if self.gateway.address.version == 4 else self.gateway.source
        packed = outside.packed if isinstance(outside, IPv6Address) else bytes(10) + b"\xff\xff" + outside.packed
        return head + struct.pack("!12sB3xHH16s", nonce, protocol, internal, given, packed)

    def _give(self, internal: int, external: int, lifetime: int, now: float, nonce: bytes = b"") -> tuple[int, int]:
        held = next((port for port, one in self.entries.items() if one.port == internal), None)
        port = self.external_port(external) if held is None else held
        while held is None and port in self.entries:
            port += 1
        granted = self.lifetime(lifetime)
        if not self.refuses:
            self.entries[port] = Entry(self.gateway.source, internal, now + granted, nonce)
        return port, granted

    # UPnP

    def _search(self, data: bytes) -> list[bytes]:
        target = next(line[4:] for line in data.decode().split("\r\n") if line.startswith("ST: "))
        if not self.upnp or int(target[-1]) > self.upnp:
            return []
        self.asked.append("search")
        address = self.gateway.address
        host = "[2a0c:d000:1:1::1]" if isinstance(address, IPv6Address) else str(address)
        location = self.location or f"http://{host}:{self.http_port}/root.xml"
        return [f"HTTP/1.1 200 OK\r\nST: {target}\r\nLOCATION: {location}\r\n\r\n".encode()]

    def fetch(self, port: int, request: bytes, now: float) -> Response | None:
        if self.deaf or not self.upnp or port != self.http_port:
            return None
        text = request.decode()
        if text.startswith("GET /root.xml "):
            self.asked.append("description")
            return Response(200, {}, description(self.upnp).encode())
        action = text.partition("#")[2].partition('"')[0]
        self.asked.append(action)
        arguments = dict(_ARGUMENT.findall(text))
        answer = self._act(action, arguments, now)
        if isinstance(answer, int):
            return Response(500, {}, soap_fault(answer).encode())
        return Response(200, {}, soap_answer(action, answer).encode())

    def _act(self, action: str, given: dict[str, str], now: float) -> dict[str, str] | int:
        key = int(given.get("NewExternalPort", 0))
        match action:
            case "GetExternalIPAddress":
                return {"NewExternalIPAddress": str(self.external)}
            case "AddPortMapping" | "AddAnyPortMapping":
                return self._add(action, given, key, now)
            case "DeletePortMapping":
                return {} if self.entries.pop(key, None) else 714
            case "GetSpecificPortMappingEntry":
                entry = self.entries.get(key)
                if entry is None:
                    return 714
                left = 0 if entry.expires_at == float("inf") else int(entry.expires_at - now)
                names = {"NewInternalPort": str(entry.port), "NewInternalClient": str(entry.client)}
                return {**names, "NewLeaseDuration": str(left)}
            case "AddPinhole":
                number = len(self.pinholes) + 1
                self.pinholes[number] = given["InternalClient"], int(given["InternalPort"])
                return self.refuses or {"UniqueID": str(number)}
            case "UpdatePinhole" | "GetPinholePackets":
                return {} if int(given["UniqueID"]) in self.pinholes else 704
            case "DeletePinhole":
                return {} if self.pinholes.pop(int(given["UniqueID"]), None) else 704
        return 401

    def _add(self, action: str, given: dict[str, str], key: int, now: float) -> dict[str, str] | int:
        lease = int(given["NewLeaseDuration"])
        client, internal = ip_address(given["NewInternalClient"]), int(given["NewInternalPort"])
        if self.refuses:
            return self.refuses
        if self.only_permanent and lease:
            return 725
        if action == "AddAnyPortMapping":
            if self.upnp != 2:
                return 401
            key = self.external_port(key)
            while key in self.entries:
                key += 1
        holder = self.entries.get(key)
        if holder is not None and (holder.client, holder.port) != (client, internal):
            return 718
        if not self.is_lying:
            self.entries[key] = Entry(client, internal, now + lease if lease else float("inf"))
        return {"NewReservedPort": str(key)} if action == "AddAnyPortMapping" else {}


def description(version: int) -> str:
    service = f"urn:schemas-upnp-org:service:WANIPConnection:{version}"
    firewall = (
        "<service><serviceType>urn:schemas-upnp-org:service:WANIPv6FirewallControl:1</serviceType>"
        "<controlURL>/ctl/fw</controlURL></service>"
        if version == 2
        else ""
    )
    return (
        f'<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><device>'
        f"<modelName>Fritz</modelName><modelNumber>7</modelNumber><deviceList><device><serviceList><service>"
        f"<serviceType>{service}</serviceType><controlURL>/ctl/ip</controlURL></service>{firewall}"
        f"</serviceList></device></deviceList></device></root>"
    )


def soap_answer(action: str, values: dict[str, str]) -> str:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    return (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>'
        f'<u:{action}Response xmlns:u="x">{inner}</u:{action}Response></s:Body></s:Envelope>'
    )


def soap_fault(code: int) -> str:
    return (
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><s:Fault><detail>'
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode></UPnPError>'
        "</detail></s:Fault></s:Body></s:Envelope>"
    )


class Wire:
    """The lease machine and its gateways; ``now`` moves by :meth:`run` only."""

    def __init__(
        self, *fakes: FakeGateway, port: int = 51820, enabled: bool = True, seed: int = 1, secret: bytes | None = None
    ) -> None:
        self.fakes = list(fakes)
        self.now = 1000.0
        for fake in fakes:
            fake.started_at = self.now - 500
        self.mapper = PortMapper(random=random.Random(seed).randbytes, secret=secret)
        self.sent: list[Transmit] = []
        self.sent_at: list[float] = []
        self.events: list[Event] = []
        self.lose_next = 0
        self.delay_s = 0.01
        self._coming: list[tuple[float, Callable[[], None]]] = []
        self.open_lanes: set[int] = set()
        self.configure(enabled=enabled, port=port)

    def configure(self, *, enabled: bool = True, port: int = 51820, gateways: Sequence[Gateway] | None = None) -> None:
        known = [fake.gateway for fake in self.fakes] if gateways is None else gateways
        self.mapper.configure(enabled=enabled, port=port, gateways=known, now=self.now)
        self._deliver()

    def run(self, seconds: float) -> None:
        """Let that much time pass; at most so many things happen in it."""
        end = self.now + seconds
        for _ in range(20_000):
            self._deliver()
            deadline = self.mapper.next_deadline()
            at = min([deadline.at if deadline else end, end, *(when for when, _ in self._coming)])
            self.now = max(self.now, at)
            due = [one for one in self._coming if one[0] <= self.now]
            self._coming = [one for one in self._coming if one[0] > self.now]
            for _, happen in due:
                happen()
            self.mapper.handle_timeout(self.now)
            if not due and self.now >= end:
                self._deliver()
                return
        raise AssertionError("the machine does not come to rest")

    def announce(self, data: bytes, remote: TransportAddress) -> None:
        self.mapper.announced(data, remote, self.now)
        self._deliver()

    def inject(self, lane: int, data: bytes, remote: TransportAddress) -> None:
        self.mapper.receive(lane, data, remote, self.now)
        self._deliver()

    def _deliver(self) -> None:
        self.events += self.mapper.take_events()
        for transmit in self.mapper.take_transmits():
            self.sent.append(transmit)
            self.sent_at.append(self.now)
            if isinstance(transmit, Ended):
                self.open_lanes.discard(transmit.lane)
                continue
            self.open_lanes.add(transmit.lane)
            if self.lose_next:
                self.lose_next -= 1
                continue
            for fake in self.fakes:
                if fake.gateway == transmit.gateway:
                    self._pass(transmit, fake)

    def _pass(self, transmit: Datagram | Fetching, fake: FakeGateway) -> None:
        if isinstance(transmit, Fetching):
            response = fake.fetch(transmit.remote.port, transmit.request, self.now)
            number = transmit.number
            self._later(lambda: self.mapper.fetched(transmit.lane, number, response, self.now))
            return
        if transmit.remote.ip.is_multicast or transmit.remote.ip == fake.gateway.address:
            remote = TransportAddress(fake.gateway.address, transmit.remote.port)
            for answer in fake.datagram(transmit.data, transmit.remote.port, self.now):
                self._later(lambda answer=answer: self.mapper.receive(transmit.lane, answer, remote, self.now))  # type: ignore[misc]

    def _later(self, happen: Callable[[], None]) -> None:
        self._coming.append((self.now + self.delay_s, happen))

    @property
    def packets(self) -> int:
        return sum(not isinstance(one, Ended) for one in self.sent)


def pcp_server(gateway: Gateway = HOME) -> TransportAddress:
    return TransportAddress(gateway.address, natpmp.PORT)
