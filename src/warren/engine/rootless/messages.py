"""What is asked of a nest's helper, and how: one answer to each request, in order, over a Unix stream socket.

A frame is its length in four big-endian bytes, then one msgpack value: a request is one of :data:`Request`, an answer
an :class:`Answer`. File descriptors come with the first byte of the answer (SCM_RIGHTS). Requests come from the same
user, yet are read as if from anyone: a mistake of one client must not end what all others depend on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Final

import msgspec

from warren.errors import MalformedPacket
from warren.linux.netlink_values import Address, Route, Rule
from warren.model.tunnel import IPNetwork

LENGTH_BYTES: Final = 4
FRAME_BYTES_MAX: Final = 32 << 20
"""The rules of a network of 10,000 members with as many services take a third of it."""
SOCKETS_MAX: Final = 32
"""In one request: below the 253 descriptors that one message may carry, and enough to make its cost small."""


class _Request(msgspec.Struct, frozen=True, tag=True):
    pass


class WireAddress(msgspec.Struct, frozen=True, array_like=True):
    interface: str
    value: str
    lasting: bool = True


class WireRoute(msgspec.Struct, frozen=True, array_like=True):
    network: str
    interface: str
    table: int
    gateway: str | None
    mtu: int
    protocol: int
    local: bool = False


class OpenSockets(_Request, frozen=True):
    """``count`` new sockets of the nest; answered with as many descriptors, or fewer, if the limit of open files or of
    memory is near.
    """

    family: int
    kind: int
    protocol: int = 0
    count: int = 1


class MakeTun(_Request, frozen=True):
    """A TUN interface in the nest; answered with its descriptor and whether the kernel segments UDP on it."""

    name: str


class Namespaces(_Request, frozen=True):
    """Answered with descriptors of the nest's user and network namespace."""


class Links(_Request, frozen=True):
    pass


class SetLink(_Request, frozen=True):
    interface: str
    up: bool | None = None
    mtu: int | None = None
    gso_max_segs: int | None = None


class RemoveLink(_Request, frozen=True):
    interface: str


class Addresses(_Request, frozen=True):
    pass


class AddAddress(_Request, frozen=True):
    address: WireAddress


class RemoveAddress(_Request, frozen=True):
    address: WireAddress


class Routes(_Request, frozen=True):
    pass


class AddRoute(_Request, frozen=True):
    route: WireRoute


class RemoveRoute(_Request, frozen=True):
    route: WireRoute


class Rules(_Request, frozen=True):
    pass


class AddRule(_Request, frozen=True):
    rule: Rule


class RemoveRule(_Request, frozen=True):
    rule: Rule


class PathTo(_Request, frozen=True):
    destination: str
    fwmark: int = 0


class Watch(_Request, frozen=True):
    """From now on an answer comes whenever links, addresses or routes may have changed; nothing else is asked here."""


class RunNft(_Request, frozen=True):
    document: list[dict[str, Any]]


class NftTables(_Request, frozen=True):
    pass


class GetSysctl(_Request, frozen=True):
    name: str


class SetSysctl(_Request, frozen=True):
    name: str
    value: str


class Connections(_Request, frozen=True):
    """TCP connections whose own address is in one of ``prefixes``; answered with
    :func:`~warren.linux.tcp_sockets.pack_sockets`.
    """

    prefixes: tuple[str, ...]


class EndConnections(_Request, frozen=True):
    """Those of :func:`~warren.linux.tcp_sockets.pack_sockets`, END_MAX at most; answered with how many were still
    there, or None when this kernel cannot.
    """

    sockets: bytes


Request = (
    OpenSockets
    | MakeTun
    | Namespaces
    | Links
    | SetLink
    | RemoveLink
    | Addresses
    | AddAddress
    | RemoveAddress
    | Routes
    | AddRoute
    | RemoveRoute
    | Rules
    | AddRule
    | RemoveRule
    | PathTo
    | Watch
    | RunNft
    | NftTables
    | GetSysctl
    | SetSysctl
    | Connections
    | EndConnections
)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """``refused``: a sentence; nothing was done. Else ``value`` is what the request asks for."""

    value: msgspec.Raw = msgspec.Raw(b"\xc0")  # None
    refused: str = ""


_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers = msgspec.msgpack.Decoder(Answer)


def pack_frame(message: msgspec.Struct) -> bytes:
    """The frame of a request or an answer. Raises ValueError when it is longer than FRAME_BYTES_MAX."""
    body = msgspec.msgpack.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"{len(body)} bytes are too many for one frame")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def frame_length_untrusted(head: bytes) -> int:
    """How many bytes follow the first :data:`LENGTH_BYTES` of a frame. Raises MalformedPacket for more than a frame
    may have.
    """
    length = int.from_bytes(head, "big")
    if len(head) != LENGTH_BYTES or length > FRAME_BYTES_MAX:
        raise MalformedPacket("a frame of the nest is too long")
    return length


def unpack_request_untrusted(body: bytes) -> Request:
    """Raises MalformedPacket."""
    try:
        return _requests.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not a request to a nest: {error}") from None


def unpack_answer_untrusted(body: bytes) -> Answer:
    """Raises MalformedPacket."""
    try:
        return _answers.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not an answer of a nest: {error}") from None


def value_untrusted(answer: Answer, kind: Any) -> Any:
    """The value of an answer that was not refused, which has the type ``kind``. Raises MalformedPacket."""
    try:
        return msgspec.msgpack.decode(answer.value, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedPacket(f"not an answer of a nest: {error}") from None


def answer_of(value: Any) -> Answer:
    """The answer that brings ``value``."""
    return Answer(value=msgspec.Raw(msgspec.msgpack.encode(value)))


def pack_address(address: Address) -> WireAddress:
    return WireAddress(address.interface, str(address.value), address.lasting)


def address_untrusted(wire: WireAddress) -> Address:
    """Raises MalformedPacket."""
    with _texts():
        return Address(wire.interface, ip_interface(wire.value), wire.lasting)


def pack_route(route: Route) -> WireRoute:
    gateway = None if route.gateway is None else str(route.gateway)
    return WireRoute(str(route.network), route.interface, route.table, gateway, route.mtu, route.protocol, route.local)


def route_untrusted(wire: WireRoute) -> Route:
    """Raises MalformedPacket."""
    with _texts():
        gateway = None if wire.gateway is None else ip_address(wire.gateway)
        network = ip_network(wire.network)
        return Route(network, wire.interface, wire.table, gateway, wire.mtu, wire.protocol, wire.local)


def prefixes_untrusted(texts: Iterable[str]) -> list[IPNetwork]:
    """Raises MalformedPacket."""
    with _texts():
        return [ip_network(text) for text in texts]


@contextlib.contextmanager
def _texts() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise MalformedPacket(f"not an address: {error}") from None
