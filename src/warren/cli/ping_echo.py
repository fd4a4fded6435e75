"""ICMP echo (RFC 792, RFC 4443 §4): the messages, the account of what was sent and came back, and the socket.

A reply is known by its payload, which nobody can guess, so that neither the identifier (the kernel's own on datagram
sockets) nor another ping on this machine matters.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Final, Self

from warren.errors import MalformedPacket, OperationFailed

IPAddress = IPv4Address | IPv6Address

_HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}
_PADDING: Final = b"warren ping ".ljust(32, b"*")
TOKEN_BYTES: Final = 16
_OUTSTANDING_MAX: Final = 1000
"""Of an endless ping only the latest can still be answered."""


def echo_request(version: int, sequence: int, token: bytes) -> bytes:
    """The message. Its checksum is the kernel's for ICMPv6 and on datagram sockets; a raw IPv4 socket needs it."""
    body = token + sequence.to_bytes(4, "big") + _PADDING
    header = _HEADER.pack(_REQUEST[version], 0, 0, 0, sequence & 0xFFFF)
    if version == 6:
        return header + body
    checksum = _checksum(header + body)
    return _HEADER.pack(_REQUEST[version], 0, checksum, 0, sequence & 0xFFFF) + body


def echo_reply_untrusted(version: int, data: bytes, token: bytes, *, with_ip_header: bool = False) -> int:
    """The sequence number of the request that ``data`` answers. Raises MalformedPacket for everything else.

    ``with_ip_header``: as a raw IPv4 socket gives it.
    """
    if with_ip_header:
        if len(data) < 20 or data[0] >> 4 != 4:
            raise MalformedPacket("no IPv4 packet")
        data = data[4 * (data[0] & 15) :]
    if len(data) < _HEADER.size + TOKEN_BYTES + 4:
        raise MalformedPacket("too short for an answer")
    kind = data[0]
    if kind != _REPLY[version]:
        raise MalformedPacket(f"an ICMP message of type {kind}")
    body = data[_HEADER.size :]
    if body[:TOKEN_BYTES] != token:
        raise MalformedPacket("the answer to somebody else")
    return int.from_bytes(body[TOKEN_BYTES : TOKEN_BYTES + 4])


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(slots=True)
class Account:
    """What was sent, and which answers came. Times are seconds of one monotonic clock."""

    sent: int = 0
    rtts_ms: list[float] = field(default_factory=list)
    _open: dict[int, float] = field(default_factory=dict)

    def send(self, now: float) -> int:
        """The sequence number (from 1) of a request that goes out now."""
        self.sent += 1
        self._open[self.sent] = now
        if len(self._open) > _OUTSTANDING_MAX:
            del self._open[next(iter(self._open))]
        return self.sent

    def receive(self, sequence: int, now: float) -> float | None:
        """The round trip (ms) of an answer; None for a second one, or to nothing that was sent."""
        at = self._open.pop(sequence, None)
        if at is None:
            return None
        self.rtts_ms.append((now - at) * 1000)
        return self.rtts_ms[-1]

    @property
    def received(self) -> int:
        return len(self.rtts_ms)

    @property
    def waiting(self) -> bool:
        """Whether an answer is still missing."""
        return bool(self._open)

    @property
    def lost_percent(self) -> float:
        return 100 * (self.sent - self.received) / self.sent if self.sent else 0.0


def icmp_of(address: IPAddress) -> tuple[int, int]:
    """Family and protocol of a socket for echoes to ``address``."""
    if address.version == 4:
        return socket.AF_INET, socket.IPPROTO_ICMP
    return socket.AF_INET6, socket.IPPROTO_ICMPV6


class EchoSocket:
    """Sends and receives echoes to one address: a datagram ICMP socket where the host allows it, else a raw one."""

    def __init__(self, address: IPAddress, token: bytes, ready: socket.socket | None = None) -> None:
        """``ready`` is used if given, a datagram ICMP socket from elsewhere. Raises OperationFailed when this user may
        have neither.
        """
        self._version = address.version
        self._token = token
        self._target = (str(address), 0)
        self._raw = False
        if ready is not None:
            self._socket = ready
            return
        family, protocol = icmp_of(address)
        try:
            self._socket = socket.socket(family, socket.SOCK_DGRAM, protocol)
        except OSError:
            try:
                self._socket = socket.socket(family, socket.SOCK_RAW, protocol)
            except OSError as error:
                raise OperationFailed(
                    f"this user may not send pings ({error.strerror}): run it as root, or allow it with "
                    "`sysctl -w net.ipv4.ping_group_range='0 2147483647'`"
                ) from None
            self._raw = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, sequence: int) -> str:
        """Why the host did not take it; empty: it is on its way."""
        try:
            self._socket.sendto(echo_request(self._version, sequence, self._token), self._target)
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def receive(self, within_s: float) -> int | None:
        """The sequence number of the next answer; None: something else came, or nothing in time."""
        self._socket.settimeout(max(within_s, 0.0) or 1e-6)
        try:
            data, source = self._socket.recvfrom(2048)
        except (TimeoutError, BlockingIOError):
            return None
        except OSError:
            return None  # an ICMP error for an earlier request: that one stays unanswered
        if source[0] != self._target[0]:
            return None
        try:
            return echo_reply_untrusted(
                self._version, data, self._token, with_ip_header=self._raw and self._version == 4
            )
        except MalformedPacket:
            return None
