"""Who may use a TURN server: whoever has a time-limited name made with a shared secret, or whoever is in a table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from warren.proto.turn.credentials import rest_password

_SEPARATOR: Final = ":"
_EXPIRY_DIGITS_MAX: Final = 12


class SharedSecret:
    """Names ``EXPIRY:WHO``, passwords as :func:`rest_password` makes them: coturn's ``use-auth-secret``.

    Several secrets are good at once while one is being replaced. ``unix_s`` tells the wall-clock time.
    """

    def __init__(self, secrets: Collection[bytes], unix_s: Callable[[], float]) -> None:
        self._secrets = tuple(secrets)
        self._unix_s = unix_s
        self.revoked: frozenset[str] = frozenset()
        """Identities that are refused although their credentials have not run out."""

    def passwords(self, username: str) -> tuple[str, ...]:
        expiry, _, identity = username.partition(_SEPARATOR)
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) <= _EXPIRY_DIGITS_MAX):
            return ()
        if int(expiry) < self._unix_s() or identity in self.revoked:
            return ()
        return tuple(rest_password(secret, username) for secret in self._secrets)

    def identity(self, username: str) -> str:
        """The part behind the time: it stays when credentials are renewed."""
        return username.partition(_SEPARATOR)[2]


class Table:
    """Fixed names with a password each; the table may be replaced while the server runs."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self.users: Mapping[str, str] = dict(users)

    def passwords(self, username: str) -> tuple[str, ...]:
        password = self.users.get(username)
        return () if password is None else (password,)

    def identity(self, username: str) -> str:
        return username


class Both:
    """A table first, then a shared secret."""

    def __init__(self, table: Table, secret: SharedSecret) -> None:
        self.table = table
        self.secret = secret

    def passwords(self, username: str) -> tuple[str, ...]:
        return self.table.passwords(username) or self.secret.passwords(username)

    def identity(self, username: str) -> str:
        return username if username in self.table.users else self.secret.identity(username)
