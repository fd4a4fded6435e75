"""PCP on the wire (RFC 6887 §7, §11.1, §12.1, §14). Integers are big-endian, addresses 16 bytes (IPv4 ones mapped).

::

    request   2 │ opcode     │ 0:16         │ lifetime:32 │ client address:128            │ body │ options
    answer    2 │ 128+opcode │ 0:8 result:8 │ lifetime:32 │ epoch:32 │ 0:96               │ body │ options

    MAP       nonce:96 │ protocol:8 │ 0:24 │ internal port:16 │ external port:16 │ external address:128
    PEER      as MAP │ peer's port:16 │ 0:16 │ peer's address:128
    option    code:8 │ 0:8 │ length:16 │ data │ padding to 4
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from warren.errors import MalformedPacket
from warren.model.ip import unmapped
from warren.model.tunnel import IPAddress, TransportAddress

VERSION: Final = 2
BYTES_MAX: Final = 1100  # RFC 6887 §7
NONCE_BYTES: Final = 12
PROTOCOL_UDP: Final = 17
_OPTIONS_MAX: Final = 16  # there are three kinds

_IS_ANSWER: Final = 128
_REQUEST: Final = struct.Struct("!BBHI16s")
_ANSWER: Final = struct.Struct("!BBBBII12x")
_MAP: Final = struct.Struct("!12sB3xHH16s")
_REMOTE: Final = struct.Struct("!H2x16s")
_OPTION: Final = struct.Struct("!BxH")


class Opcode(enum.IntEnum):
    ANNOUNCE = 0
    MAP = 1
    PEER = 2


class Option(enum.IntEnum):
    THIRD_PARTY = 1
    PREFER_FAILURE = 2
    FILTER = 3


class Result(enum.IntEnum):
    """RFC 6887 §7.4."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


_SENTENCES: Final = {
    Result.UNSUPP_VERSION: "does not speak this version of PCP",
    Result.NOT_AUTHORIZED: "does not allow it",
    Result.UNSUPP_OPCODE: "does not map ports by PCP",
    Result.NETWORK_FAILURE: "has no connection",
    Result.NO_RESOURCES: "has no room left",
    Result.UNSUPP_PROTOCOL: "does not map UDP",
    Result.USER_EX_QUOTA: "gives this host no more mappings",
    Result.CANNOT_PROVIDE_EXTERNAL: "cannot give that external port or address",
    Result.ADDRESS_MISMATCH: "sees this host at another address: there is a NAT in between",
}


def why(result: int) -> str:
    """What a refusal means; completes the sentence "the gateway …"."""
    known = Result(result) if result in Result._value2member_map_ else None
    return (known and _SENTENCES.get(known)) or f"refuses with PCP result {result}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """The body of MAP, and with ``remote`` that of PEER."""

    nonce: bytes
    protocol: int
    internal_port: int
    external: TransportAddress
    """Suggested in a request, assigned in an answer."""
    remote: TransportAddress | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    opcode: int
    result: int
    lifetime_s: int
    """Of the mapping; of the error, if it is one."""
    epoch_s: int
    mapping: Mapping | None
    """None with ANNOUNCE and unknown opcodes."""
    options: tuple[tuple[int, bytes], ...] = ()


def pack_announce_request(client: IPAddress) -> bytes:
    """Asks for nothing but an answer, which has the epoch in it (RFC 6887 §14.1)."""
    return _REQUEST.pack(VERSION, Opcode.ANNOUNCE, 0, 0, _pack_address(client))


def pack_request(
    client: IPAddress, mapping: Mapping, lifetime_s: int, options: Iterable[tuple[int, bytes]] = ()
) -> bytes:
    """MAP, or PEER when ``mapping`` has a remote. ``client`` is the address that the request is sent from.

    A lifetime of 0 removes the mapping. Raises ValueError for internal port 0 ("all ports", RFC 6887 §11.1), for a
    nonce of another length, and when a mapping is asked for without a port to prefer.
    """
    if len(mapping.nonce) != NONCE_BYTES or not 1 <= mapping.internal_port <= 65_535:
        raise ValueError(f"port {mapping.internal_port} with a nonce of {len(mapping.nonce)} bytes cannot be mapped")
    if lifetime_s and not 1 <= mapping.external.port <= 65_535:
        raise ValueError(f"external port {mapping.external.port} cannot be asked for")
    remote = mapping.remote
    parts = [
        _REQUEST.pack(VERSION, Opcode.PEER if remote else Opcode.MAP, 0, lifetime_s, _pack_address(client)),
        _MAP.pack(
            mapping.nonce,
            mapping.protocol,
            mapping.internal_port,
            mapping.external.port,
            _pack_address(mapping.external.ip),
        ),
    ]
    if remote is not None:
        parts.append(_REMOTE.pack(remote.port, _pack_address(remote.ip)))
    parts += [_OPTION.pack(code, len(data)) + data + bytes(-len(data) % 4) for code, data in options]
    return b"".join(parts)


def unpack_answer_untrusted(data: bytes) -> Answer:
    """Raises MalformedPacket; whose answer it is remains to be compared: nonce, ports, protocol."""
    if not _ANSWER.size <= len(data) <= BYTES_MAX or len(data) % 4:
        raise MalformedPacket(f"a PCP answer of {len(data)} bytes")
    version, operation, _, result, lifetime_s, epoch_s = _ANSWER.unpack_from(data)
    if version != VERSION or not operation & _IS_ANSWER:
        raise MalformedPacket(f"PCP version {version}, operation {operation}")
    opcode = operation & ~_IS_ANSWER
    at, mapping = _ANSWER.size, None
    if opcode in {Opcode.MAP, Opcode.PEER}:
        mapping, at = _unpack_mapping_untrusted(data, at, has_remote=opcode == Opcode.PEER)
    options = () if result and mapping is None else _unpack_options_untrusted(data, at)
    return Answer(opcode, result, lifetime_s, epoch_s, mapping, options)


def is_nat_pmp_untrusted(data: bytes) -> bool:
    """Whether an answer to PCP comes from a gateway that only knows NAT-PMP (RFC 6887 §9, RFC 6886 §3.5)."""
    return len(data) >= 8 and data[0] == 0 and data[1] >= _IS_ANSWER


def _unpack_mapping_untrusted(data: bytes, at: int, *, has_remote: bool) -> tuple[Mapping, int]:
    end = at + _MAP.size + (_REMOTE.size if has_remote else 0)
    if len(data) < end:
        raise MalformedPacket(f"a PCP mapping of {len(data)} bytes")
    nonce, protocol, internal_port, external_port, external = _MAP.unpack_from(data, at)
    remote = None
    if has_remote:
        remote_port, remote_address = _REMOTE.unpack_from(data, at + _MAP.size)
        remote = TransportAddress(_unpack_address(remote_address), remote_port)
    address = TransportAddress(_unpack_address(external), external_port)
    return Mapping(nonce, protocol, internal_port, address, remote), end


def _unpack_options_untrusted(data: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    options: list[tuple[int, bytes]] = []
    while at < len(data):
        if len(data) - at < _OPTION.size or len(options) >= _OPTIONS_MAX:
            raise MalformedPacket("PCP options that do not end")
        code, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if length > len(data) - at:
            raise MalformedPacket(f"a PCP option of {length} bytes where {len(data) - at} are left")
        options.append((code, bytes(data[at : at + length])))
        at += length + -length % 4
    return tuple(options)


def _pack_address(address: IPAddress) -> bytes:
    if isinstance(address, IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed  # RFC 6887 §5
    return address.packed


def _unpack_address(packed: bytes) -> IPAddress:
    return unmapped(IPv6Address(packed))
