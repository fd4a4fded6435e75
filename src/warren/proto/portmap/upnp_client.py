"""Speaking UPnP-IGD 1 and 2 with one gateway: what is asked, and which answers are believed.

Nothing is ever subscribed to, no redirect is followed, and every connection goes to the gateway's own address, whatever
its documents say. Those documents come from whoever answered first under that address: what they name is compared with
it, and what the gateway then claims to have mapped is asked for once more.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.portmap import igd, ssdp
from warren.proto.portmap.exchange import Script, ask, fetch
from warren.proto.portmap.http import pack_get
from warren.proto.portmap.igd import Description, Fault, Service
from warren.proto.portmap.ssdp import Location
from warren.proto.portmap.values import (
    LIFETIME_WANTED_S,
    Gateway,
    Lease,
    ProtocolName,
    Refusal,
    external_untrusted,
    is_ipv4,
)

SEARCH_WAITS_S: Final = (0.5, 1.5)  # MX is 1 s; multicast over Wi-Fi is lost easily, so it is sent twice
PORTS_TRIED_MAX: Final = 5
_DESCRIPTION: Final = "Warren"  # shown in the router's list
_CONFLICT, _ONLY_PERMANENT, _NO_SUCH_ENTRY, _NO_SUCH_PINHOLE = 718, 725, 714, 704
_UNKNOWN_ACTION: Final = frozenset({401, 602})
_PERMANENT_CHECK_S: Final = 3600.0
"""A permanent mapping counts as one of this lifetime: so it is looked after, and put back if it vanishes."""

Answer = dict[str, str] | Fault | None


class UpnpClient:
    """Scripts for one gateway: port mappings for IPv4, pinholes for IPv6. ``random`` chooses ports after conflicts."""

    name: ProtocolName = "upnp"

    def __init__(self, gateway: Gateway, random: Callable[[int], bytes]) -> None:
        self.detail = ""
        """The gateway's model, printable."""
        self.attempt: Lease | None = None
        """What has been asked for, and may have been given although no answer came."""
        self.began_anew = False
        self._gateway = gateway
        self._random = random
        self._description: Description | None = None
        self._service: Service | None = None

    # Scripts

    def probe(self) -> Script[bool]:
        """Whether there is a gateway that maps ports (with IPv6: opens pinholes)."""
        self._description = yield from self._discover()
        if self._description is None:
            return False
        self.detail = self._description.model
        return bool(self._description.connections) if is_ipv4(self._gateway) else self._description.firewall is not None

    def map(self, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        """Ask for a way in to ``port``, or for more time for the one that is ``held``."""
        self.attempt = None
        outcome = yield from self._map_once(port, held)
        if isinstance(outcome, Refusal) and outcome.silent:
            # After a restart its port and paths may be others (UPnP Device Architecture 1.1 §2.1).
            self._description = yield from self._discover()
            if self._description is not None:
                outcome = yield from self._map_once(port, held)
        return outcome

    def watch(self, lease: Lease) -> Script[Lease | Refusal | None]:
        """Ask whether it is still there; a Refusal when it is not, or elsewhere. None: no answer."""
        service = self._service
        if service is None:
            return Refusal("is another one now")
        if not is_ipv4(self._gateway):
            answer = yield from self._act(service, "GetPinholePackets", (("UniqueID", lease.token),))
            gone = isinstance(answer, Fault) and answer.code == _NO_SUCH_PINHOLE
            return Refusal("has lost it") if gone else lease if answer is not None else None
        answer = yield from self._act(service, "GetExternalIPAddress")
        if answer is None:
            return None
        if isinstance(answer, dict) and answer.get("NewExternalIPAddress", "") != str(lease.external.ip):
            return Refusal("has another address now")
        entry = yield from self._entry(service, lease.external.port)
        return Refusal("has lost it") if entry is not None and not self._is_ours(entry, lease) else lease

    def release(self, lease: Lease) -> Script[bool]:
        """Give it back. True: the gateway has said so."""
        service = self._service
        if service is None:
            return False
        if is_ipv4(self._gateway):
            answer = yield from self._act(service, "DeletePortMapping", _entry_key(lease.external.port))
            return isinstance(answer, dict) or (isinstance(answer, Fault) and answer.code == _NO_SUCH_ENTRY)
        if not lease.token:
            return False
        answer = yield from self._act(service, "DeletePinhole", (("UniqueID", lease.token),))
        return isinstance(answer, dict) or (isinstance(answer, Fault) and answer.code == _NO_SUCH_PINHOLE)

    # Finding it

    def _discover(self) -> Script[Description | None]:
        address = self._gateway.address
        group = ssdp.GROUP4 if isinstance(address, IPv4Address) else ssdp.GROUP6
        searches = [(to, ssdp.pack_search(target, to=to)) for to in (group, address) for target in ssdp.TARGETS]
        datagrams = tuple((TransportAddress(to, ssdp.PORT), data) for to, data in searches)
        location = yield from ask(datagrams, SEARCH_WAITS_S, self._read_location, None)
        if location is None:
            return None
        response = yield from fetch(location.port, pack_get(location.authority, location.path))
        if response is None or response.status != 200:
            return None
        try:
            return igd.unpack_description_untrusted(response.body, location)
        except MalformedPacket:
            return None

    def _read_location(self, data: bytes, _now: float) -> Location | None:
        """IPv4: on the gateway itself. With IPv6 a gateway names another of its addresses than the link-local one that
        is talked to, which cannot be compared: only port and path are used.
        """
        location = ssdp.unpack_answer_untrusted(data)
        same = location.host == self._gateway.address if is_ipv4(self._gateway) else location.host.version == 6
        return location if same else None

    # Mapping

    def _map_once(self, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        if self._description is None:
            return Refusal("does not answer to UPnP", silent=True)
        if not is_ipv4(self._gateway):
            return (yield from self._open_pinhole(port, held))
        refusal = Refusal("has no service for it")
        for service in self._description.connections:
            answer = yield from self._act(service, "GetExternalIPAddress")
            if answer is None:
                return Refusal("does not answer to UPnP", silent=True)
            if isinstance(answer, Fault):
                refusal = Refusal(answer.why)
                continue
            try:
                address = ip_address(answer.get("NewExternalIPAddress", ""))
                external_untrusted(address, port)
            except (ValueError, MalformedPacket):
                refusal = Refusal("has no address of its own outside")
                continue
            if not isinstance(address, IPv4Address):
                continue
            self._service = service
            return (yield from self._add(service, address, port, held))
        return refusal

    def _add(self, service: Service, address: IPv4Address, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        external_port = held.external.port if held else port
        duration_s = 0 if held and held.permanent else int(LIFETIME_WANTED_S)
        any_port = service.version == 2 and held is None
        tried = 0
        while True:
            external, double_nat = external_untrusted(address, external_port)
            lease = Lease("upnp", port, external, LIFETIME_WANTED_S, permanent=not duration_s, double_nat=double_nat)
            self.attempt = lease
            action = "AddAnyPortMapping" if any_port else "AddPortMapping"
            answer = yield from self._act(service, action, self._entry_values(lease, duration_s))
            match answer:
                case None:
                    return Refusal("does not answer to UPnP", silent=True)
                case Fault(code=code) if any_port and code in _UNKNOWN_ACTION:
                    any_port = False
                    continue
                case Fault(code=code) if code == _ONLY_PERMANENT and duration_s:
                    duration_s = 0
                    continue
                case Fault(code=code) if code == _CONFLICT and tried + 1 < PORTS_TRIED_MAX:
                    external_port = self._another_port()
                    tried += 1
                    continue
                case Fault():
                    self.attempt = None
                    return Refusal(answer.why)
                case _:
                    return (yield from self._check_added(service, lease, answer if any_port else {}))

    def _check_added(self, service: Service, lease: Lease, answer: dict[str, str]) -> Script[Lease | Refusal]:
        """The gateway says it is done: ask what it has done, because some say so and have not."""
        external_port = _number(answer.get("NewReservedPort", str(lease.external.port)))
        try:
            external, double_nat = external_untrusted(lease.external.ip, external_port)
        except MalformedPacket as error:
            return Refusal(f"gives nonsense: {error}")
        added = Lease("upnp", lease.internal_port, external, lease.lifetime_s, lease.permanent, double_nat=double_nat)
        self.attempt = added
        entry = yield from self._entry(service, external_port)
        if entry is None:
            return Refusal("does not answer to UPnP", silent=True)
        if not self._is_ours(entry, added):
            return Refusal("says that the port is mapped, and it is not")
        permanent = added.permanent or (isinstance(entry, dict) and entry.get("NewLeaseDuration") == "0")
        lifetime_s = _PERMANENT_CHECK_S if permanent else added.lifetime_s
        return Lease("upnp", added.internal_port, external, lifetime_s, permanent, double_nat=double_nat)

    def _open_pinhole(self, port: int, held: Lease | None) -> Script[Lease | Refusal]:
        service = self._description.firewall if self._description else None
        if service is None:
            return Refusal("has no service for it")
        self._service = service
        try:
            external, double_nat = external_untrusted(self._gateway.source, port)
        except MalformedPacket as error:
            return Refusal(f"cannot be asked: {error}")
        lease_time = ("LeaseTime", str(int(LIFETIME_WANTED_S)))
        if held and held.token:
            answer = yield from self._act(service, "UpdatePinhole", (("UniqueID", held.token), lease_time))
            if isinstance(answer, dict):
                return held
            if answer is None:
                return Refusal("does not answer to UPnP", silent=True)
        arguments = (
            ("RemoteHost", ""),
            ("RemotePort", "0"),
            ("InternalClient", str(self._gateway.source)),
            ("InternalPort", str(port)),
            ("Protocol", "17"),
        )
        answer = yield from self._act(service, "AddPinhole", (*arguments, lease_time))
        if answer is None:
            return Refusal("does not answer to UPnP", silent=True)
        if isinstance(answer, Fault):
            return Refusal(answer.why)
        token = answer.get("UniqueID", "")
        if not 0 <= _number(token) <= 65_535:
            return Refusal("gives nonsense: a pinhole without a number")
        self.attempt = Lease("upnp", port, external, LIFETIME_WANTED_S, token=token, double_nat=double_nat)
        return self.attempt

    # Actions

    def _act(self, service: Service, action: str, arguments: tuple[tuple[str, str], ...] = ()) -> Script[Answer]:
        response = yield from fetch(service.control.port, igd.pack_action(service, action, arguments))
        if response is None:
            return None
        try:
            return igd.unpack_action_untrusted(response, action)
        except MalformedPacket:
            return None

    def _entry(self, service: Service, external_port: int) -> Script[Answer]:
        return self._act(service, "GetSpecificPortMappingEntry", _entry_key(external_port))

    def _entry_values(self, lease: Lease, duration_s: int) -> tuple[tuple[str, str], ...]:
        return (
            *_entry_key(lease.external.port),
            ("NewInternalPort", str(lease.internal_port)),
            ("NewInternalClient", str(self._gateway.source)),
            ("NewEnabled", "1"),
            ("NewPortMappingDescription", _DESCRIPTION),
            ("NewLeaseDuration", str(duration_s)),
        )

    def _is_ours(self, entry: dict[str, str] | Fault, lease: Lease) -> bool:
        """Whether the gateway's table has it. A gateway that does not let its table be read is taken at its word."""
        if isinstance(entry, Fault):
            return entry.code != _NO_SUCH_ENTRY
        client, port = entry.get("NewInternalClient", ""), _number(entry.get("NewInternalPort", ""))
        return client == str(self._gateway.source) and port == lease.internal_port

    def _another_port(self) -> int:
        return 1024 + int.from_bytes(self._random(4), "big") % (65_536 - 1024)


def _entry_key(external_port: int) -> tuple[tuple[str, str], ...]:
    return ("NewRemoteHost", ""), ("NewExternalPort", str(external_port)), ("NewProtocol", "UDP")


def _number(text: str) -> int:
    """A decimal number of at most 5 digits; anything else is -1."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else -1
