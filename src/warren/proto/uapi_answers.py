"""The answers of the userspace API: packed by a tunnel, read by who asked it (:mod:`warren.proto.uapi`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from warren.errors import MalformedPacket
from warren.identity.keys import PresharedKey, PrivateKey, PublicKey
from warren.model.tunnel import PLAIN, PeerStatus, TunnelStatus
from warren.proto.uapi_fields import ZoneIndex, boolean, extended, unpack_endpoint, way_lines


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
        yield from way_lines(peer.way)
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
            peer["way"] = extended(peer.get("way", PLAIN), key, value)
        case "pinned":
            peer[key] = boolean(value)
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
