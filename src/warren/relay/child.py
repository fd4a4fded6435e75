"""What a relay process and its owner say to each other: JSON objects, one a line, over a socket pair.

The owner begins with the configuration, secrets included: nothing of it is in the arguments, the environment or a
file. The child answers ``ready`` or ``error``, and ends when the owner's end of the socket is closed, for whatever
reason.
"""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import msgspec

from warren.relay.config import RelayConfig, place_of_untrusted
from warren.relay.serve import Ready

LINE_BYTES_MAX: Final = 1 << 24
"""Of one message: a table of users has some 100 bytes for each."""

_ADDRESSES: Final = frozenset({"listen", "relay_addresses", "external_addresses", "discovery_addresses"})
_NETWORKS: Final = frozenset({"allow_peers", "deny_peers", "nat64_prefixes"})
_PATHS: Final = frozenset({"certificate", "key", "state"})


class ToChild(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Each part that is there is done; ``config`` is the first message, and only there."""

    config: dict[str, Any] | None = None
    users: dict[str, str] | None = None
    """Takes the place of the table there was."""
    revoked: tuple[str, ...] | None = None
    """Takes the place of the list there was."""
    ask: bool = False
    """Answer with the counters."""


class ToOwner(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly one part is there."""

    ready: dict[str, Any] | None = None
    error: str | None = None
    counters: dict[str, int] | None = None


def pack_config(config: RelayConfig) -> dict[str, Any]:
    """Plain values: what is not a number, a text or a list of them is written as text."""
    return {one.name: _plain(getattr(config, one.name)) for one in fields(config)}


def unpack_config(values: dict[str, Any]) -> RelayConfig:
    """The inverse. Raises ValueError or TypeError for what :func:`pack_config` did not make."""
    made = {name: _meant(name, value) for name, value in values.items()}
    return RelayConfig(**made)


def pack_ready(ready: Ready) -> dict[str, Any]:
    return {one.name: _plain(getattr(ready, one.name)) for one in fields(ready)}


def unpack_ready(values: dict[str, Any]) -> Ready:
    digest = values["certificate_sha256"]
    return Ready(
        **{
            **values,
            "certificate_sha256": None if digest is None else bytes.fromhex(digest),
            "addresses": tuple(ip_address(text) for text in values["addresses"]),
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, int | float | str | dict) else str(value)


def _meant(name: str, value: Any) -> Any:
    if name in _ADDRESSES:
        return tuple(ip_address(text) for text in value)
    if name in _NETWORKS:
        return tuple(ip_network(text) for text in value)
    if name in _PATHS:
        return None if value is None else Path(value)
    if name == "secrets":
        return tuple(bytes.fromhex(text) for text in value)
    if name == "metrics":
        return None if value is None else place_of_untrusted(value)
    return tuple(value) if isinstance(value, list) else value
