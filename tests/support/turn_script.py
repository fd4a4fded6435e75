"""A TURN client and, opposite it, a server that answers as a test tells it to; time moves by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from warren.model.tunnel import TransportAddress
from warren.proto.stun.attributes import pack_error_code, pack_uint32, pack_xor_address
from warren.proto.stun.credentials import long_term_key, verifies
from warren.proto.stun.message import Attribute, Class, Message, Method, decode_untrusted, encode
from warren.proto.turn.client import TurnClient
from warren.proto.turn.client_events import ClientEvent

REALM = "warren"
PASSWORD = "secret"
SERVER = TransportAddress(ip_address("192.0.2.1"), 3478)
MAPPED = TransportAddress(ip_address("198.51.100.7"), 40_000)
RELAYED4 = TransportAddress(ip_address("192.0.2.1"), 50_000)
RELAYED6 = TransportAddress(ip_address("2001:db8::1"), 50_001)

Attributes = list[tuple[int, bytes]]


def address(text: str, port: int = 51_820) -> TransportAddress:
    return TransportAddress(ip_address(text), port)


@dataclass
class Script:
    """What the server does next. ``answer`` may be replaced by a function that returns the bytes of an answer, or None
    for none.
    """

    username: str = "anna"
    password: str = PASSWORD
    nonce: bytes = b"nonce-1"
    algorithms: bytes = b""
    sha256: bool = False
    lifetime_s: int = 600
    relayed: tuple[TransportAddress, ...] = (RELAYED4, RELAYED6)
    mapped: TransportAddress = MAPPED
    errors: dict[int, int] = field(default_factory=dict)
    """The error of each method, sent with integrity."""
    stun: bool = True
    """Whether Binding requests are answered."""
    reachable: bool = True
    seen: list[Message] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        return long_term_key(self.username, REALM, self.password, sha256=self.sha256)

    def answer(self, message: Message) -> bytes | None:
        if message.method == Method.BINDING:
            found = (int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(self.mapped, message.transaction))
            return encode(Method.BINDING, Class.SUCCESS, message.transaction, [found]) if self.stun else None
        if not verifies(message, self.key):
            return self.challenge(message, 401)
        if message.get(Attribute.NONCE) != self.nonce:
            return self.challenge(message, 438)
        if message.method in self.errors:
            return self.refuse(message, self.errors[message.method])
        return self.grant(message)

    def challenge(self, message: Message, number: int, nonce: bytes = b"", extra: Attributes | None = None) -> bytes:
        attributes = [
            (int(Attribute.ERROR_CODE), pack_error_code(number)),
            (int(Attribute.REALM), REALM.encode()),
            (int(Attribute.NONCE), nonce or self.nonce),
        ]
        if self.algorithms:
            attributes.append((int(Attribute.PASSWORD_ALGORITHMS), self.algorithms))
        return encode(message.method, Class.ERROR, message.transaction, attributes + (extra or []))

    def refuse(
        self, message: Message, number: int, *, proved: bool = True, reason: str = "", extra: Attributes | None = None
    ) -> bytes:
        attributes = [(int(Attribute.ERROR_CODE), pack_error_code(number, reason)), *(extra or [])]
        return self._encode(message, Class.ERROR, attributes, self.key if proved else None)

    def grant(self, message: Message, *, key: bytes | None = None, extra: Attributes | None = None) -> bytes:
        attributes: Attributes = list(extra or [])
        if message.method == Method.ALLOCATE:
            attributes += [
                (int(Attribute.XOR_RELAYED_ADDRESS), pack_xor_address(one, message.transaction)) for one in self.relayed
            ]
            attributes.append((int(Attribute.XOR_MAPPED_ADDRESS), pack_xor_address(self.mapped, message.transaction)))
        if message.method in {Method.ALLOCATE, Method.REFRESH}:
            attributes.append((int(Attribute.LIFETIME), pack_uint32(self.lifetime_s)))
        return self._encode(message, Class.SUCCESS, attributes, key or self.key)

    def _encode(self, message: Message, cls: Class, attributes: Attributes, key: bytes | None) -> bytes:
        strong = bool(self.algorithms)
        return encode(message.method, cls, message.transaction, attributes, key=key, sha256=strong, sha1=not strong)


class Play:
    """A client against a :class:`Script`; a message takes 10 ms each way."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        families: tuple[int, ...] = (4, 6),
        password: str = PASSWORD,
        reliable: bool = False,
    ) -> None:
        self.script = script or Script()
        self.now = 1000.0
        self.events: list[ClientEvent] = []
        self.interfere: Callable[[Message], list[bytes]] = lambda _: []
        """What somebody on the path sends to the client before the server's answer to a message arrives."""
        self.client = TurnClient(
            server=SERVER,
            username="anna",
            password=password,
            random=random.Random(7).randbytes,
            families=families,
            now=self.now,
            reliable=reliable,
            name="berlin",
        )

    def exchange(self) -> None:
        """Carry messages until nobody has more to say now."""
        for _ in range(200):
            sent = self.client.take_transmits()
            if not sent:
                break
            self.now += 0.01
            for data in sent:
                message = decode_untrusted(data)
                self.script.seen.append(message)
                if not self.script.reachable:
                    continue
                for forged in self.interfere(message):
                    self.client.receive(forged, self.now + 0.005)
                answer = None if message.cls is Class.INDICATION else self.script.answer(message)
                if answer is not None:
                    self.client.receive(answer, self.now + 0.01)
            self.now += 0.01
        else:
            raise AssertionError("client and server never fall silent")
        self.events += self.client.take_events()

    def run(self, seconds: float) -> None:
        """Let time pass, waking the client when it wants to be woken."""
        end = self.now + seconds
        self.exchange()
        for _ in range(10_000):
            deadline = self.client.next_deadline()
            if deadline is None or deadline.at > end:
                break
            self.now = max(self.now, deadline.at)
            self.client.handle_timeout(self.now)
            self.exchange()
        else:
            raise AssertionError("the client wakes without end")
        self.now = end

    def told(self) -> list[ClientEvent]:
        """The events since last asked."""
        told, self.events = self.events, []
        return told

    def count(self, method: Method) -> int:
        """The messages of a method since the beginning."""
        return sum(message.method == method for message in self.script.seen)
