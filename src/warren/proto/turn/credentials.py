"""Names and passwords for TURN servers that are made, not stored.

The first kind follows draft-uberti-behave-turn-rest-00 as coturn has it (``use-auth-secret``): whoever shares a secret
with the relay hands out names that end by themselves. The second needs nobody: a member that relays and its client both
know it from their own keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac


def rest_username(node: str, expires_s: int) -> str:
    """``expires_s``: seconds since 1970. ``node``: who it is for, for the relay's quotas and log."""
    return f"{expires_s}:{node}"


def rest_password(secret: bytes, username: str) -> str:
    return base64.b64encode(hmac.digest(secret, username.encode(), hashlib.sha1)).decode()


def member_password(check_key: bytes) -> str:
    """Of one member for the relay of another; ``check_key`` is the key that the two make their checks with."""
    return base64.b64encode(hmac.digest(check_key, b"warren relay 1", hashlib.sha256)).decode()
