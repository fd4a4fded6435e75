"""What runs on the hosts: TURN clients and peers that send as fast as they can, and count what arrives.

They send in trains (``UDP_SEGMENT``), as Warren's nodes do, or in single datagrams, as other programs do. Setting up
is the same for every relay: long-term credentials, one channel.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from warren.errors import OperationFailed
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    pack_channel_number,
    pack_requested_transport,
    pack_xor_address,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.credentials import long_term_key
from warren.proto.stun.message import Attribute, Class, Method, decode_untrusted, encode

USER, PASSWORD = "bench", "bench-password"
CHANNEL = 0x4000
PORT = 3478
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_BUFFER_BYTES = 7 << 20
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32
_SILENCE_S = 0.5
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Sent:
    datagrams: int


@dataclass(frozen=True, slots=True)
class Counted:
    datagrams: int
    payload_bytes: int
    seconds: float
    """From the first to the last datagram."""


def open_socket(host: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for forced, polite in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER_BYTES)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, polite, _BUFFER_BYTES)
    sock.bind((host, port))
    return sock


class TurnSession:
    """An allocation with one channel, over one UDP socket. Raises OperationFailed when the relay refuses."""

    def __init__(self, host: str, server: str) -> None:
        self.sock = open_socket(host)
        self.sock.connect((server, PORT))
        self._realm = self._nonce = b""
        transport = (int(Attribute.REQUESTED_TRANSPORT), pack_requested_transport())
        answer = self._ask(Method.ALLOCATE, [transport])
        relayed = answer.get(Attribute.XOR_RELAYED_ADDRESS) or b""
        self.relayed = unpack_xor_address_untrusted(relayed, answer.transaction)

    def bind(self, peer: TransportAddress) -> None:
        transaction = os.urandom(12)
        number = (int(Attribute.CHANNEL_NUMBER), pack_channel_number(CHANNEL))
        self._ask(
            Method.CHANNEL_BIND,
            [number, (int(Attribute.XOR_PEER_ADDRESS), pack_xor_address(peer, transaction))],
            transaction,
        )

    def close(self) -> None:
        """Give the allocation up."""
        self._ask(Method.REFRESH, [(int(Attribute.LIFETIME), bytes(4))])
        self.sock.close()

    def _ask(self, method: Method, attributes: list[tuple[int, bytes]], transaction: bytes = b""):  # type: ignore[no-untyped-def]
        transaction = transaction or os.urandom(12)
        self.sock.settimeout(0.5)
        for _ in range(10):
            listed = list(attributes)
            key = None
            if self._nonce:
                listed += [
                    (int(Attribute.USERNAME), USER.encode()),
                    (int(Attribute.REALM), self._realm),
                    (int(Attribute.NONCE), self._nonce),
                ]
                key = long_term_key(USER, self._realm.decode(), PASSWORD, sha256=False)
            self.sock.send(encode(method, Class.REQUEST, transaction, listed, key=key, sha256=False, sha1=True))
            try:
                while (data := self.sock.recv(65536))[:2] >= b"\x40":  # data of a flood that ends
                    pass
            except TimeoutError:
                continue
            answer = decode_untrusted(data)
            if answer.transaction != transaction:
                continue
            if answer.cls is Class.SUCCESS:
                return answer
            self._realm, self._nonce = answer.get(Attribute.REALM) or b"", answer.get(Attribute.NONCE) or b""
            if not self._nonce:
                break
        raise OperationFailed(f"the relay refuses {method.name}")


def flood(sock: socket.socket, datagram: bytes, per_train: int, seconds: float) -> Sent:
    """Send the same datagram over and over, ``per_train`` in a call."""
    train = datagram * per_train
    if per_train > 1:
        sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, len(datagram))
    sock.settimeout(None)
    send, clock = sock.send, time.monotonic
    sent = 0
    end = clock() + seconds
    while clock() < end:
        for _ in range(8):
            try:
                send(train)
            except (ConnectionRefusedError, BlockingIOError):
                continue
            sent += per_train
    sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)
    return Sent(sent)


def count(sock: socket.socket, overhead: int) -> Counted:
    """Count until it is silent. ``overhead`` bytes of each datagram are not payload."""
    sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
    sock.settimeout(_PATIENCE_S)
    buffer = bytearray(1 << 16)
    total = datagrams = 0
    first = last = 0.0
    while True:
        try:
            length, ancillary, _, _ = sock.recvmsg_into((buffer,), 64)
        except TimeoutError:
            break
        last = time.monotonic()
        if not first:
            first = last
            sock.settimeout(_SILENCE_S)
        stride = struct.unpack("=i", ancillary[0][2])[0] if ancillary else length
        arrived = -(-length // stride)
        datagrams += arrived
        total += length - arrived * overhead
    return Counted(datagrams, total, last - first)


# Each pair of functions runs at once on two hosts.


def client_sends(host: str, server: str, peer: str, port: int, size: int, per_train: int, seconds: float) -> Sent:
    session = TurnSession(host, server)
    session.bind(TransportAddress(ip_address(peer), port))
    sent = flood(session.sock, struct.pack("!HH", CHANNEL, size) + bytes(size), per_train, seconds)
    session.close()
    return sent


def peer_counts(host: str, port: int) -> Counted:
    with open_socket(host, port) as sock:
        return count(sock, 0)


def client_counts(host: str, server: str, peer: str, port: int) -> Counted:
    """Says hello through the channel until the flood begins."""
    session = TurnSession(host, server)
    session.bind(TransportAddress(ip_address(peer), port))
    for _ in range(50):
        session.sock.send(struct.pack("!HH", CHANNEL, 4) + b"hi! ")
        session.sock.settimeout(0.1)
        try:
            session.sock.recv(65536)
            break
        except TimeoutError:
            continue
    counted = count(session.sock, 4)
    session.close()
    return counted


def peer_sends(host: str, port: int, size: int, per_train: int, seconds: float) -> Sent:
    with open_socket(host, port) as sock:
        sock.settimeout(_PATIENCE_S)
        _, relayed = sock.recvfrom(2048)
        sock.connect(relayed)
        return flood(sock, bytes(size), per_train, seconds)


def client_counts_another(host: str, server: str, meeting: str, me: int) -> Counted:
    session = _met(TurnSession(host, server), meeting, me)
    counted = count(session.sock, 4)
    session.close()
    return counted


def client_sends_another(
    host: str, server: str, meeting: str, me: int, size: int, per_train: int, seconds: float
) -> Sent:
    session = _met(TurnSession(host, server), meeting, me)
    time.sleep(0.3)  # the other binds its channel too
    sent = flood(session.sock, struct.pack("!HH", CHANNEL, size) + bytes(size), per_train, seconds)
    session.close()
    return sent


def _met(session: TurnSession, meeting: str, me: int) -> TurnSession:
    """Two clients tell each other their relayed addresses through files, and bind a channel to the other's."""
    mine, other = Path(meeting, str(me)), Path(meeting, str(1 - me))
    fresh = mine.with_suffix(".new")
    fresh.write_text(f"{session.relayed.ip} {session.relayed.port}")
    fresh.rename(mine)
    deadline = time.monotonic() + _PATIENCE_S
    while not other.exists():
        if time.monotonic() > deadline:
            raise OperationFailed("the other client did not come")
        time.sleep(0.01)
    host, port = other.read_text().split()
    session.bind(TransportAddress(ip_address(host), int(port)))
    return session


def round_trips(host: str, server: str, peer: str, port: int, times: int) -> list[float]:
    """Seconds of each echo through the relay, one after the other."""
    session = TurnSession(host, server)
    session.bind(TransportAddress(ip_address(peer), port))
    session.sock.settimeout(1.0)
    datagram = struct.pack("!HH", CHANNEL, 100) + bytes(100)
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        session.sock.send(datagram)
        try:
            session.sock.recv(2048)
        except TimeoutError:
            continue
        found.append(time.perf_counter() - begun)
    session.sock.send(struct.pack("!HH", CHANNEL, 4) + b"end ")
    session.close()
    return found


def echo(host: str, port: int) -> int:
    with open_socket(host, port) as sock:
        sock.settimeout(_PATIENCE_S)
        answered = 0
        while True:
            data, source = sock.recvfrom(2048)
            if data == b"end ":
                return answered
            sock.sendto(data, source)
            answered += 1


def hold_allocations(host: str, server: str, number: int, meeting: str) -> int:
    """Keep many allocations until the file ``meeting``/done is there; writes ``meeting``/held when all are."""
    sessions = []
    for _ in range(number):
        session = TurnSession(host, server)
        session.bind(TransportAddress(ip_address("10.9.2.2"), 9))
        sessions.append(session)
    Path(meeting, "held").touch()
    deadline = time.monotonic() + 30
    while not Path(meeting, "done").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    for session in sessions:
        session.close()
    return number
