"""Proof over a fresh TCP connection that the other end is the peer (sans-IO).

Both ends send a Binding request and answer the other's, each with integrity by the key that only the two nodes know
(RFC 8445 §7, framed as in RFC 6544 §3). An end believes the other when its *own* request, with a transaction that
nobody can have seen before, was answered. The controlling end then selects the connection by a second request with
USE-CANDIDATE. Roles are part of each request, so that what somebody sends back to its sender proves nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from warren.errors import MalformedPacket
from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_uint64, pack_xor_address
from warren.proto.stun.credentials import verifies
from warren.proto.stun.message import TRANSACTION_BYTES, Attribute, Class, Message, Method, decode_untrusted, encode

MESSAGE_BYTES_MAX: Final = 512
MESSAGES_MAX: Final = 16  # four are needed


class State(enum.Enum):
    CHECKING = "nothing is proved yet"
    PROVEN = "the other end is the peer"
    SELECTED = "this connection is the one to use"
    FAILED = "somebody else, or nonsense"


class TcpCheck:
    """``state`` is what is known; ``selecting``: :meth:`select` was called. What comes behind the
    last message is in ``rest`` once SELECTED: it is data.
    """

    def __init__(
        self, key: bytes, remote: TransportAddress, random: Callable[[int], bytes], *, controlling: bool
    ) -> None:
        self.state = State.CHECKING
        self.selecting = False
        self.rest = b""
        self._key = key
        self._remote = remote
        self._controlling = controlling
        self._random = random
        self._read = b""
        self._messages = 0
        self._transmits = b""
        self._transaction = self._ask()

    def _ask(self) -> bytes:
        transaction = self._random(TRANSACTION_BYTES)
        role = Attribute.ICE_CONTROLLING if self._controlling else Attribute.ICE_CONTROLLED
        attributes = [(int(role), pack_uint64(int.from_bytes(self._random(8))))]
        if self.selecting:
            attributes.append((int(Attribute.USE_CANDIDATE), b""))
        self._transmit(encode(Method.BINDING, Class.REQUEST, transaction, attributes, key=self._key))
        return transaction

    def _transmit(self, message: bytes) -> None:
        self._transmits += len(message).to_bytes(2) + message

    def take_transmits(self) -> bytes:
        """What is to be written to the connection now."""
        taken, self._transmits = self._transmits, b""
        return taken

    def select(self) -> None:
        """Of the controlling end, once PROVEN: use this connection."""
        if self._controlling and self.state is State.PROVEN and not self.selecting:
            self.selecting = True
            self._transaction = self._ask()

    def receive(self, data: bytes) -> None:
        """Bytes came; any of them may be hostile."""
        self._read += data
        while self.state in {State.CHECKING, State.PROVEN} and len(self._read) >= 2:
            size = int.from_bytes(self._read[:2])
            if size > MESSAGE_BYTES_MAX or self._messages >= MESSAGES_MAX:
                self.state = State.FAILED
                return
            if len(self._read) < 2 + size:
                return
            message, self._read = self._read[2 : 2 + size], self._read[2 + size :]
            self._messages += 1
            try:
                self._receive_message(decode_untrusted(message))
            except MalformedPacket:
                self.state = State.FAILED
        if self.state is State.SELECTED:
            self.rest += self._read
            self._read = b""

    def _receive_message(self, message: Message) -> None:
        if message.method != Method.BINDING or not verifies(message, self._key, sha256_required=True):
            self.state = State.FAILED
            return
        match message.cls:
            case Class.SUCCESS if message.transaction == self._transaction:
                self.state = State.SELECTED if self.selecting else State.PROVEN
            case Class.REQUEST:
                self._answer(message)
            case _:
                self.state = State.FAILED

    def _answer(self, message: Message) -> None:
        others = Attribute.ICE_CONTROLLED if self._controlling else Attribute.ICE_CONTROLLING
        if message.get(others) is None:
            self.state = State.FAILED
            return
        selects = message.get(Attribute.USE_CANDIDATE) is not None
        if selects and (self._controlling or self.state is not State.PROVEN):
            # It is the controlling end that selects, and never before it has answered us (TCP keeps the order).
            self.state = State.FAILED
            return
        found = (int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(self._remote, message.transaction))
        self._transmit(encode(Method.BINDING, Class.SUCCESS, message.transaction, [found], key=self._key))
        if selects:
            self.state = State.SELECTED
