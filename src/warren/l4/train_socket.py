"""UDP sockets that take and give trains (:mod:`warren.l4.trains`): one is received by many calls or few (``UDP_GRO`` of
udp(7)) and sent by one (``UDP_SEGMENT``).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from warren.l4.trains import DATAGRAMS_MAX, TRAIN_BYTES_MAX, Control, Train, cut

_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IPPROTO_IP, _IPPROTO_IPV6 = 0, 41
_IP_PKTINFO, _IP_TRANSPARENT, _IP_RECVORIGDSTADDR = 8, 19, 20
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVORIGDSTADDR, _IPV6_TRANSPARENT = 49, 50, 74, 75

BATCH: Final = 64
"""Received of one socket before the others have their turn: some 0.2 ms of work for small ones."""
LOOK_FURTHER: Final = 4
ONES_MIN: Final = 16
"""Each datagram is looked behind until so many have come one by one, then the last of four: looking costs a quarter of
the way, and a row that begins is noticed soon enough.
"""
ROW_MIN: Final = 4
"""Datagrams behind one another that are best sent at once. Of fewer the first goes ahead, so that not all wait for one
another at each hop.
"""
JOIN_AT: Final = 8
"""In so long a row datagrams are worth a control message that says how long each is."""
_SLOT_BYTES = 65_536  # nothing that UDP has is longer
_ANCILLARY_BYTES = 128
_QUEUE_BYTES = 1 << 20  # of a listener: 10 ms at 1 Gbit/s
_CONTROLS_MAX = 256  # strides of a socket, for which a control message is kept; then it begins anew

_segment = struct.Struct("=H")
_int = struct.Struct("=i")
_cannot_segment = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})


class TrainSocket:
    """A UDP socket, which belongs to it. ``problem`` is what :meth:`receive` met with last."""

    __slots__ = (
        "_ancillary",
        "_controls",
        "_joins",
        "_ones",
        "_rows",
        "_stride_max",
        "alone",
        "of_one",
        "problem",
        "sock",
    )

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.problem: OSError | None = None
        self.of_one = False
        """It is connected, so nobody asks who has sent what it receives."""
        self.alone = True
        """Datagrams come one by one, and there is nothing to be known of them but who has sent them."""
        self._controls: dict[tuple[Control, int], Control] = {}
        self._stride_max = TRAIN_BYTES_MAX  # of what the kernel can segment on the way it takes
        self._ancillary = 0
        self._joins = False  # whether the kernel has been asked to join what it receives
        self._ones = 0  # how many came by themselves since there was a row
        self._rows = False  # whether several came at once the last time

    def _join(self) -> None:
        """Datagrams come in long rows here: have the kernel hand them over as such."""
        self._joins = True
        try:
            self.sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return
        self._need_ancillary()

    def ask_where_to(self) -> None:
        """Have ``local`` tell the local address (of a socket that is bound to all of them): see :func:`answering`."""
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        else:
            self.sock.setsockopt(_IPPROTO_IP, _IP_PKTINFO, 1)
        self._need_ancillary()

    def make_transparent(self) -> None:
        """Take what nftables' ``tproxy`` hands over; ``local`` then is the address it was meant for, as a sockaddr."""
        set_transparent(self.sock)
        if self.sock.family == socket.AF_INET6:
            self.sock.setsockopt(_IPPROTO_IPV6, _IPV6_RECVORIGDSTADDR, 1)
        else:
            self.sock.setsockopt(_IPPROTO_IP, _IP_RECVORIGDSTADDR, 1)
        self._need_ancillary()

    def widen(self) -> None:
        """Have a longer queue, as a socket needs that takes what all clients send."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)

    def receive_one(self) -> tuple[memoryview, Any] | None:
        """While :attr:`alone`: the next datagram, valid until something is received again, and its sender (None where
        nobody asks); :meth:`rest` is to be looked at then. None: there is none, see ``problem``.
        """
        slot = _SLOTS[0]
        try:
            if self.of_one:
                return slot[: self.sock.recv_into(slot)], None
            size, source = self.sock.recvfrom_into(slot)
        except OSError as error:
            self.problem = None if error.errno == errno.EAGAIN else error
            return None
        return slot[:size], source

    def rest(self) -> Sequence[Train]:
        """What has come behind one that came by itself. It is looked for now and then: the event loop calls again."""
        self.problem = None
        self._ones += 1
        if self._ones > ONES_MIN and self._ones % LOOK_FURTHER:
            return ()
        found = self._receive()
        self._learn(found)
        return found

    def trains(self) -> Iterator[Train]:
        """The same as :meth:`receive` one after the other, each valid until the next one is asked for. While datagrams
        come one by one, the first is there before it is known that there are no more: somebody waits for its answer.
        """
        if not self._rows:
            first = self._receive_first()
            if first is not None:
                yield first
                yield from self.rest()
            return
        found = self._receive()
        self._learn(found)
        yield from found

    def _receive_first(self) -> Train | None:
        """One datagram, or what the kernel has joined."""
        if not self._ancillary:
            one = self.receive_one()
            return None if one is None else Train(one[1], b"", (one[0],), len(one[0]), len(one[0]))
        self.problem = None
        slot = _SLOTS[0]
        try:
            size, ancillary, _, sender = self.sock.recvmsg_into((slot,), self._ancillary)
        except OSError as error:
            self.problem = None if error.errno == errno.EAGAIN else error
            return None
        each, where = size, b""
        for _, kind, data in ancillary:
            if kind == _UDP_GRO:
                each = _int.unpack(data)[0]
            else:
                where = data
        return Train(sender, where, (slot[:size],), each, size)

    def _learn(self, found: Sequence[Train]) -> None:
        """``found`` came at once."""
        count = sum(-(-train.length // train.stride) if train.stride else 1 for train in found)
        self._rows = count >= ROW_MIN
        if found:
            self._ones = 0
        if count >= JOIN_AT and not self._joins:
            self._join()
        self.alone = not (self._rows or self._ancillary)

    def _need_ancillary(self) -> None:
        self._ancillary = _ANCILLARY_BYTES
        self.alone = False

    def receive(self) -> list[Train]:
        """What is there now, at most :data:`BATCH`. Of a connected socket ``problem``
        is what ICMP reports about an earlier datagram, to be read after the trains; the socket stays usable.
        """
        if not self._joins:
            self._join()
        return self._receive()

    def _receive(self) -> list[Train]:
        self.problem = None
        trains: list[Train] = []
        parts: list[memoryview | bytes] = []
        source, local, stride, length = None, b"", 0, 0
        receive, ancillary_bytes = self.sock.recvmsg_into, self._ancillary
        for slot in _SLOTS:
            try:
                size, ancillary, _, sender = receive((slot,), ancillary_bytes)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    self.problem = error
                break
            each, where = size, b""
            for _, kind, data in ancillary:
                if kind == _UDP_GRO:
                    each = _int.unpack(data)[0]
                else:
                    where = data
            if (
                0 < size <= stride  # one datagram, after whole ones of at least its length
                and each == size
                and length % stride == 0
                and sender == source
                and where == local
                and length + size <= TRAIN_BYTES_MAX
                and length < DATAGRAMS_MAX * stride
            ):
                parts.append(slot[:size])
                length += size
                continue
            if parts:
                trains.append(Train(source, local, parts, stride, length))
            source, local, stride, length = sender, where, each, size
            parts = [slot[:size]]
        if parts:
            trains.append(Train(source, local, parts, stride, length))
        return trains

    def send(self, train: Train, control: Control = (), address: Any = None) -> int:
        """Send it, to ``address`` where the socket is not connected. Returns 0 or the errno; what a full queue or a
        link too narrow for it takes away is lost, as everywhere with UDP.
        """
        try:
            if train.length > train.stride and train.stride < self._stride_max:
                return self._send_segments(train, control, address)
            for datagram in train.parts if train.length <= train.stride else train.datagrams():
                if address is None:
                    self.sock.send(datagram)
                else:
                    self.sock.sendmsg((datagram,), control, 0, address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def send_one(self, datagram: memoryview, control: Control, address: Any) -> int:
        """:meth:`send` of one datagram."""
        try:
            if address is None:
                self.sock.send(datagram)
            elif control:
                self.sock.sendmsg((datagram,), control, 0, address)
            else:
                self.sock.sendto(datagram, address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def _send_segments(self, train: Train, control: Control, address: Any) -> int:
        stride = train.stride
        key = (control, stride)
        messages = self._controls.get(key)
        if messages is None:
            if len(self._controls) >= _CONTROLS_MAX:
                self._controls.clear()
            messages = self._controls[key] = (*control, (_SOL_UDP, _UDP_SEGMENT, _segment.pack(stride)))
        parts = train.parts
        if train.length > min(TRAIN_BYTES_MAX, DATAGRAMS_MAX * stride):  # the kernel has joined more than we may send
            parts = [*cut(parts, min(TRAIN_BYTES_MAX // stride, DATAGRAMS_MAX) * stride)]
            for part in parts:
                code = self._send_segments(Train(None, b"", (part,), stride, len(part)), control, address)
            return code
        try:
            self.sock.sendmsg(parts, messages, 0, address)
        except OSError as error:
            if error.errno not in _cannot_segment:
                raise
            # EIO: there is no checksum offload on the way. Else the datagrams are too long for the link.
            self._stride_max = 0 if error.errno == errno.EIO else stride
            for datagram in train.datagrams():
                self.sock.sendmsg((datagram,), control, 0, address)
        return 0

    def close(self) -> None:
        self.sock.close()


def answering(family: int, local: bytes) -> Control:
    """What sends an answer from ``local`` (after :meth:`TrainSocket.ask_where_to`), by whatever interface."""
    if not local:
        return ()
    if family == socket.AF_INET6:  # in6_pktinfo: address, interface
        return ((_IPPROTO_IPV6, _IPV6_PKTINFO, local[:16] + bytes(4)),)
    # in_pktinfo: interface, the source to use, destination
    return ((_IPPROTO_IP, _IP_PKTINFO, bytes(4) + local[8:12] + bytes(4)),)


def set_transparent(sock: socket.socket) -> None:
    """Let it be bound to addresses that are not this host's (IP_TRANSPARENT). Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(_IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(_IPPROTO_IP, _IP_TRANSPARENT, 1)


_SPACE: Final = memoryview(bytearray(BATCH * _SLOT_BYTES))
_SLOTS: Final = [_SPACE[at : at + _SLOT_BYTES] for at in range(0, len(_SPACE), _SLOT_BYTES)]
"""Where all sockets receive: the event loop does one thing at a time. 4 MB, if all are ever filled."""
