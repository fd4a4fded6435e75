"""How a node is connected, in one word: public, hidden, hidden dual-stack, and whether its NICs lead apart.

==================  ==========================================================================================
word                when
==================  ==========================================================================================
public              by IPv4 or IPv6: no NAT, and strangers' packets come in
hidden-dual-stack   not public, and IPv6 leads out (through a firewall)
hidden              not public, and there is IPv4 only: NAT or firewall
unknown             nobody outside answered, or nobody could try whether strangers' packets come in
==================  ==========================================================================================
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_interface
from typing import Final, Literal

from warren.doctor.observed import Family, Nic, Observed
from warren.doctor.report import Kind
from warren.model.tunnel import IPAddress, IPNetwork

Standing = Literal["open", "firewalled", "untried", "translated", "silent", "absent"]
"""``untried``: no NAT, and no server that could try strangers' packets. ``silent``: asked, and nobody answered.
``absent``: there is no way out, or nobody to ask.
"""


_INNER: Final[tuple[IPNetwork, ...]] = (
    *(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),  # RFC 1918
    IPv4Network("100.64.0.0/10"),  # RFC 6598
    IPv4Network("169.254.0.0/16"),
    IPv6Network("fc00::/7"),  # RFC 4193
    IPv6Network("fe80::/10"),
)


def is_inner(ip: IPAddress) -> bool:
    """Whether an address means something inside one site only."""
    return any(ip in network for network in _INNER)


def standing(family: Family) -> Standing:
    """How one address family stands."""
    nat = family.nat
    if nat is None:
        return "absent"
    if nat.mapped is None:
        return "silent"
    if nat.translated:
        return "translated"
    if nat.filtering is None:
        return "untried"
    return "open" if nat.filtering == "eif" else "firewalled"


def classify(observed: Observed) -> Kind:
    """The node's kind."""
    four, six = standing(observed.ipv4), standing(observed.ipv6)
    if "open" in {four, six}:
        return "public"
    if "untried" in {four, six}:
        return "unknown"
    if six in {"firewalled", "translated"}:
        return "hidden-dual-stack" if four in {"firewalled", "translated"} or not _has_ipv4(observed) else "hidden"
    if four in {"firewalled", "translated"}:
        return "hidden-dual-stack" if leads_out(observed.nics, 6) and six == "absent" else "hidden"
    return "unknown"


def leads_out(nics: tuple[Nic, ...], version: int) -> bool:
    """Whether some interface has a public address of that family and a default route."""
    return any(
        ip_interface(address).version == version
        and not is_inner(ip_interface(address).ip)
        and _has_gateway(nic, version)
        for nic in nics
        for address in nic.addresses
    )


def leads_somewhere(nics: tuple[Nic, ...], version: int) -> bool:
    """Whether there is a default route of that family."""
    return any(_has_gateway(nic, version) for nic in nics)


def has_two_nics(observed: Observed) -> bool:
    """A public address on one interface, and another interface with addresses that are not."""
    public = {nic.name for nic in observed.nics if _has_public(nic)}
    private = {nic.name for nic in observed.nics if nic.addresses and not _has_public(nic)}
    return bool(public and private)


def words(observed: Observed) -> str:
    """The kind as a sentence."""
    four, six = standing(observed.ipv4), standing(observed.ipv6)
    match classify(observed):
        case "public":
            by = " and ".join(name for name, one in (("IPv4", four), ("IPv6", six)) if one == "open")
            text = f"public: anybody can reach this host by {by}"
        case "hidden-dual-stack":
            how = {"translated": "IPv4 behind NAT", "firewalled": "IPv4 behind a firewall"}.get(four, "no IPv4")
            text = f"hidden dual-stack: {how}, IPv6 behind a firewall"
        case "hidden":
            how = "a NAT" if four == "translated" else "a firewall"
            text = f"hidden: behind {how}, and no IPv6"
        case _:
            if "untried" in {four, six}:
                text = "not behind NAT; nobody could try whether strangers' packets come in"
            elif not (observed.ipv4.asked or observed.ipv6.asked):
                text = "unknown: there is nobody to ask"
            elif any(seen.outcome == "good" for seen in observed.tcp):
                text = "hidden, as far as can be seen: UDP gets no answer, TCP does"
            else:
                text = "unknown: nobody outside answers"
    return f"{text}; its interfaces lead to a public and another segment" if has_two_nics(observed) else text


def _has_ipv4(observed: Observed) -> bool:
    return any(ip_interface(address).version == 4 for nic in observed.nics for address in nic.addresses)


def _has_gateway(nic: Nic, version: int) -> bool:
    return any(gateway == "on-link" or (":" in gateway) == (version == 6) for gateway in nic.gateways)


def _has_public(nic: Nic) -> bool:
    return any(not is_inner(ip_interface(address).ip) for address in nic.addresses)
