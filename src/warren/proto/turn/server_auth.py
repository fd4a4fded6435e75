"""Long-term credentials at the server: who asks, or what to answer whom (RFC 8489 §9.2.4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from warren.errors import MalformedPacket
from warren.proto.stun.attributes import (
    MD5,
    SHA256,
    USERNAME_BYTES_MAX,
    pack_error_code,
    pack_password_algorithm,
    pack_password_algorithms,
    unpack_text_untrusted,
)
from warren.proto.stun.credentials import long_term_key, verifies
from warren.proto.stun.message import Attribute, Class, Message, encode
from warren.proto.turn.nonce import Freshness, Nonces
from warren.proto.turn.server_values import Credentials

_ALGORITHMS: Final = pack_password_algorithms((SHA256, MD5))
_BY_VALUE: Final = {pack_password_algorithm(SHA256): True, pack_password_algorithm(MD5): False}
Attributes = list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Asker:
    """A client that has proved who it is, in this request."""

    username: str
    identity: str
    key: bytes = field(repr=False)
    sha256: bool
    """Its request carried MESSAGE-INTEGRITY-SHA256: so does the answer."""


class Authenticator:
    """Keeps nothing about anybody."""

    def __init__(self, credentials: Credentials, realm: str, nonces: Nonces) -> None:
        self._credentials = credentials
        self._realm = realm
        self._nonces = nonces

    def judge(self, request: Message, host: str, now: float) -> Asker | int:
        """Who sent the request from the numeric address ``host``, or the number of the error to answer with."""
        if not request.sha1_at and not request.sha256_at:
            return 401
        name, realm = request.get(Attribute.USERNAME), request.get(Attribute.REALM)
        nonce = request.get(Attribute.NONCE)
        if name is None or realm is None or nonce is None:
            return 400
        algorithms, algorithm = request.get(Attribute.PASSWORD_ALGORITHMS), request.get(Attribute.PASSWORD_ALGORITHM)
        strong = _BY_VALUE.get(algorithm) if algorithm is not None else False
        # What we offered must come back as it was, or somebody has weakened it on the way.
        if strong is None or (algorithms is None) != (algorithm is None) or algorithms not in {None, _ALGORITHMS}:
            return 400
        if self._nonces.judge_untrusted(nonce, host, now) is not Freshness.FRESH:
            return 438
        try:
            username = unpack_text_untrusted(name, USERNAME_BYTES_MAX)
        except MalformedPacket:
            return 401
        if realm != self._realm.encode():
            return 401
        for password in self._credentials.passwords(username):
            key = long_term_key(username, self._realm, password, sha256=strong)
            if verifies(request, key):
                return Asker(username, self._credentials.identity(username), key, bool(request.sha256_at))
        return 401

    def refusal(self, request: Message, error: int, host: str, now: float) -> bytes:
        """The answer to who did not prove anything: as short as can be."""
        attributes: Attributes = [(Attribute.ERROR_CODE, pack_error_code(error))]
        if error in {401, 438}:
            attributes += [
                (Attribute.REALM, self._realm.encode()),
                (Attribute.NONCE, self._nonces.make(host, now)),
                (Attribute.PASSWORD_ALGORITHMS, _ALGORITHMS),
            ]
        return encode(request.method, Class.ERROR, request.transaction, attributes)

    def answer(self, request: Message, cls: Class, asker: Asker, attributes: Attributes) -> bytes:
        sha256 = asker.sha256
        return encode(
            request.method, cls, request.transaction, attributes, key=asker.key, sha256=sha256, sha1=not sha256
        )
