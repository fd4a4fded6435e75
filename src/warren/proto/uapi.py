"""The cross-platform userspace API of WireGuard as bytes: what ``wg`` says to a tunnel, and what it hears.

Source: https://www.wireguard.com/xplatform/. A request is ``get=1`` or ``set=1`` with ``key=value`` lines, ended by
an empty line; an answer ends with ``errno=N`` and an empty line. Ours are the request ``statistics=1`` (counters by
name, in the same form), the keys ``keep_sessions`` and ``renamed_from`` of ``set``, ``handshake_rtt_nsec`` of ``get``,
and in both ``source``, ``interface``, ``channel`` and ``socket`` (a peer's :class:`~warren.model.tunnel.Way`) and
``pinned``. ``wg`` passes over keys that it does not know.

Requests are here, answers in :mod:`~warren.proto.uapi_answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from warren.errors import MalformedPacket
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PLAIN, IPNetwork, PeerChange, TunnelChange
from warren.proto.uapi_fields import ZoneIndex, boolean, extended, number, unpack_endpoint, way_lines

REQUEST_BYTES_MAX = 16 << 20
"""100,000 peers with an allowed IP each; more is an error, not a reason to grow."""


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
    for place, line in enumerate(lines, 2):
        key, equals, value = line.partition("=")
        if not equals:
            raise InvalidRequest(f"line {place}: not key=value")
        try:
            if key == "public_key":
                peers.append({"public_key": PublicKey.from_hex(value)})
            elif peers:
                _set_peer(peers[-1], key, value, zone_index)
            else:
                _set_tunnel(tunnel, key, value)
        except (ValueError, OSError):
            raise InvalidRequest(f"line {place}: {key!r} is unknown or has an unusable value") from None
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
            tunnel["listen_port"] = number(value, 0xFFFF)
        case "fwmark":
            tunnel["fwmark"] = number(value, 0xFFFFFFFF)
        case "replace_peers" | "keep_sessions":
            tunnel[key] = _true(value)
        case _:
            raise ValueError(key)


def _set_peer(peer: dict[str, Any], key: str, value: str, zone_index: ZoneIndex) -> None:
    match key:
        case "remove" | "update_only":
            peer[key] = _true(value)
        case "pinned":
            peer[key] = boolean(value)
        case "source" | "interface" | "channel" | "socket":
            peer["way"] = extended(peer.get("way", PLAIN), key, value)
        case "renamed_from":
            peer[key] = PublicKey.from_hex(value)
        case "preshared_key":
            peer[key] = PresharedKey.from_hex(value)
        case "endpoint":
            peer[key] = unpack_endpoint(value, zone_index)
        case "persistent_keepalive_interval":
            peer["persistent_keepalive_s"] = number(value, 0xFFFF)
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


def _true(value: str) -> bool:
    if value != "true":
        raise ValueError(value)
    return True


def _network(value: str) -> IPNetwork:
    if "/" not in value:
        raise ValueError(value)
    return ip_network(value, strict=False)


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
        yield from way_lines(peer.way) if peer.way != PLAIN else ("channel=0",)
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
