"""From what was seen to a diagnosis, without looking any further. NATs are judged in ``judge_nat``, the host itself in
``judge_host``.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from warren.doctor.classify import classify, has_two_nics, leads_out, leads_somewhere, standing, words
from warren.doctor.judge_host import host_findings
from warren.doctor.judge_nat import double_nat_findings, family_findings, port_mapping_findings
from warren.doctor.observed import Observed, TcpSeen
from warren.doctor.report import Finding, Report


def judge(observed: Observed) -> Report:
    """The diagnosis."""
    findings = (
        *_way_out(observed),
        *_udp(observed),
        *(
            finding
            for family in (observed.ipv4, observed.ipv6)
            if _udp_answered(observed)
            for finding in family_findings(family)
        ),
        *_ipv6(observed),
        *double_nat_findings(observed),
        *port_mapping_findings(observed),
        *_tcp(observed),
        *_two_nics(observed),
        *host_findings(observed),
        *(Finding("not looked at", "unknown", sentence) for sentence in observed.passed_over),
    )
    return Report(
        kind=classify(observed),
        two_nics=has_two_nics(observed),
        words=words(observed),
        findings=findings,
        observed=observed,
    )


def _way_out(observed: Observed) -> Iterator[Finding]:
    if not any(nic.gateways for nic in observed.nics):
        yield Finding(
            "way out",
            "bad" if not _somebody_answered(observed) else "note",
            "there is no default route",
            "only hosts on the same links can be reached",
            "connect the host to a network, or add a default route (`ip route add default via ROUTER`)",
        )
    elif any(observed.tcp) and all(seen.outcome != "good" for seen in observed.tcp) and not _udp_answered(observed):
        yield Finding(
            "way out",
            "bad",
            "nobody outside answers, by UDP or by TCP",
            "the network here leads nowhere, or a firewall stops everything",
            "see whether this host reaches anything else; ask who runs this network",
        )


def _udp(observed: Observed) -> Iterator[Finding]:
    asked = [*observed.ipv4.asked, *observed.ipv6.asked]
    if not asked:
        yield Finding(
            "UDP",
            "unknown",
            "no STUN server is known, so nobody could be asked how this host appears outside",
            "NAT and firewall remain unknown",
            "run `warren doctor --stun HOST:PORT`, or give the network a relay",
        )
        return
    refused = observed.ipv4.refused or observed.ipv6.refused
    if refused and not _udp_answered(observed):
        yield Finding(
            "UDP",
            "bad",
            f"this host itself refuses to send UDP ({refused})",
            "a firewall on this host stops it before it leaves",
            "let UDP out (`nft list ruleset` shows the rules)",
        )
    elif not _udp_answered(observed):
        by_tcp = any(seen.outcome == "good" for seen in observed.tcp)
        relayed = any(seen.outcome == "good" and seen.role == "relay" for seen in observed.tcp)
        yield Finding(
            "UDP",
            "warning" if relayed else "bad",
            f"no STUN server answers ({', '.join(asked[:4])})" + (", though TCP gets out" if by_tcp else ""),
            "UDP is blocked here, or those servers are down: there is no direct path to anybody, "
            + ("and everything goes through a relay over TLS" if relayed else "and no relay over TLS answers either"),
            "let UDP out at the firewall, at least to the relays' port (3478)",
        )


def _ipv6(observed: Observed) -> Iterator[Finding]:
    if observed.kernel.ipv6_disabled:
        yield Finding(
            "IPv6",
            "note",
            "IPv6 is switched off on this host",
            "direct paths by IPv6 are not to be had",
            "set sysctl net.ipv6.conf.all.disable_ipv6=0",
        )
        return
    if standing(observed.ipv6) != "absent":
        return
    if leads_out(observed.nics, 6):
        yield Finding(
            "IPv6",
            "unknown",
            "there is an IPv6 address and a route, but no server with IPv6 to ask",
            "whether IPv6 works is unknown",
            "name one by --stun, or give a relay an IPv6 address",
        )
        return
    deaf = [nic.name for nic in observed.nics if nic.advertisements and nic.accepts_advertisements is False]
    silent = [nic.name for nic in observed.nics if nic.advertisements == 0]
    if deaf:
        yield Finding(
            "IPv6",
            "warning",
            f"routers advertise IPv6 on {', '.join(deaf)}, but this host does not heed them",
            "it has no IPv6 though the network does",
            f"set sysctl net.ipv6.conf.{deaf[0]}.accept_ra=2 (1 is not enough on hosts that forward)",
        )
    elif silent:
        yield Finding(
            "IPv6",
            "note",
            f"no router advertisement came in on {', '.join(silent)}",
            "the network has no IPv6, so NAT and relays have to do",
            "switch IPv6 on in the router: with it most direct paths come about without any tricks",
        )
    else:
        yield Finding("IPv6", "note", "this host has no global IPv6 address", "NAT and relays have to do")


def _tcp(observed: Observed) -> Iterator[Finding]:
    if observed.proxy:
        yield Finding(
            "proxy", "note", f"HTTPS goes through the proxy {observed.proxy}, as the environment or agent.toml says"
        )
    portals = dict.fromkeys(seen.portal for seen in observed.tcp if seen.portal)
    for portal in portals:
        where = "a sign-in page" if portal == "sign in" else portal
        yield Finding(
            "captive portal",
            "bad",
            f"this network sends browsers to {where}",
            "it lets nothing out until somebody has signed in",
            "open a browser and sign in",
        )
    for seen in observed.tcp:
        match seen.outcome:
            case "wrong":
                yield Finding(
                    seen.name,
                    "bad",
                    seen.detail,
                    "somebody in between opens or redirects encrypted connections: nothing secret was sent to them",
                    "use a network without an intercepting proxy, or have its operator let these connections through",
                )
            case "silent" if _needless(seen, observed):
                pass
            case "silent":
                asks = "?" in seen.detail  # as the control client words it
                remedy = "" if portals or asks else "is it running, and does every firewall let its TCP port through?"
                yield Finding(seen.name, "warning", seen.detail, "", remedy)
            case _:
                yield Finding(seen.name, "good", f"{seen.place} answers and proves itself")


def _needless(seen: TcpSeen, observed: Observed) -> bool:
    """It is at an address of a family that this host does not have, and answers at another one."""
    try:
        version = ip_address(urlsplit(seen.place if "//" in seen.place else f"//{seen.place}").hostname or "").version
    except ValueError:
        return False  # a name
    elsewhere = any(one.name == seen.name and one.outcome == "good" for one in observed.tcp)
    return elsewhere and not leads_somewhere(observed.nics, version)


def _two_nics(observed: Observed) -> Iterator[Finding]:
    ways = [nic.name for nic in observed.nics if nic.gateways]
    if has_two_nics(observed):
        names = ", ".join(f"{nic.name} ({', '.join(nic.addresses)})" for nic in observed.nics if nic.addresses)
        yield Finding(
            "interfaces",
            "note",
            f"a public and another segment are on interfaces apart: {names}",
            "members use whichever leads to them",
            "to keep one of them out, name it under ignored_interfaces in agent.toml",
        )
    elif len(ways) > 1:
        yield Finding(
            "interfaces", "good", f"there are several uplinks ({', '.join(ways)})", "when one dies another is used"
        )
    strict = observed.kernel.strict_reverse_path
    if len(ways) > 1 and strict:
        yield Finding(
            "interfaces",
            "warning",
            f"strict reverse path filtering on {', '.join(strict)} drops what comes in by the other uplink",
            "paths by the second uplink do not come about",
            "set sysctl net.ipv4.conf.all.rp_filter=2",
        )


def _udp_answered(observed: Observed) -> bool:
    return any(family.nat is not None and family.nat.mapped for family in (observed.ipv4, observed.ipv6))


def _somebody_answered(observed: Observed) -> bool:
    return _udp_answered(observed) or any(seen.outcome == "good" for seen in observed.tcp)
