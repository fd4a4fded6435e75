"""The values of STUN and TURN attributes (RFC 8489 §14, RFC 8656 §18, RFC 8445 §16.1, RFC 5780 §7).

``pack_…`` makes a value, ``unpack_…_untrusted`` reads one from outside and raises MalformedPacket for anything that is
not exactly one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.message import MAGIC_COOKIE

USERNAME_BYTES_MAX: Final = 508  # §14.3: fewer than 509
TEXT_BYTES_MAX: Final = 763  # realm, nonce, software, reason: fewer than 128 characters (§14.8, §14.9, §14.10, §14.14)
UDP: Final = 17  # REQUESTED-TRANSPORT (RFC 8656 §18.8)
CHANNELS: Final = range(0x4000, 0x5000)  # RFC 8656 §12

_IPV4: Final = 1
_IPV6: Final = 2
_IPV4_BYTES: Final = 8
_IPV6_BYTES: Final = 20
_PORT_XOR: Final = MAGIC_COOKIE >> 16

#  0   1        2      4                  8 or 20
#  +---+--------+------+------------------+
#  | 0 | family | port | address          |
#  +---+--------+------+------------------+
_address_head = struct.Struct(">xBH")
_error_head = struct.Struct(">xxBB")
_uint16_rffu = struct.Struct(">Hxx")
_uint16s = struct.Struct(">HH")


class ErrorCode(NamedTuple):
    """``number`` is 300 to 699; ``reason`` is meant for people, and is empty in what Warren sends."""

    number: int
    reason: str


class AddressErrorCode(NamedTuple):
    """Which address family was refused, 4 or 6, and with which error number (RFC 8656 §18.12)."""

    family: int
    number: int


class PasswordAlgorithm(NamedTuple):
    """RFC 8489 §18.5. Neither algorithm known today has parameters."""

    number: int
    parameters: bytes = b""


MD5 = PasswordAlgorithm(1)
SHA256 = PasswordAlgorithm(2)


class ChangeRequest(NamedTuple):
    """From where a discovery server shall answer: another address, another port (RFC 5780 §7.2)."""

    address: bool
    port: bool


def pack_address(address: TransportAddress) -> bytes:
    """MAPPED-ADDRESS, ALTERNATE-SERVER, RESPONSE-ORIGIN, OTHER-ADDRESS (§14.1)."""
    return _address_head.pack(_IPV4 if address.ip.version == 4 else _IPV6, address.port) + address.ip.packed


def unpack_address_untrusted(value: bytes) -> TransportAddress:
    if len(value) == _IPV4_BYTES and value[1] == _IPV4:
        return TransportAddress(IPv4Address(value[4:]), int.from_bytes(value[2:4]))
    if len(value) == _IPV6_BYTES and value[1] == _IPV6:
        return TransportAddress(IPv6Address(value[4:]), int.from_bytes(value[2:4]))
    raise MalformedPacket("not an address of a STUN message")


def pack_xor_address(address: TransportAddress, transaction: bytes) -> bytes:
    """XOR-MAPPED-ADDRESS, XOR-PEER-ADDRESS, XOR-RELAYED-ADDRESS (§14.2)."""
    port = address.port ^ _PORT_XOR
    number = int(address.ip)
    if address.ip.version == 4:
        return _address_head.pack(_IPV4, port) + (number ^ MAGIC_COOKIE).to_bytes(4)
    return _address_head.pack(_IPV6, port) + (number ^ _ipv6_mask(transaction)).to_bytes(16)


def unpack_xor_address_untrusted(value: bytes, transaction: bytes) -> TransportAddress:
    if len(value) == _IPV4_BYTES and value[1] == _IPV4:
        ip: IPv4Address | IPv6Address = IPv4Address(int.from_bytes(value[4:]) ^ MAGIC_COOKIE)
    elif len(value) == _IPV6_BYTES and value[1] == _IPV6:
        ip = IPv6Address(int.from_bytes(value[4:]) ^ _ipv6_mask(transaction))
    else:
        raise MalformedPacket("not an address of a STUN message")
    return TransportAddress(ip, int.from_bytes(value[2:4]) ^ _PORT_XOR)


def _ipv6_mask(transaction: bytes) -> int:
    return MAGIC_COOKIE << 96 | int.from_bytes(transaction)


def pack_error_code(number: int, reason: str = "") -> bytes:
    """ERROR-CODE (§14.8)."""
    return _error_head.pack(number // 100, number % 100) + reason.encode()


def unpack_error_code_untrusted(value: bytes) -> ErrorCode:
    if not 4 <= len(value) <= 4 + TEXT_BYTES_MAX:
        raise MalformedPacket("not an error code of a STUN message")
    hundreds, rest = _error_head.unpack_from(value)
    hundreds &= 7
    if not 3 <= hundreds <= 6 or rest > 99:
        raise MalformedPacket("the error code of a STUN message is not between 300 and 699")
    return ErrorCode(hundreds * 100 + rest, value[4:].decode(errors="replace"))


def pack_address_error_code(error: AddressErrorCode) -> bytes:
    """ADDRESS-ERROR-CODE, without a reason (RFC 8656 §18.12)."""
    family = _IPV4 if error.family == 4 else _IPV6
    return bytes((family, 0, error.number // 100, error.number % 100))


def unpack_address_error_code_untrusted(value: bytes) -> AddressErrorCode:
    number = unpack_error_code_untrusted(value).number
    return AddressErrorCode(_family(value[0]), number)


def pack_uint32(number: int) -> bytes:
    """LIFETIME (seconds), PRIORITY."""
    return number.to_bytes(4)


def unpack_uint32_untrusted(value: bytes) -> int:
    return int.from_bytes(_exactly(value, 4))


def pack_uint64(number: int) -> bytes:
    """ICE-CONTROLLED, ICE-CONTROLLING."""
    return number.to_bytes(8)


def unpack_uint64_untrusted(value: bytes) -> int:
    return int.from_bytes(_exactly(value, 8))


def pack_channel_number(channel: int) -> bytes:
    """CHANNEL-NUMBER (RFC 8656 §18.1)."""
    return _uint16_rffu.pack(channel)


def unpack_channel_number_untrusted(value: bytes) -> int:
    """A channel that may be bound: 0x4000 to 0x4FFF."""
    channel = int.from_bytes(_exactly(value, 4)[:2])
    if channel not in CHANNELS:
        raise MalformedPacket("not a channel number that can be bound")
    return channel


def pack_port(port: int) -> bytes:
    """RESPONSE-PORT (RFC 5780 §7.5)."""
    return _uint16_rffu.pack(port)


def unpack_port_untrusted(value: bytes) -> int:
    port = int.from_bytes(_exactly(value, 4)[:2])
    if not port:
        raise MalformedPacket("nothing can be sent to port 0")
    return port


def unpack_text_untrusted(value: bytes, limit: int = TEXT_BYTES_MAX) -> str:
    """USERNAME, REALM, NONCE, SOFTWARE, ALTERNATE-DOMAIN: UTF-8 of at most ``limit`` bytes (USERNAME:
    ``USERNAME_BYTES_MAX``).
    """
    if len(value) > limit:
        raise MalformedPacket("a text in a STUN message is too long")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise MalformedPacket("a text in a STUN message is not UTF-8") from None


def pack_unknown_attributes(attributes: Iterable[int]) -> bytes:
    """UNKNOWN-ATTRIBUTES (§14.13)."""
    return b"".join(attribute.to_bytes(2) for attribute in attributes)


def unpack_unknown_attributes_untrusted(value: bytes) -> tuple[int, ...]:
    if len(value) & 1:
        raise MalformedPacket("a list of attributes with half an attribute")
    return tuple(int.from_bytes(value[at : at + 2]) for at in range(0, len(value), 2))


def pack_requested_transport(protocol: int = UDP) -> bytes:
    """REQUESTED-TRANSPORT: an IP protocol number (RFC 8656 §18.8)."""
    return bytes((protocol, 0, 0, 0))


def unpack_requested_transport_untrusted(value: bytes) -> int:
    return _exactly(value, 4)[0]


def pack_family(family: int) -> bytes:
    """REQUESTED-ADDRESS-FAMILY, ADDITIONAL-ADDRESS-FAMILY: 4 or 6 (RFC 8656 §18.6, §18.11)."""
    return bytes((_IPV4 if family == 4 else _IPV6, 0, 0, 0))


def unpack_family_untrusted(value: bytes) -> int:
    return _family(_exactly(value, 4)[0])


def pack_even_port(*, reserve_next: bool) -> bytes:
    """EVEN-PORT (RFC 8656 §18.7)."""
    return b"\x80" if reserve_next else b"\0"


def unpack_even_port_untrusted(value: bytes) -> bool:
    """Whether the next port is to be reserved."""
    return bool(_exactly(value, 1)[0] & 0x80)


def pack_change_request(change: ChangeRequest) -> bytes:
    return bytes((0, 0, 0, change.address << 2 | change.port << 1))


def unpack_change_request_untrusted(value: bytes) -> ChangeRequest:
    flags = _exactly(value, 4)[3]
    return ChangeRequest(bool(flags & 4), bool(flags & 2))


def pack_password_algorithm(algorithm: PasswordAlgorithm) -> bytes:
    """PASSWORD-ALGORITHM (§14.12)."""
    return _uint16s.pack(algorithm.number, len(algorithm.parameters)) + algorithm.parameters


def unpack_password_algorithm_untrusted(value: bytes) -> PasswordAlgorithm:
    algorithms = unpack_password_algorithms_untrusted(value)
    if len(algorithms) != 1:
        raise MalformedPacket("not one password algorithm")
    return algorithms[0]


def pack_password_algorithms(algorithms: Iterable[PasswordAlgorithm]) -> bytes:
    """PASSWORD-ALGORITHMS: in the order of preference (§14.11)."""
    packed = b""
    for algorithm in algorithms:
        packed += b"\0" * (-len(packed) & 3) + pack_password_algorithm(algorithm)
    return packed


def unpack_password_algorithms_untrusted(value: bytes) -> tuple[PasswordAlgorithm, ...]:
    algorithms = []
    at = 0
    while at < len(value):
        if at + 4 > len(value):
            raise MalformedPacket("a password algorithm is cut off")
        number, length = _uint16s.unpack_from(value, at)
        end = at + 4 + length
        if end > len(value):
            raise MalformedPacket("a password algorithm is cut off")
        algorithms.append(PasswordAlgorithm(number, value[at + 4 : end]))
        at = end + (-length & 3)
    return tuple(algorithms)


def _exactly(value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise MalformedPacket(f"an attribute of a STUN message has {len(value)} bytes instead of {length}")
    return value


def _family(number: int) -> int:
    if number == _IPV4:
        return 4
    if number == _IPV6:
        return 6
    raise MalformedPacket("an address family of a STUN message is neither IPv4 nor IPv6")
