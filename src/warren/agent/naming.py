"""Names that the agent gives: of interfaces, and of a node that was not given one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from warren.identity.signing import VerifyKey

_PREFIX: Final = "w-"
_INTERFACE_CHARACTERS_MAX: Final = 15  # IFNAMSIZ without the NUL
_NUMBERS: Final = "0189"
"""Digits that a key's text does not have."""


def interface_names(network: str, key: VerifyKey) -> Iterator[str]:
    """Names for the interface of the network called ``network``, the best first: ``w-home``, then ones that tell two
    networks of one name apart.
    """
    if len(_PREFIX + network) <= _INTERFACE_CHARACTERS_MAX:
        yield _PREFIX + network
    yield _fitting(network, key.short[:5])
    for number in _NUMBERS:
        yield _fitting(network, f"{key.short[:4]}{number}")


def _fitting(network: str, ending: str) -> str:
    room = _INTERFACE_CHARACTERS_MAX - len(_PREFIX) - len(ending) - 1
    return f"{_PREFIX}{network[:room].rstrip('-')}-{ending}"


def node_name(hostname: str) -> str:
    """A node's name from the host's: its first label in lower case, other characters as hyphens."""
    label = hostname.partition(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", label).strip("-")[:63].rstrip("-") or "node"
