"""What documents are made of: text, names, keys, selectors, ports, prefixes, each refused when it is not as usual."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final

from msgspec import Meta

from warren.identity.signing import KEY_BYTES
from warren.model.tunnel import IPAddress, IPNetwork

# ``$`` alone would let a line feed pass at the end; ``\Z`` is unknown to JSON Schema.
NAME_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$(?!\n)"
"""Names of networks and nodes are DNS labels (RFC 1123 §2.1), lower case."""
TAG_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,62}$(?!\n)"
SUFFIX_PATTERN: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,7}$(?!\n)"
SUFFIX_CHARACTERS_MAX: Final = 125
"""Two labels of 63 before it make 253, the most that a name may have (RFC 1035 §3.1)."""
VERSION_MAX: Final = 2**63 - 1

Key = Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Tag = Annotated[str, Meta(pattern=TAG_PATTERN)]
Version = Annotated[int, Meta(ge=1, le=VERSION_MAX)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
Text = Annotated[str, Meta(max_length=256)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
COMMENT_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]*$(?!\n)"
Comment = Annotated[str, Meta(pattern=COMMENT_PATTERN, max_length=256)]
"""It is shown on terminals."""
Url = Annotated[str, Meta(pattern=r"^(?=[!-~]*$(?!\n))https://[^/?#@]+(/[^?#]*)?$", max_length=256)]

_PORTS: Final = re.compile(r"([1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?")


def check_selector(text: str, *, services: bool = False) -> None:
    """Raises ValueError, saying what a selector may be; ``services``: it may also name a service."""
    kind, _, name = text.partition(":")
    if text == "members":
        return
    if kind == "member" and re.fullmatch(NAME_PATTERN, name):
        return
    if kind == "tag" and re.fullmatch(TAG_PATTERN, name):
        return
    if services and kind == "service" and re.fullmatch(NAME_PATTERN, name):
        return
    try:
        canonical_network(text)
    except ValueError:
        also = ", service:NAME" if services else ""
        raise ValueError(f"{text!r} is no selector: members, member:NAME, tag:TAG{also} or a prefix") from None


def port_range(text: str) -> tuple[int, int]:
    """First and last port of ``"22"`` or ``"8000-8100"``. Raises ValueError."""
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f"{text!r} are no ports: say 22 or 8000-8100")
    return first, last


PREFIXES_REMEMBERED: Final = 1 << 16
"""One of each member of the largest network, 50 MB then: reading one takes 60 µs, the rest of a Membership
2 µs, and the same ones are read again and again.
"""


@lru_cache(maxsize=PREFIXES_REMEMBERED)
def canonical_network(text: str) -> IPNetwork:
    """Raises ValueError, also for another spelling of the same prefix, host bits, IPv4-mapped prefixes and zones."""
    network = ip_network(text)
    if str(network) != text:
        raise ValueError(f"{text} is to be written {network}")
    if isinstance(network, IPv6Network) and (network.network_address.scope_id or network.subnet_of(_MAPPED)):
        raise ValueError(f"{text} is not a plain prefix")
    return network


_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def canonical_address(text: str) -> IPAddress:
    """Raises ValueError, also for another spelling of the same address, IPv4-mapped ones and zones."""
    address = ip_address(text)
    if str(address) != text:
        raise ValueError(f"{text} is to be written {address}")
    if isinstance(address, IPv6Address) and (address.ipv4_mapped or address.scope_id):
        raise ValueError(f"{text} is not a plain address")
    return address
