"""Long-term credentials at the client: a server's challenge, and how requests answer it (RFC 8489 §9.2)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from warren.errors import MalformedPacket
from warren.proto.stun.attributes import (
    MD5,
    SHA256,
    TEXT_BYTES_MAX,
    USERNAME_BYTES_MAX,
    pack_password_algorithm,
    unpack_password_algorithms_untrusted,
    unpack_text_untrusted,
)
from warren.proto.stun.credentials import features_of_untrusted, long_term_key, userhash, verifies
from warren.proto.stun.message import Attribute, Message


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 or 438 says: anybody on the path can have made it."""

    realm: str
    nonce: bytes
    algorithms: bytes = b""
    """PASSWORD-ALGORITHMS as it came, to be sent back so that the server sees whether somebody changed it; empty: the
    server knows none but the old one.
    """
    sha256: bool = False
    anonymous: bool = False
    """The server wants USERHASH instead of USERNAME (§9.2.4)."""

    @classmethod
    def from_untrusted(cls, message: Message, known_realm: str | None = None) -> Self:
        """``known_realm`` stands in for a realm that is missing.

        Raises MalformedPacket for a challenge that cannot or must not be answered: without nonce or realm, with no
        algorithm we know, or one whose algorithms somebody took away (bid-down, §9.2.1).
        """
        nonce = message.get(Attribute.NONCE)
        realm_bytes = message.get(Attribute.REALM)
        realm = known_realm if realm_bytes is None else unpack_text_untrusted(realm_bytes)
        if not nonce or realm is None or len(nonce) > TEXT_BYTES_MAX:
            raise MalformedPacket("a challenge without nonce or realm")
        features = features_of_untrusted(nonce.decode(errors="replace"))
        algorithms = message.get(Attribute.PASSWORD_ALGORITHMS) or b""
        if not features.password_algorithms:
            algorithms = b""
        elif not algorithms:
            raise MalformedPacket("a challenge whose password algorithms were taken out")
        known = [one for one in unpack_password_algorithms_untrusted(algorithms) if one in {MD5, SHA256}]
        if algorithms and not known:
            raise MalformedPacket("a challenge with password algorithms that are all unknown")
        sha256 = bool(algorithms) and known[0] == SHA256
        return cls(realm, nonce, algorithms, sha256, features.username_anonymity)


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and password. Raises ValueError for a name longer than STUN can carry."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.username.encode()) > USERNAME_BYTES_MAX:
            raise ValueError(f"a user name has at most {USERNAME_BYTES_MAX} bytes")

    def answer(self, challenge: Challenge) -> Authentication:
        key = long_term_key(self.username, challenge.realm, self.password, sha256=challenge.sha256)
        return Authentication(self, challenge, key)


@dataclass(frozen=True, slots=True)
class Authentication:
    """What is added to a request, and who may answer it."""

    login: Login
    challenge: Challenge
    key: bytes = field(repr=False)

    @property
    def attributes(self) -> list[tuple[int, bytes]]:
        """In a request, before the integrity."""
        challenge = self.challenge
        if challenge.anonymous:
            name = (int(Attribute.USERHASH), userhash(self.login.username, challenge.realm))
        else:
            name = (int(Attribute.USERNAME), self.login.username.encode())
        attributes = [name, (int(Attribute.REALM), challenge.realm.encode()), (int(Attribute.NONCE), challenge.nonce)]
        if challenge.algorithms:
            chosen = pack_password_algorithm(SHA256 if challenge.sha256 else MD5)
            attributes += [
                (int(Attribute.PASSWORD_ALGORITHMS), challenge.algorithms),
                (int(Attribute.PASSWORD_ALGORITHM), chosen),
            ]
        return attributes

    @property
    def strong(self) -> bool:
        """Whether MESSAGE-INTEGRITY-SHA256 alone counts: from the first offer of PASSWORD-ALGORITHMS on (§9.2.4)."""
        return bool(self.challenge.algorithms)

    def vouches_for(self, response: Message) -> bool:
        """Whether who made ``response`` knows the password too."""
        return verifies(response, self.key, sha256_required=self.strong)
