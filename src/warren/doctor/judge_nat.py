"""Findings about the NATs and filters between this host and the others, of one address family each."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address
from typing import Final

from warren.doctor.classify import is_inner, standing
from warren.doctor.observed import Family, NatSeen, Observed
from warren.doctor.report import Finding

_CARRIER: Final = IPv4Network("100.64.0.0/10")  # RFC 6598
_LEAST_PATH_MTU: Final = {4: 1340, 6: 1360}
"""What the tunnel's smallest MTU, 1280, takes on the way: IP, UDP and WireGuard's 32 bytes."""
_USUAL_PATH_MTU: Final = 1500
_LIFETIME_LEAST_S: Final = 30.0
"""Members keep mappings alive every 25 s."""
_OPEN_PORT: Final = "let the router forward a UDP port to this host, and name it in agent.toml ([public] addresses)"


def family_findings(family: Family) -> Iterator[Finding]:
    nat, topic = family.nat, f"IPv{family.version}"
    if nat is None:
        return
    if nat.mapped is None:
        if family.refused:
            yield Finding(topic, "warning", f"this host refuses to send UDP over {topic} ({family.refused})")
        else:
            yield Finding(
                topic,
                "warning",
                f"no server answers over {topic}, though there is an address and a route",
                f"packets over {topic} get lost on the way",
                "ask who runs this network",
            )
        return
    if nat.translated:
        yield from _nat(topic, nat)
    else:
        yield from _no_nat(topic, nat)
    yield from _mtu(topic, family)
    yield from _lifetime(topic, family)


def _no_nat(topic: str, nat: NatSeen) -> Iterator[Finding]:
    what = f"no NAT over {topic}: this host appears as {nat.mapped}"
    match nat.filtering:
        case "eif":
            yield Finding(topic, "good", what + ", and strangers' packets come in", "anybody can reach it directly")
        case None:
            yield Finding(
                topic,
                "unknown",
                what + "; the servers cannot try whether strangers' packets come in",
                "a firewall may or may not be in the way",
                "name a server with RFC 5780 (two addresses) by --stun",
            )
        case filtering:
            yield Finding(
                topic,
                "note",
                f"{what}, behind a firewall that lets in only answers ({_filtering(filtering)})",
                "direct paths come about when both sides send at once, which Warren does",
                f"to be reachable for all at once, let UDP to Warren's port in at the firewall ({topic})",
            )


def _nat(topic: str, nat: NatSeen) -> Iterator[Finding]:
    yield _nat_mapping(topic, nat)
    if nat.filtering is not None:
        easy = nat.filtering == "eif"
        yield Finding(
            f"{topic} filter",
            "good" if easy else "note",
            f"the NAT lets in {_filtering(nat.filtering)}",
            "who knows the outer address gets in" if easy else "both sides have to send at once, which Warren does",
        )
    elif nat.discovery is None:
        yield Finding(
            f"{topic} filter", "unknown", "what the NAT lets in is unknown: no server has two addresses (RFC 5780)"
        )
    if nat.hairpin is not None:
        yield _nat_hairpin(topic, hairpin=nat.hairpin)


def _nat_mapping(topic: str, nat: NatSeen) -> Finding:
    what = f"behind NAT over {topic}: {nat.local} appears as {nat.mapped}"
    ports = {
        "preserving": "ports stay as they are",
        "sequential": "ports are given out one after another",
        "random": "ports are given out at random",
    }.get(nat.allocation or "", "how ports are given out is unknown")
    match nat.mapping:
        case "eim":
            return Finding(
                topic,
                "good",
                f"{what}, the same for everybody (endpoint-independent mapping; {ports})",
                "others find this host by the address that relays see: direct paths come about with nearly everybody",
            )
        case None:
            return Finding(
                topic,
                "unknown",
                f"{what}; one server alone cannot tell how the NAT maps",
                "whether direct paths come about with other hidden members is unknown",
                "name a second server, or one with two addresses, by --stun",
            )
        case mapping:
            name = "address-dependent" if mapping == "adm" else "address- and port-dependent"
            guessable = nat.allocation == "sequential"
            return Finding(
                topic,
                "note",
                f'{what}, but otherwise for everybody else ({name} mapping, "symmetric"; {ports})',
                "direct paths come about with public members and behind easy NATs"
                + (", often also by guessing the next port" if guessable else ", otherwise seldom")
                + "; the rest goes through a relay",
                f"switch on UPnP, NAT-PMP or PCP in the router, or {_OPEN_PORT}; IPv6 would do as well",
            )


def _nat_hairpin(topic: str, *, hairpin: bool) -> Finding:
    if hairpin:
        return Finding(f"{topic} hairpin", "good", "hosts behind this NAT reach each other at their outer addresses")
    return Finding(
        f"{topic} hairpin",
        "note",
        "hosts behind this NAT do not reach each other at their outer addresses",
        "members behind it find each other by their inner addresses, on the same network only",
    )


def _filtering(filtering: str) -> str:
    return {
        "eif": "everybody (endpoint-independent filtering)",
        "adf": "hosts that were sent to before (address-dependent filtering)",
        "apdf": "only the very ports that were sent to before (address- and port-dependent filtering)",
    }[filtering]


def _mtu(topic: str, family: Family) -> Iterator[Finding]:
    if family.path_mtu is None:
        return
    least = _LEAST_PATH_MTU[family.version]
    if family.path_mtu < least:
        yield Finding(
            "MTU",
            "warning",
            f"packets of more than {family.path_mtu} bytes get lost over {topic}",
            f"a tunnel needs {least} bytes for packets of 1280, the least that IPv6 allows: larger ones are fragmented",
            "raise the MTU on the way (a tunnel or PPPoE in the router?)",
        )
    elif family.path_mtu < _USUAL_PATH_MTU:
        yield Finding("MTU", "note", f"packets of up to {family.path_mtu} bytes get through over {topic}")
    else:
        yield Finding("MTU", "good", f"packets of {family.path_mtu} bytes get through over {topic}")


def _lifetime(topic: str, family: Family) -> Iterator[Finding]:
    seen = family.lifetime
    if seen is None:
        return
    if seen.below_s is None:
        yield Finding("lifetime", "good", f"an unused mapping over {topic} lives {seen.at_least_s:g} s or longer")
        return
    span = f"between {seen.at_least_s:g} and {seen.below_s:g} s"
    short = seen.below_s <= _LIFETIME_LEAST_S
    yield Finding(
        "lifetime",
        "warning" if short else "good",
        f"an unused mapping over {topic} lives {span}",
        "others may not get in after a silence, until this host sends again" if short else "",
        "raise the UDP timeout of the router (RFC 4787: two minutes at least)" if short else "",
    )


def double_nat_findings(observed: Observed) -> Iterator[Finding]:
    if standing(observed.ipv4) != "translated":
        return
    routers = [ip_address(hop) for hop in observed.hops if hop]
    carrier = [router for router in routers if router in _CARRIER]
    hidden = [router for router in routers if is_inner(router) and router not in _CARRIER]
    mapped = (observed.ipv4.nat.mapped or "").rpartition(":")[0] if observed.ipv4.nat else ""
    if carrier:
        yield Finding(
            "double NAT",
            "warning",
            f"the way out leads through a carrier's NAT ({carrier[0]})",
            "no port of the outer address can be had: port mapping and forwarding in the own router do not help",
            "ask the provider for a public IPv4 address, or for IPv6",
        )
    elif len(hidden) > 1 and mapped not in map(str, routers):
        inner, outer = hidden[0], hidden[1]
        yield Finding(
            "double NAT",
            "warning",
            f"two routers with private addresses are on the way out ({inner}, then {outer}): perhaps two NATs",
            "a port mapped in the first one may lead nowhere",
            f"let {inner} only bridge, or forward Warren's port in {outer} too",
        )


def port_mapping_findings(observed: Observed) -> Iterator[Finding]:
    if observed.gateways is None or standing(observed.ipv4) != "translated":
        return
    if observed.gateways:
        spoken = ", ".join(f"{one.protocol} ({one.address})" for one in observed.gateways)
        yield Finding(
            "port mapping", "good", f"the router maps ports when asked: {spoken}", "members get in by the mapped port"
        )
    else:
        yield Finding(
            "port mapping",
            "note",
            "the router answers neither PCP nor NAT-PMP nor UPnP",
            "no port can be opened from here",
            f"switch one of them on in the router, or {_OPEN_PORT}",
        )
