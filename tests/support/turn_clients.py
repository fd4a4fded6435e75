"""A TURN client that does exactly what a test says, for servers in memory and over sockets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import (
    SHA256,
    pack_channel_number,
    pack_family,
    pack_password_algorithm,
    pack_requested_transport,
    pack_uint32,
    pack_xor_address,
    unpack_error_code_untrusted,
    unpack_xor_address_untrusted,
)
from warren.proto.stun.credentials import long_term_key
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted, encode

Attributes = Iterable[tuple[int, bytes]]
_transactions = itertools.count(1)


def place(text: str, port: int) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


def fresh_transaction() -> bytes:
    return next(_transactions).to_bytes(12)


class TurnAsker:
    """Asks by ``exchange``: one message goes out, the answer (empty: none) comes back."""

    def __init__(
        self,
        exchange: Callable[[bytes], bytes],
        username: str = "u",
        password: str = "p",  # noqa: S107
        *,
        sha256: bool = True,
    ) -> None:
        self.exchange = exchange
        self.username = username
        self.password = password
        self.sha256 = sha256
        self.realm = b""
        self.nonce = b""
        self.algorithms = b""
        self.transaction = b""

    def bare(self, method: Method, *attributes: tuple[int, bytes]) -> Message | None:
        """A request without credentials."""
        answer = self.exchange(encode(method, Class.REQUEST, fresh_transaction(), attributes))
        return decode_untrusted(answer) if answer else None

    def learn(self) -> None:
        """Get realm and nonce by a request that is refused."""
        refused = self.bare(Method.ALLOCATE, (Attribute.REQUESTED_TRANSPORT, pack_requested_transport()))
        assert refused is not None
        assert error_of(refused) == 401
        self.realm, self.nonce = refused.get(Attribute.REALM) or b"", refused.get(Attribute.NONCE) or b""
        self.algorithms = refused.get(Attribute.PASSWORD_ALGORITHMS) or b""

    def packed(
        self,
        method: Method,
        *attributes: tuple[int, bytes],
        transaction: bytes | None = None,
        algorithms: bytes | None = None,
    ) -> bytes:
        """A request with credentials; a nonce is learnt first when there is none."""
        if not self.nonce:
            self.learn()
        self.transaction = transaction or fresh_transaction()
        proof: list[tuple[int, bytes]] = [
            (Attribute.USERNAME, self.username.encode()),
            (Attribute.REALM, self.realm),
            (Attribute.NONCE, self.nonce),
        ]
        if self.sha256:
            offered = self.algorithms if algorithms is None else algorithms
            proof.append((Attribute.PASSWORD_ALGORITHMS, offered))
            proof.append((Attribute.PASSWORD_ALGORITHM, pack_password_algorithm(SHA256)))
        return encode(
            method,
            Class.REQUEST,
            self.transaction,
            [*attributes, *proof],
            key=self.key,
            sha256=self.sha256,
            sha1=not self.sha256,
        )

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, self.realm.decode(), self.password, sha256=self.sha256)

    def ask(self, method: Method, *attributes: tuple[int, bytes], transaction: bytes | None = None) -> Message:
        answer = self.exchange(self.packed(method, *attributes, transaction=transaction))
        assert answer, "no answer"
        return decode_untrusted(answer)

    def allocate(
        self, *attributes: tuple[int, bytes], family: int | None = None, transaction: bytes | None = None
    ) -> Message:
        wanted: list[tuple[int, bytes]] = [(Attribute.REQUESTED_TRANSPORT, pack_requested_transport())]
        if family is not None:
            wanted.append((Attribute.REQUESTED_ADDRESS_FAMILY, pack_family(family)))
        return self.ask(Method.ALLOCATE, *wanted, *attributes, transaction=transaction)

    def relayed(self, *attributes: tuple[int, bytes], family: int | None = None) -> TransportAddress:
        """Allocate, and the first relayed address of the answer."""
        answer = self.allocate(*attributes, family=family)
        assert answer.cls is Class.SUCCESS, error_of(answer)
        return relayed_of(answer)[0]

    def refresh(self, lifetime: int, *attributes: tuple[int, bytes]) -> Message:
        return self.ask(Method.REFRESH, (Attribute.LIFETIME, pack_uint32(lifetime)), *attributes)

    def permit(self, *peers: TransportAddress) -> Message:
        transaction = fresh_transaction()
        listed = [(int(Attribute.XOR_PEER_ADDRESS), pack_xor_address(peer, transaction)) for peer in peers]
        return self.ask(Method.CREATE_PERMISSION, *listed, transaction=transaction)

    def bind(self, number: int, peer: TransportAddress) -> Message:
        transaction = fresh_transaction()
        return self.ask(
            Method.CHANNEL_BIND,
            (Attribute.CHANNEL_NUMBER, pack_channel_number(number)),
            (Attribute.XOR_PEER_ADDRESS, pack_xor_address(peer, transaction)),
            transaction=transaction,
        )


def send_indication(peer: TransportAddress, data: bytes, *attributes: tuple[int, bytes]) -> bytes:
    transaction = fresh_transaction()
    listed: list[tuple[int, bytes]] = [
        (Attribute.XOR_PEER_ADDRESS, pack_xor_address(peer, transaction)),
        (Attribute.DATA, data),
        *attributes,
    ]
    return encode(Method.SEND, Class.INDICATION, transaction, listed)


def data_of(indication: bytes) -> tuple[TransportAddress, bytes]:
    """Peer and data of a Data indication."""
    message = decode_untrusted(indication, 1 << 17)
    assert message.method == Method.DATA
    peer = unpack_xor_address_untrusted(message.get(Attribute.XOR_PEER_ADDRESS) or b"", message.transaction)
    return peer, message.get(Attribute.DATA) or b""


def relayed_of(answer: Message) -> list[TransportAddress]:
    return [
        unpack_xor_address_untrusted(value, answer.transaction)
        for kind, value in answer.attributes
        if kind == Attribute.XOR_RELAYED_ADDRESS
    ]


def error_of(answer: Message) -> int:
    """0 for success."""
    if answer.cls is Class.SUCCESS:
        return 0
    return unpack_error_code_untrusted(answer.get(Attribute.ERROR_CODE) or b"").number


OK: Final = 0
