"""What a NAT does, in the words of RFC 4787, and the kinds that have a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from warren.errors import UsageError

NatMapping = Literal["eim", "adm", "apdm"]
"""RFC 4787 §4.1: the external port depends on nothing else, on the remote address, or on its address and port."""
NatFiltering = Literal["eif", "adf", "apdf"]
"""RFC 4787 §5: whose packets a mapping lets in: anyone's, or those of addresses, or ports, that were sent to before."""
NatAllocation = Literal["preserving", "sequential", "random"]
"""RFC 4787 §4.2: how the external port of a new mapping is chosen."""

UDP_LIFETIME_S: Final = 120
"""RFC 4787 REQ-5: the shortest time that an idle mapping must live."""
_LIFETIME_S_MAX: Final = 86_400


@dataclass(frozen=True, slots=True)
class NatKind:
    """The behaviour of a NAT for UDP and TCP. Raises UsageError for what no NAT can be.

    What filtering keeps out is dropped without an answer. With ``hairpin`` hosts inside reach each other at their
    external addresses whatever the filtering, seen under the external address of the sender (RFC 4787 REQ-9).
    """

    mapping: NatMapping = "eim"
    filtering: NatFiltering = "apdf"
    allocation: NatAllocation = "preserving"
    hairpin: bool = False
    udp_lifetime_s: int = UDP_LIFETIME_S
    """How long a UDP mapping lives after the last packet from inside."""
    overloads: bool = False
    """Two hosts inside with the same port share it outside, as behind Linux's masquerade (RFC 4787 §4.2.1): towards a
    destination that both use, the second one gets another port, and so has no endpoint-independent mapping.
    """

    def __post_init__(self) -> None:
        for name, words in (("mapping", NatMapping), ("filtering", NatFiltering), ("allocation", NatAllocation)):
            if getattr(self, name) not in get_args(words):
                raise UsageError(f"NAT {name} {getattr(self, name)!r}: say {', '.join(get_args(words))}")
        if self.allocation == "preserving" and self.mapping != "eim":
            raise UsageError("a NAT that preserves ports has mapping eim: with another one, say sequential or random")
        if self.overloads and (self.allocation, self.filtering, self.hairpin) != ("preserving", "apdf", False):
            raise UsageError("only a NAT that preserves ports, with filtering apdf and no hairpin, can overload them")
        if not 1 <= self.udp_lifetime_s <= _LIFETIME_S_MAX:
            raise UsageError(f"NAT udp_lifetime_s {self.udp_lifetime_s!r}: say 1 to {_LIFETIME_S_MAX} seconds")

    def __str__(self) -> str:
        words: list[str] = [self.mapping, self.filtering, self.allocation]
        words += ["hairpin"] if self.hairpin else []
        words += ["overloads"] if self.overloads else []
        words += [f"{self.udp_lifetime_s} s"] if self.udp_lifetime_s != UDP_LIFETIME_S else []
        return " ".join(words)


KINDS: Final[Mapping[str, NatKind]] = {
    "full-cone": NatKind("eim", "eif"),
    "address-restricted": NatKind("eim", "adf"),
    "port-restricted": NatKind("eim", "apdf"),
    "port-restricted-random": NatKind("eim", "apdf", "random"),
    "linux": NatKind("eim", "apdf", overloads=True),
    "address-symmetric": NatKind("adm", "adf", "random"),
    "symmetric": NatKind("apdm", "apdf", "random"),
    "symmetric-sequential": NatKind("apdm", "apdf", "sequential"),
}
"""NATs by name. The names of the first three and of ``symmetric`` are those of RFC 3489 §5."""


def nat_kind(kind: NatKind | str) -> NatKind:
    """A kind by its name, or itself. Raises UsageError for a name that is none."""
    if isinstance(kind, NatKind):
        return kind
    if kind not in KINDS:
        raise UsageError(f"NAT kind {kind!r}: say {', '.join(KINDS)}")
    return KINDS[kind]
