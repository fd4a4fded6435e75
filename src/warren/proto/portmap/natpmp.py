"""NAT-PMP on the wire (RFC 6886 §3). Integers are big-endian.

::

    external address   0 │ 0   → 0 │ 128 │ result:16 │ epoch:32 │ IPv4 address:32
    map UDP            0 │ 1 │ 0:16 │ internal:16 │ external:16 │ lifetime:32
                               → 0 │ 129 │ result:16 │ epoch:32 │ internal:16 │ external:16 │ lifetime:32
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from warren.errors import MalformedPacket

VERSION: Final = 0
PORT: Final = 5351
ANNOUNCE_PORT: Final = 5350
"""Where gateways tell all hosts (224.0.0.1) of a new address or a restart (RFC 6886 §3.2.1, RFC 6887 §14.1)."""

_OP_EXTERNAL_ADDRESS, _OP_MAP_UDP, _IS_ANSWER = 0, 1, 128
_MAP: Final = struct.Struct("!BBHHHI")
_ANSWER: Final = struct.Struct("!BBHI")
_MAPPED: Final = struct.Struct("!HHI")

RESULTS: Final = {
    1: "does not speak this version",
    2: "does not allow it",
    3: "has no connection",
    4: "has no room left",
    5: "does not know the request",
}
"""RFC 6886 §3.5, each completing "the gateway …"."""


@dataclass(frozen=True, slots=True)
class ExternalAddress:
    epoch_s: int
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Mapping:
    epoch_s: int
    internal_port: int
    external_port: int
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class Refused:
    epoch_s: int
    operation: int
    """Of the request: 0 external address, 1 map UDP."""
    result: int
    """Never 0."""

    @property
    def why(self) -> str:
        return RESULTS.get(self.result, f"refuses with NAT-PMP result {self.result}")


Answer = ExternalAddress | Mapping | Refused


def pack_external_address_request() -> bytes:
    return bytes((VERSION, _OP_EXTERNAL_ADDRESS))


def pack_map_request(internal_port: int, external_port: int, lifetime_s: int) -> bytes:
    """For UDP. A lifetime of 0 removes the mapping, and then the external port is 0 (RFC 6886 §3.4).

    Raises ValueError for internal port 0, which would remove every mapping of this host, and for a mapping of port 0.
    """
    if not 1 <= internal_port <= 65_535 or not (1 <= external_port <= 65_535 or lifetime_s == 0 == external_port):
        raise ValueError(f"ports {internal_port} and {external_port} cannot be mapped")
    return _MAP.pack(VERSION, _OP_MAP_UDP, 0, internal_port, external_port, lifetime_s)


def unpack_answer_untrusted(data: bytes) -> Answer:
    """Raises MalformedPacket."""
    if len(data) < _ANSWER.size:
        raise MalformedPacket(f"a NAT-PMP answer of {len(data)} bytes")
    version, operation, result, epoch_s = _ANSWER.unpack_from(data)
    if version != VERSION or operation not in {_IS_ANSWER, _IS_ANSWER | _OP_MAP_UDP}:
        raise MalformedPacket(f"NAT-PMP version {version}, operation {operation}")
    if result != 0:
        return Refused(epoch_s, operation & ~_IS_ANSWER, result)
    body = data[_ANSWER.size :]
    if operation == _IS_ANSWER:
        if len(body) != 4:
            raise MalformedPacket(f"a NAT-PMP address of {len(body)} bytes")
        return ExternalAddress(epoch_s, IPv4Address(body))
    if len(body) != _MAPPED.size:
        raise MalformedPacket(f"a NAT-PMP mapping of {len(body)} bytes")
    internal_port, external_port, lifetime_s = _MAPPED.unpack(body)
    return Mapping(epoch_s, internal_port, external_port, lifetime_s)
