"""The oracle: whether two nodes must find a direct path, by which means, and why (RFC 4787, RFC 5128, Ford 2005).

It knows nothing of packets. What the machines of this package do, in the simulation and in the lab, is judged by it.

A NAT is described by the words of RFC 4787:

==============  ========================================================================================
mapping (§4.1)  what a socket's outside port depends on: nothing (``eim``), the destination's address
                (``adm``), its address and port (``apdm``)
filtering (§5)  who may send to that port: anybody (``eif``), addresses that were sent to (``adf``),
                addresses and ports that were sent to (``apdf``)
allocation      which port a new mapping gets: the socket's own (``preserving``), the next one
(§4.2.1)        (``sequential``), any (``random``)
==============  ========================================================================================

The outside port is *known* to a third party if every destination sees the same one: mapping ``eim``, or allocation
``preserving``. With ``known`` meaning that, and the two sides behind different NATs:

===========================================================  ===============
the two sides                                                by
===========================================================  ===============
one is known and filters nothing                             ``open``
both are known                                               ``punched``
one is known and filters by address, the other is not known  ``punched``
one is known and filters by port, the other is sequential    ``predicted``
one is known and filters by port, the other is random        ``birthday``
neither is known                                             ``relay`` (*)
===========================================================  ===============

(*) but for one that filters nothing and another that does not filter by port, if the port of either depends on the
address alone: the first is found where a server saw it, answers from elsewhere, and is heard (``punched``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from warren.errors import MalformedPacket

Mapping = Literal["eim", "adm", "apdm"]
Filtering = Literal["eif", "adf", "apdf"]
Allocation = Literal["preserving", "sequential", "random"]
Means = Literal["open", "lan", "punched", "predicted", "birthday", "tcp", "relay", "none"]

_MAPPINGS: Final[tuple[Mapping, ...]] = get_args(Mapping)
_FILTERINGS: Final[tuple[Filtering, ...]] = get_args(Filtering)
_ALLOCATIONS: Final[tuple[Allocation, ...]] = get_args(Allocation)
MEANS: Final[tuple[Means, ...]] = ("lan", "open", "punched", "predicted", "birthday", "tcp", "relay", "none")
"""The best first."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How what stands between a node and the Internet treats one address family: nothing, a firewall or a NAT."""

    mapping: Mapping = "eim"
    filtering: Filtering = "eif"
    allocation: Allocation = "preserving"
    hairpin: bool = False
    """Two nodes behind it reach each other at their outside addresses (RFC 4787 §6)."""
    lifetime_s: float | None = None
    """How long a mapping outlives its last packet (RFC 4787 §4.3); None: not known, or for ever."""
    translated: bool = True
    """The address changes; False: at most a firewall."""

    @property
    def known(self) -> bool:
        """Every destination sees one outside port, so that a server can tell it to others."""
        return self.mapping == "eim" or self.allocation == "preserving"

    def __str__(self) -> str:
        """The words of :meth:`Situation.from_text_untrusted`, joined by commas."""
        if not self.translated and self.mapping == "eim":
            word = {"eif": "open", "apdf": "firewalled", "adf": "firewalled-adf"}[self.filtering]
            return word if self.lifetime_s is None else f"{word},{self.lifetime_s:g}s"
        words: list[str] = [self.mapping, self.filtering, self.allocation]
        words += ["hairpin"] * self.hairpin
        if self.lifetime_s is not None:
            words.append(f"{self.lifetime_s:g}s")
        return ",".join(words)


OPEN: Final = Behaviour(translated=False)
"""A public address, and nothing in front of it; also a port that a gateway mapped on request."""
FIREWALLED: Final = Behaviour(filtering="apdf", translated=False)
"""A stateful firewall: only answers come in."""
FULL_CONE: Final = Behaviour()
ADDRESS_RESTRICTED: Final = Behaviour(filtering="adf")
PORT_RESTRICTED: Final = Behaviour(filtering="apdf")
SYMMETRIC: Final = Behaviour("apdm", "apdf", "random")
SYMMETRIC_SEQUENTIAL: Final = Behaviour("apdm", "apdf", "sequential")


def behind(inner: Behaviour, outer: Behaviour) -> Behaviour:
    """Two NATs in a row (a home behind a CGN) as one: the worse of each trait counts. Together they may let more in
    than that, if only one of them filters and the other maps by destination.
    """
    mapping = _MAPPINGS[max(_MAPPINGS.index(inner.mapping), _MAPPINGS.index(outer.mapping))]
    filtering = _FILTERINGS[max(_FILTERINGS.index(inner.filtering), _FILTERINGS.index(outer.filtering))]
    # Of a port that the inner one keeps, the outer one decides. If the outer one keeps ports, the inner one does.
    allocation = inner.allocation if outer.allocation == "preserving" else outer.allocation
    lifetimes = [one.lifetime_s for one in (inner, outer) if one.lifetime_s is not None]
    translated = inner.translated or outer.translated
    return Behaviour(mapping, filtering, allocation, outer.hairpin, min(lifetimes, default=None), translated)


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a node sits. ``lans`` and ``outside4`` only matter where two situations have them in common."""

    v4: Behaviour | None = None
    """None: no IPv4. Behind a NAT64 it is the translator's behaviour: to others the node has an IPv4 address."""
    v6: Behaviour | None = None
    udp: bool = True
    """UDP leaves the site."""
    tcp: bool = True
    """TCP to any port leaves the site."""
    relay: bool = True
    """Some relay can be reached, over UDP, TCP or TLS."""
    nat64: bool = False
    """``v4`` is that of a NAT64."""
    lans: frozenset[str] = frozenset()
    """Names of the links it is on, or of the prefixes that are routed inside its site."""
    outside4: str = ""
    """Its public IPv4 address, shared by all behind the same NAT."""

    def __str__(self) -> str:
        """The form of ``NodeRecord.nat``, below 256 characters; ``lans`` and ``outside4`` are not in it."""
        words = [f"v4:{self.v4}"] * (self.v4 is not None) + [f"v6:{self.v6}"] * (self.v6 is not None)
        words += ["nat64"] * self.nat64 + ["no-udp"] * (not self.udp) + ["no-tcp"] * (not self.tcp)
        return " ".join(words + ["no-relay"] * (not self.relay))

    @staticmethod
    def from_text_untrusted(text: str) -> Situation:
        """The inverse of ``str``: ``v4:eim,apdf,preserving,hairpin,30s v6:firewalled no-tcp``. Words that are not known
        are passed over, so that later versions may say more. Raises MalformedPacket.
        """
        if len(text) > TEXT_CHARACTERS_MAX:
            raise MalformedPacket(f"the description of a NAT with {len(text)} characters")
        words = text.split()
        families: dict[str, Behaviour] = {}
        for word in words:
            family, colon, behaviour = word.partition(":")
            if colon and family in {"v4", "v6"}:
                families[family] = behaviour_from_text_untrusted(behaviour)
        return Situation(
            v4=families.get("v4"),
            v6=families.get("v6"),
            udp="no-udp" not in words,
            tcp="no-tcp" not in words,
            relay="no-relay" not in words,
            nat64="nat64" in words,
        )


TEXT_CHARACTERS_MAX: Final = 256
_UNTRANSLATED: Final = {
    "open": OPEN,
    "firewalled": FIREWALLED,
    "firewalled-adf": Behaviour(filtering="adf", translated=False),
}


def behaviour_from_text_untrusted(text: str) -> Behaviour:
    """The inverse of a Behaviour's ``str``. A trait that is not named is the worst there is. Raises MalformedPacket."""
    first, *others = text.split(",")
    lifetime = next((_seconds(word) for word in others if word[:1].isdigit()), None)
    if first in _UNTRANSLATED:
        plain = _UNTRANSLATED[first]
        return Behaviour(filtering=plain.filtering, lifetime_s=lifetime, translated=False)
    mapping = next((one for one in _MAPPINGS if one == first), None)
    if mapping is None:
        raise MalformedPacket(f"{first[:32]!r} is no mapping of a NAT")
    filtering: Filtering = next((one for one in _FILTERINGS if one in others), "apdf")
    worst: Allocation = "preserving" if mapping == "eim" else "random"
    allocation = next((one for one in _ALLOCATIONS if one in others), worst)
    return Behaviour(mapping, filtering, allocation, "hairpin" in others, lifetime)


def _seconds(word: str) -> float:
    digits, s, rest = word.partition("s")
    whole, _, part = digits.partition(".")
    if s and not rest and (whole + part).isascii() and (whole + part).isdigit() and len(digits) <= 9:
        return float(digits)
    raise MalformedPacket(f"{word[:32]!r} is no lifetime of a NAT")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``direct``: a direct path must appear. ``why`` is one sentence for people."""

    direct: bool
    by: Means
    why: str
    family: Literal[0, 4, 6] = 0
    """The address family of the direct path; 0: there is none, or it is a LAN."""


def verdict(a: Situation, b: Situation) -> Verdict:
    """What two nodes with the real machines, hard punching and a relay switched on, must come to. Symmetric."""
    common = a.lans & b.lans
    if common:
        return Verdict(True, "lan", "They are on one network, where nothing stands between them.")
    found = [_of_family(a, b, 6), _of_family(a, b, 4)]
    best = min(found, key=lambda one: (MEANS.index(one.by), one.why.startswith(_NO_FAMILY)))
    # The relay of one suffices if the other can send UDP to it; over TCP each needs its own.
    if best.direct or (a.relay and b.relay) or (a.relay and b.udp) or (b.relay and a.udp):
        return best
    without = "neither reaches" if not (a.relay or b.relay) else "one of them does not reach"
    return Verdict(False, "none", f"{best.why.removesuffix('.')}, and {without} a relay.")


def _of_family(a: Situation, b: Situation, family: Literal[4, 6]) -> Verdict:
    mine, theirs = (a.v4, b.v4) if family == 4 else (a.v6, b.v6)
    if mine is None or theirs is None:
        return Verdict(False, "relay", _NO_FAMILY)
    if family == 4 and a.outside4 and a.outside4 == b.outside4 and not (mine.hairpin and theirs.hairpin):
        return Verdict(
            False, "relay", "They are behind one NAT on different networks, and it does not send back what leaves it."
        )
    by, why = _between(mine, theirs)
    if a.udp and b.udp:
        return Verdict(by != "relay", by, why, family if by != "relay" else 0)
    blocked = "UDP is blocked on both sides" if not (a.udp or b.udp) else "UDP is blocked on one side"
    if not (a.tcp and b.tcp):
        return Verdict(False, "relay", f"{blocked}, and TCP to any port does not get through either.")
    if by in {"open", "punched"}:
        return Verdict(True, "tcp", f"{blocked}, but both can open a TCP connection at the same time.", family)
    return Verdict(False, "relay", f"{blocked}, and for TCP: {why[0].lower()}{why[1:]}")


_NO_FAMILY: Final = "They have no address family in common."


def _between(a: Behaviour, b: Behaviour) -> tuple[Means, str]:
    """The table of the module's docstring."""
    if any(one.known and one.filtering == "eif" for one in (a, b)):
        bare = any(not one.translated and one.filtering == "eif" for one in (a, b))
        return "open", ("One of them is open to everybody." if bare else "One NAT passes on what anybody sends.")
    if a.known and b.known:
        firewalls = not (a.translated or b.translated)
        stands = "Both firewalls let" if firewalls else "Both NATs keep one outside port for all destinations and let"
        return "punched", f"{stands} answers in."
    if not (a.known or b.known):
        for one, other in ((a, b), (b, a)):
            if one.filtering == "eif" and other.filtering != "apdf" and "adm" in {one.mapping, other.mapping}:
                return "punched", "One NAT passes on what anybody sends, and the other lets the answer in."
        return "relay", "Both NATs use another outside port for every destination: neither can tell where to send to."
    easy, hard = (a, b) if a.known else (b, a)
    if easy.filtering == "adf":
        return "punched", "One NAT changes its outside port, but the other lets in any port of an address it sent to."
    if hard.allocation == "sequential":
        return "predicted", "One NAT changes its outside port for every destination, but the next one can be foreseen."
    return "birthday", "One NAT uses a random outside port for every destination: many tries on both sides meet."
