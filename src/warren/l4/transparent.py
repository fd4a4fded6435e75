"""Subnets behind a node without root: what is meant for them ends in the overlay, at a transparent listener, and goes
on from the host's side as a stream or flow of its own. Answers leave from the address that was meant.

The kernel hands it over by ``tproxy`` (nft(8)), after the policy has been judged: :func:`transparent_rules`. TCP and
UDP are carried; nothing else is, as an ordinary user cannot send it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, NamedTuple

from msgspec import structs

from warren.l4.config import Backend, Entry, Listen
from warren.l4.datagram_flow import Flow, Origin, Site
from warren.l4.destinations import Attempt, Destination, destination
from warren.l4.kinds import Incoming, Refused, Tools
from warren.l4.limits import allowed
from warren.l4.train_socket import TrainSocket, set_transparent
from warren.l4.trains import Train
from warren.linux.netlink_values import Route, Rule
from warren.linux.nft import Command
from warren.model.ip import join_host_port
from warren.model.tunnel import IPAddress, IPNetwork

MARK: Final = 0x5E72_0001
"""On packets that the kernel shall deliver here though they are for others; the table of the same number does so."""
PRIORITY: Final = 5172
_LOOPBACK: Final = {4: "127.0.0.1", 6: "::1"}
_IP: Final = {4: "ip", 6: "ip6"}
_AFTER_THE_POLICY: Final = -140  # nft(8): mangle is -150, where l3.firewall judges; translation of addresses is -100

_sockaddr_in = struct.Struct("=H2s4s8x")
_sockaddr_in6 = struct.Struct("=H2s4x16s4x")


class TransparentRules(NamedTuple):
    """What is to be set up where the tunnel interface is, and where then to listen."""

    document: list[Command]
    """For nftables: puts a table of its own in place of an earlier one, in one transaction."""
    removal: list[Command]
    routes: tuple[Route, ...]
    rules: tuple[Rule, ...]
    """The same for all interfaces of a namespace."""
    listen: tuple[Listen, ...]
    """TCP first, then UDP: each makes an entry of kind ``transparent``, whose ``allowed`` are the prefixes."""


def transparent_rules(interface: str, prefixes: Iterable[IPNetwork], port: int) -> TransparentRules:
    """For what arrives by ``interface`` and is meant for ``prefixes``, listened for at ``port`` on loopback. Pure."""
    table = {"family": "inet", "name": f"warren-{interface}-behind"}
    place = {"family": "inet", "table": table["name"]}
    removal: list[Command] = [{"add": {"table": table}}, {"delete": {"table": table}}]
    document: list[Command] = [*removal, {"add": {"table": table}}]
    chain = {"name": "arrive", "type": "filter", "hook": "prerouting", "prio": _AFTER_THE_POLICY, "policy": "accept"}
    document.append({"add": {"chain": {**place, **chain}}})
    by_version: dict[int, list[IPNetwork]] = {4: [], 6: []}
    for prefix in sorted(set(prefixes), key=lambda one: (one.version, int(one.network_address), one.prefixlen)):
        by_version[prefix.version].append(prefix)
    for version, networks in by_version.items():
        for network in networks:
            expressions: list[dict[str, Any]] = [
                _match({"meta": {"key": "iifname"}}, interface),
                _match({"payload": {"protocol": _IP[version], "field": "daddr"}}, _right(network)),
                _match({"meta": {"key": "l4proto"}}, {"set": ["tcp", "udp"]}),
                {"tproxy": {"family": _IP[version], "addr": _LOOPBACK[version], "port": port}},
                {"mangle": {"key": {"meta": {"key": "mark"}}, "value": MARK}},
            ]
            document.append({"add": {"rule": {**place, "chain": "arrive", "expr": expressions}}})
    versions = [version for version, networks in by_version.items() if networks]
    return TransparentRules(
        document,
        removal,
        tuple(Route(network, "lo", table=MARK, local=True) for networks in by_version.values() for network in networks),
        tuple(Rule(version, PRIORITY, MARK, fwmark=MARK) for version in versions),
        tuple(
            Listen(side="overlay", protocol=protocol, address=_LOOPBACK[version], port=port)
            for protocol in ("tcp", "udp")
            for version in versions
        ),
    )


async def handle(incoming: Incoming, entry: Entry, tools: Tools) -> None:
    """A stream to an address behind this node."""
    if incoming.local is None:
        raise Refused("policy", "a Unix socket has no address behind this node")
    meant = incoming.local
    check(meant.ip, entry.allowed)
    name = join_host_port(str(meant.ip), meant.port)
    backend = Backend(name=name, side="host", host=str(meant.ip), port=meant.port)
    connected = await tools.connect(structs.replace(entry.way, backends=(backend,)), incoming.client)
    tools.carry(incoming.sock, connected.sock, idle_s=entry.way.idle_s)


def check(ip: IPAddress, prefixes: tuple[str, ...]) -> None:
    """Raises Refused when it is not behind this node, or never is anything but this host."""
    if ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast or not allowed(ip, prefixes):
        raise Refused("policy", f"{ip} is not behind this node")


def original_destination(sockaddr: bytes, prefixes: tuple[str, ...]) -> Destination:
    """What a datagram was meant for. Raises Refused."""
    ip: IPAddress
    if len(sockaddr) >= _sockaddr_in6.size:
        _, port, raw = _sockaddr_in6.unpack_from(sockaddr)
        ip = IPv6Address(raw)
    elif len(sockaddr) >= _sockaddr_in.size:
        _, port, raw = _sockaddr_in.unpack_from(sockaddr)
        ip = IPv4Address(raw)
    else:
        raise Refused("policy", "the kernel does not say what a datagram was meant for")
    check(ip, prefixes)
    return destination("host", ip, int.from_bytes(port))


class TransparentFlow(Flow):
    """What one client sends to one address and port: a socket bound to that address is its end towards the client."""

    __slots__ = ("_back", "_meant")

    direct = False

    def __init__(self, site: Site, origin: Origin, ended: Callable[[], None], meant: Destination) -> None:
        super().__init__(site, origin, ended)
        self._meant = meant
        self._back: TrainSocket | None = None

    def attempts(self) -> list[Attempt]:
        host, port = self._meant.address[:2]
        backend = Backend(name=join_host_port(host, port), side="host", host=host, port=port)
        return [Attempt(backend, self._meant)]

    async def prepare(self) -> None:
        if self._back is not None:
            return
        sock = await self._site.destinations.open("overlay", self._meant.family)
        try:
            set_transparent(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # other clients speak to the same address
            sock.bind(self._meant.address)
            sock.connect(self._address)
        except OSError as error:
            sock.close()
            raise Refused("resources", f"no socket for {self._meant.address[0]}: {error.strerror}") from None
        self._back = TrainSocket(sock)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._from_client, self._back)

    def answer(self, train: Train) -> None:
        if self._back is not None:
            self._back.send(train)

    def close(self) -> None:
        back, self._back = self._back, None
        if back is not None:
            asyncio.get_running_loop().remove_reader(back.sock.fileno())
            back.close()
        super().close()

    def _from_client(self, back: TrainSocket) -> None:
        """From now on the kernel hands the client's datagrams to this socket."""
        for train in back.receive():
            # Another's may have come before connect(); and the train before may have ended the flow.
            if self._back is not None and train.source[:2] == self._address[:2]:
                self.forward(train)


def _match(left: dict[str, Any], right: object) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


def _right(network: IPNetwork) -> Any:
    address = str(network.network_address)
    if network.prefixlen == network.max_prefixlen:
        return address
    return {"prefix": {"addr": address, "len": network.prefixlen}}
