"""Members, services, rules and flows for tests of what a policy means, whoever reads it."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address
from typing import Any

from hypothesis import strategies as st

from tests.support.networks import MadeNetwork
from warren.model.documents import NetworkSpec, Rule
from warren.model.policy import Flow
from warren.model.services import Service

HOME = MadeNetwork()
A = HOME.member("a", tags=("admin", "web"))
B = HOME.member("b", tags=("web",), routes=("192.168.9.0/24", "2001:db8:9::/48"))
V6 = HOME.member("v6", address4=None)
MEMBERS = (A, B, V6)


SERVICES = (
    Service(name="page", at=("tag:web",), target="localhost:80"),
    Service(name="files", at=("member:a", "member:v6"), target="localhost:21", helper="ftp"),
    Service(name="dns", at=("member:b",), target="localhost:53", protocol="udp"),
    Service(name="idle", at=("member:x",), target="localhost:80"),
)


def spec(*rules: Rule) -> NetworkSpec:
    return HOME.spec(policy=rules, services=SERVICES).document


def rule(action: str, sources: str, destinations: str, protocol: str = "any", *ports: str) -> Rule:
    values: dict[str, Any] = {"action": action, "protocol": protocol, "ports": ports}
    return Rule(sources=tuple(sources.split()), destinations=tuple(destinations.split()), **values)


SELECTORS = st.sampled_from(
    [
        *("members", "member:a", "member:b", "member:v6", "member:x", "tag:web", "tag:admin", "tag:x"),
        *("0.0.0.0/0", "::/0", "10.77.0.0/30", "10.77.0.2/32", "192.168.9.0/24", "2001:db8:9::/48"),
        *(str(HOME.prefix6), str(A.prefix6), f"{B.address6}/128", str(A.prefix6.supernet())),
    ]
)
DESTINATIONS = SELECTORS | st.sampled_from(
    [
        *("service:page", "service:files", "service:dns", "service:idle", "service:x"),
        f"{A.service_address('page')}/128",
        str(IPv6Network((A.service_address("files"), 112), strict=False)),
    ]
)
PROTOCOLS = st.sampled_from(["any", "tcp", "udp", "icmp"]).flatmap(
    lambda protocol: st.tuples(
        st.just(protocol),
        st.lists(
            st.sampled_from(["1", "22", "20-25", "80", "53", "8000-8100", "65535", "49152-50000"]),
            max_size=2 * (protocol in {"tcp", "udp"}),
        ),
    )
)
RULES = st.builds(
    lambda action, sources, destinations, protocol: rule(
        action, " ".join(sources), " ".join(destinations), protocol[0], *protocol[1]
    ),
    st.sampled_from(["allow", "deny"]),
    st.lists(SELECTORS, min_size=1, max_size=3),
    st.lists(DESTINATIONS, min_size=1, max_size=3),
    PROTOCOLS,
)
ADDRESSES = st.sampled_from(
    [
        *(member.address6 for member in MEMBERS),
        *(member.address4 for member in MEMBERS if member.address4 is not None),
        *(member.prefix6[-1] for member in MEMBERS),
        *map(ip_address, ("10.77.0.0", "10.77.0.3", "192.168.9.9", "192.168.8.9", "8.8.8.8", "2001:db8:9::9", "::")),
        HOME.prefix6[0],
        HOME.plan.prefix(9)[1],
    ]
)
PLACES = ADDRESSES | st.sampled_from(
    [member.service_address(service.name) for member in MEMBERS for service in SERVICES]
)
FLOWS = st.builds(
    Flow,
    ADDRESSES,
    PLACES,
    st.sampled_from(["tcp", "udp", "icmp"]),
    st.sampled_from([None, 1, 21, 22, 26, 53, 80, 8000, 8101, 49_151, 49_152, 50_001, 65_534, 65_535]),
)
