"""How secrets are made and known again: the one place that does it, for tokens and invites alike.

A secret has 256 random bits. Kept is its SHA-256, and its first characters as its id: whoever finds one in the open
can say which it is, and has still more than 200 bits to guess. No slow hash is wanted where nothing can be guessed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

SECRET_BYTES: Final = 32
ID_CHARACTERS: Final = 8
TOKEN_SCHEME: Final = "wrt_"  # noqa: S105 - how tokens begin, so that scanners find leaked ones


@dataclass(frozen=True, slots=True)
class Minted:
    """A new secret, which is shown once, and what is kept of it until ``expires``."""

    id: str
    secret: bytes = field(repr=False)
    text: str = field(repr=False)
    hash: bytes
    created: float
    expires: float


def mint(random: Callable[[int], bytes], *, now: float, ttl_s: float) -> Minted:
    """A secret that is good for ``ttl_s`` seconds from ``now``; there are none that last for ever.

    Raises ValueError when it would not last at all.
    """
    if ttl_s <= 0:
        raise ValueError("a secret that has expired before it is made")
    secret = random(SECRET_BYTES)
    text = base64.b32encode(secret).decode("ascii").rstrip("=").lower()
    return Minted(
        id=text[:ID_CHARACTERS],
        secret=secret,
        text=text,
        hash=hash_of(secret),
        created=now,
        expires=now + ttl_s,
    )


def hash_of(secret: bytes) -> bytes:
    """By what a secret is looked up. The lookup may take as long as hashes agree: they tell nothing of the secret."""
    return hashlib.sha256(secret).digest()


def hash_of_token(text: str) -> bytes | None:
    """The hash of the token ``text``; None when it is none."""
    encoded = text.removeprefix(TOKEN_SCHEME)
    if not text.startswith(TOKEN_SCHEME) or len(encoded) != 52 or not encoded.isascii():
        return None
    try:
        return hash_of(base64.b32decode(encoded.upper() + "===="))
    except ValueError:
        return None
