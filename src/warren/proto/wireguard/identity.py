"""Who we are: the device's static key pair and what follows from it."""

from __future__ import annotations

from collections.abc import Callable

from warren.identity.keys import PrivateKey, PublicKey
from warren.proto.wireguard.cookie import CookieChecker
from warren.proto.wireguard.noise import KeyPair


class Identity:
    """The private key of a device in the forms the machines need; all None while the device has none.

    Without a key a device neither sends nor accepts anything.
    """

    __slots__ = ("_random", "checker", "keys", "private_key", "public_key")

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self.private_key: PrivateKey | None = None
        self.public_key: PublicKey | None = None
        self.keys: KeyPair | None = None
        self.checker: CookieChecker | None = None

    def assume(self, private_key: PrivateKey) -> bool:
        """Become ``private_key`` (all zero: nobody). Returns whether that is a change."""
        if private_key.is_zero:
            changed = self.private_key is not None
            self.private_key = self.public_key = self.keys = self.checker = None
            return changed
        if private_key == self.private_key:
            return False
        self.private_key = private_key
        self.keys = KeyPair(private_key.raw)
        self.public_key = PublicKey(self.keys.public)
        self.checker = CookieChecker(self.keys.public, self._random)
        return True
