"""The cross-platform userspace API of WireGuard as bytes: what ``wg`` says to a tunnel, and what it hears.

Source: https://www.wireguard.com/xplatform/. A request is ``get=1`` or ``set=1`` with ``key=value`` lines, ended by
an empty line; an answer ends with ``errno=N`` and an empty line. Ours are the request ``statistics=1`` (counters by
name, in the same form), the keys ``keep_sessions`` and ``renamed_from`` of ``set``, ``handshake_rtt_nsec`` of ``get``,
and in both ``source``, ``interface``, ``channel`` and ``socket`` (a peer's :class:`~warren.model.tunnel.Way`) and
``pinned``. ``wg`` passes over keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from warren.errors import MalformedPacket
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import (
    PLAIN,
    IPNetwork,
    PeerChange,
    PeerStatus,
    TransportAddress,
    TunnelChange,
    TunnelStatus,
    Way,
)

REQUEST_BYTES_MAX = 16 << 20
"""100,000 peers with an allowed IP each; more is an error, not a reason to grow."""

ZoneIndex = Callable[[str], int]
"""Turns the zone of a link-local address ("eth0", "3") into an interface index; raises OSError when there is none."""


class InvalidRequest(MalformedPacket):
    """A request that parses as text but not as configuration; the answer is EINVAL."""


@dataclass(frozen=True, slots=True)
class GetRequest:
    """``get=1``: the whole configuration and its counters."""


@dataclass(frozen=True, slots=True)
class StatisticsRequest:
    """``statistics=1``: the data plane's counters."""


@dataclass(frozen=True, slots=True)
class SetRequest:
    """``set=1``."""

    change: TunnelChange


Request = GetRequest | SetRequest | StatisticsRequest


def unpack_request_untrusted(text: bytes, zone_index: ZoneIndex) -> Request:
    """Parse one request without its closing empty line. Raises InvalidRequest, which names the line but quotes no
    value.
    """
    try:
        lines = text.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise InvalidRequest("a request is ASCII text") from None
    match lines[0], lines[1:]:
        case "get=1", []:
            return GetRequest()
        case "statistics=1", []:
            return StatisticsRequest()
        case "set=1", rest:
            return SetRequest(_unpack_change(rest, zone_index))
    raise InvalidRequest("a request begins with get=1, set=1 or statistics=1")


def _unpack_change(lines: list[str], zone_index: ZoneIndex) -> TunnelChange:
    tunnel: dict[str, Any] = {}
    peers: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 2):
        key, equals, value = line.partition("=")
        if not equals:
            raise InvalidRequest(f"line {number}: not key=value")
        try:
            if key == "public_key":
                peers.append({"public_key": PublicKey.from_hex(value)})
            elif peers:
                _set_peer(peers[-1], key, value, zone_index)
            else:
                _set_tunnel(tunnel, key, value)
        except (ValueError, OSError):
            raise InvalidRequest(f"line {number}: {key!r} is unknown or has an unusable value") from None
    return TunnelChange(**tunnel, peers=tuple(_peer_change(peer) for peer in peers))


def _peer_change(peer: dict[str, Any]) -> PeerChange:
    for name in ("allowed_ips", "removed_allowed_ips"):
        peer[name] = tuple(peer.get(name, ()))
    return PeerChange(**peer)


def _set_tunnel(tunnel: dict[str, Any], key: str, value: str) -> None:
    match key:
        case "private_key":
            tunnel["private_key"] = PrivateKey.from_hex(value)
        case "listen_port":
            tunnel["listen_port"] = _number(value, 0xFFFF)
        case "fwmark":
            tunnel["fwmark"] = _number(value, 0xFFFFFFFF)
        case "replace_peers" | "keep_sessions":
            tunnel[key] = _true(value)
        case _:
            raise ValueError(key)


def _set_peer(peer: dict[str, Any], key: str, value: str, zone_index: ZoneIndex) -> None:
    match key:
        case "remove" | "update_only":
            peer[key] = _true(value)
        case "pinned":
            peer[key] = _boolean(value)
        case "source" | "interface" | "channel" | "socket":
            peer["way"] = _extended(peer.get("way", PLAIN), key, value)
        case "renamed_from":
            peer[key] = PublicKey.from_hex(value)
        case "preshared_key":
            peer[key] = PresharedKey.from_hex(value)
        case "endpoint":
            peer[key] = unpack_endpoint(value, zone_index)
        case "persistent_keepalive_interval":
            peer["persistent_keepalive_s"] = _number(value, 0xFFFF)
        case "replace_allowed_ips":
            # The lines are orders in sequence: what was named before this one is forgotten too.
            peer["replace_allowed_ips"] = _true(value)
            peer["allowed_ips"], peer["removed_allowed_ips"] = [], []
        case "allowed_ip":
            name = "removed_allowed_ips" if value.startswith("-") else "allowed_ips"
            peer.setdefault(name, []).append(_network(value.removeprefix("-")))
        case "protocol_version":
            if value != "1":
                raise ValueError(value)
        case _:
            raise ValueError(key)


def _number(value: str, most: int) -> int:
    if not value.isdigit() or len(value) > len(str(most)) or int(value) > most:
        raise ValueError(value)
    return int(value)


def _true(value: str) -> bool:
    if value != "true":
        raise ValueError(value)
    return True


def _boolean(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(value)
    return value == "true"


def _extended(way: Way, key: str, value: str) -> Way:
    """``way`` with one of its fields set."""
    match key:
        case "source":
            return replace(way, source=ip_address(value))
        case "interface":
            return replace(way, interface=_number(value, 0x7FFFFFFF))
        case "channel":
            return replace(way, channel=_number(value, 0xFFFF))
    return replace(way, socket=_number(value, 0xFFFF))


def _way_lines(way: Way) -> Iterator[str]:
    if way.source is not None:
        yield f"source={way.source}"
    if way.interface:
        yield f"interface={way.interface}"
    if way.channel:
        yield f"channel={way.channel}"
    if way.socket:
        yield f"socket={way.socket}"


def _network(value: str) -> IPNetwork:
    if "/" not in value:
        raise ValueError(value)
    return ip_network(value, strict=False)


def unpack_endpoint(text: str, zone_index: ZoneIndex) -> TransportAddress:
    """Parse ``192.0.2.1:51820`` or ``[2001:db8::1%zone]:51820``. Raises ValueError or OSError (no such zone)."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host, _, zone = host.removeprefix("[").removesuffix("]").partition("%")
    ip = ip_address(host)
    if bracketed != isinstance(ip, IPv6Address):
        raise ValueError(text)
    return TransportAddress(ip, _number(port, 0xFFFF), zone_index(zone) if zone else 0)


def pack_change(change: TunnelChange) -> bytes:
    """The ``set`` request that makes ``change``, closing empty line included."""
    return "\n".join(["set=1", *_change_lines(change), "", ""]).encode("ascii")


def _change_lines(change: TunnelChange) -> Iterator[str]:
    if change.private_key is not None:
        yield f"private_key={change.private_key.hex}"
    if change.keep_sessions:
        yield "keep_sessions=true"
    if change.listen_port is not None:
        yield f"listen_port={change.listen_port}"
    if change.fwmark is not None:
        yield f"fwmark={change.fwmark}"
    if change.replace_peers:
        yield "replace_peers=true"
    for peer in change.peers:
        yield from _peer_change_lines(peer)


def _peer_change_lines(peer: PeerChange) -> Iterator[str]:
    yield f"public_key={peer.public_key.hex}"
    if peer.remove:
        yield "remove=true"
    if peer.update_only:
        yield "update_only=true"
    if peer.renamed_from is not None:
        yield f"renamed_from={peer.renamed_from.hex}"
    if peer.preshared_key is not None:
        yield f"preshared_key={peer.preshared_key.hex}"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    if peer.way is not None:
        yield from _way_lines(peer.way) if peer.way != PLAIN else ("channel=0",)
    if peer.pinned is not None:
        yield f"pinned={str(peer.pinned).lower()}"
    if peer.persistent_keepalive_s is not None:
        yield f"persistent_keepalive_interval={peer.persistent_keepalive_s}"
    if peer.replace_allowed_ips:
        yield "replace_allowed_ips=true"
    for network in peer.removed_allowed_ips:
        yield f"allowed_ip=-{network}"
    for network in peer.allowed_ips:
        yield f"allowed_ip={network}"


def pack_status(status: TunnelStatus) -> bytes:
    """The answer to ``get=1``. It carries the private key: it goes to the owner of the socket only."""
    return "\n".join([*_status_lines(status), "errno=0", "", ""]).encode("ascii")


def _status_lines(status: TunnelStatus) -> Iterator[str]:
    if status.private_key is not None:
        yield f"private_key={status.private_key.hex}"
    if status.listen_port:
        yield f"listen_port={status.listen_port}"
    if status.fwmark:
        yield f"fwmark={status.fwmark}"
    for peer in status.peers:
        yield f"public_key={peer.public_key.hex}"
        yield f"preshared_key={peer.preshared_key.hex if peer.preshared_key else '00' * 32}"
        yield "protocol_version=1"
        if peer.endpoint is not None:
            yield f"endpoint={peer.endpoint}"
        yield from _way_lines(peer.way)
        if peer.pinned:
            yield "pinned=true"
        yield f"last_handshake_time_sec={peer.last_handshake_ns // 10**9}"
        yield f"last_handshake_time_nsec={peer.last_handshake_ns % 10**9}"
        yield f"tx_bytes={peer.tx_bytes}"
        yield f"rx_bytes={peer.rx_bytes}"
        if peer.handshake_rtt_ns:
            yield f"handshake_rtt_nsec={peer.handshake_rtt_ns}"
        yield f"persistent_keepalive_interval={peer.persistent_keepalive_s}"
        for network in peer.allowed_ips:
            yield f"allowed_ip={network}"


def pack_statistics(statistics: Mapping[str, int]) -> bytes:
    """The answer to ``statistics=1``."""
    return "\n".join([*(f"{name}={count}" for name, count in sorted(statistics.items())), "errno=0", "", ""]).encode(
        "ascii"
    )


def pack_errno(number: int) -> bytes:
    """The answer that only says how it went: 0, or an errno, which travels negative as the kernel gives it."""
    return b"errno=%d\n\n" % -number


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, split into its lines; ``errno`` 0 means done, else it is positive as in :mod:`errno`."""

    errno: int
    pairs: tuple[tuple[str, str], ...]


def unpack_answer_untrusted(text: bytes) -> Answer:
    """Parse an answer without its closing empty line. Raises MalformedPacket."""
    try:
        pairs = [tuple(line.split("=", 1)) for line in text.decode("ascii").split("\n")]
        if any(len(pair) != 2 for pair in pairs) or pairs[-1][0] != "errno":
            raise MalformedPacket("an answer is key=value lines and ends with errno")
        return Answer(abs(int(pairs[-1][1])), tuple((key, value) for key, value in pairs[:-1]))
    except (UnicodeDecodeError, ValueError):
        raise MalformedPacket("an answer is ASCII text that ends with errno=NUMBER") from None


def unpack_status_untrusted(answer: Answer, zone_index: ZoneIndex) -> TunnelStatus:
    """The status carried by the answer to ``get=1``; keys we do not know are passed over. Raises MalformedPacket."""
    tunnel: dict[str, Any] = {"private_key": None, "listen_port": 0, "fwmark": 0}
    peers: list[dict[str, Any]] = []
    try:
        for key, value in answer.pairs:
            if key == "public_key":
                peers.append({"public_key": PublicKey.from_hex(value), "allowed_ips": []})
            elif not peers:
                _read_tunnel(tunnel, key, value)
            else:
                _read_peer(peers[-1], key, value, zone_index)
    except (ValueError, OSError):
        raise MalformedPacket("the answer holds an unusable value") from None
    return TunnelStatus(**tunnel, peers=tuple(_peer_status(peer) for peer in peers))


def _read_tunnel(tunnel: dict[str, Any], key: str, value: str) -> None:
    if key == "private_key":
        tunnel[key] = PrivateKey.from_hex(value)
    elif key in ("listen_port", "fwmark"):
        tunnel[key] = int(value)


def _read_peer(peer: dict[str, Any], key: str, value: str, zone_index: ZoneIndex) -> None:
    match key:
        case "preshared_key":
            psk = PresharedKey.from_hex(value)
            peer[key] = None if psk.is_zero else psk
        case "endpoint":
            peer[key] = unpack_endpoint(value, zone_index)
        case "source" | "interface" | "channel" | "socket":
            peer["way"] = _extended(peer.get("way", PLAIN), key, value)
        case "pinned":
            peer[key] = _boolean(value)
        case "allowed_ip":
            peer["allowed_ips"].append(ip_network(value))
        case _:
            if value.isdigit():
                peer[key] = int(value)


def _peer_status(peer: dict[str, Any]) -> PeerStatus:
    return PeerStatus(
        public_key=peer["public_key"],
        preshared_key=peer.get("preshared_key"),
        endpoint=peer.get("endpoint"),
        allowed_ips=tuple(peer["allowed_ips"]),
        persistent_keepalive_s=peer.get("persistent_keepalive_interval", 0),
        last_handshake_ns=peer.get("last_handshake_time_sec", 0) * 10**9 + peer.get("last_handshake_time_nsec", 0),
        tx_bytes=peer.get("tx_bytes", 0),
        rx_bytes=peer.get("rx_bytes", 0),
        handshake_rtt_ns=peer.get("handshake_rtt_nsec", 0),
        way=peer.get("way", PLAIN),
        pinned=peer.get("pinned", False),
    )
