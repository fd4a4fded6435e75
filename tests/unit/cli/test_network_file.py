"""The desired-state file: what it says, and what is wrong with it, line by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.cli.network_file import BYTES_MAX, read
from warren.cli.network_render import render
from warren.model.documents import Rule
from warren.proto.control.desired_state import (
    ConnectorState,
    DesiredState,
    MemberState,
    PolicyTest,
    Problem,
    ServiceState,
)

FILE = b"""\
network = "home"
suffix = "vpn.example.com"
lease = "1h30m"

[members.web1]
tags = ["web"]
routes = ["192.168.7.0/24", "fd00:7::/64"]

[[policy]]
action = "allow"
from = ["tag:admin"]
to = "members"
protocol = "tcp"
ports = [22, "8000-8100"]
comment = "administration"

[[policy]]
action = "deny"
from = ["members"]
to = [
    "10.0.0.0/8",
    "member:web1",
]

[[test]]
from = "alice"
to = "web1"
port = 22
expect = "allow"
"""

STATE = DesiredState(
    suffix="vpn.example.com",
    lease_s=5400,
    members={"web1": MemberState(tags=("web",), routes=("192.168.7.0/24", "fd00:7::/64"))},
    policy=(
        Rule(
            action="allow",
            sources=("tag:admin",),
            destinations=("members",),
            protocol="tcp",
            ports=("22", "8000-8100"),
            comment="administration",
        ),
        Rule(action="deny", sources=("members",), destinations=("10.0.0.0/8", "member:web1")),
    ),
    tests=(PolicyTest(source="alice", destination="web1", port=22, expect="allow"),),
)


def test_a_file_says_everything_that_an_operator_decides() -> None:
    file = read(FILE)
    assert file.problems == []
    assert file.network == "home"
    assert file.state == STATE


def test_windows_line_ends_and_a_byte_order_mark_change_nothing() -> None:
    file = read(b"\xef\xbb\xbf" + FILE.replace(b"\n", b"\r\n"))
    assert file.problems == []
    assert file.state == STATE


def test_what_is_left_out_stays_as_it_is() -> None:
    file = read(b'network = "home"\npolicy = []\n')
    assert file.problems == []
    assert file.state == DesiredState(policy=())
    assert file.state.suffix is None
    assert file.state.lease_s is None


SERVICES = b"""\
network = "home"
policy = []

[service.shop]
at = ["tag:web", "member:web1"]
target = "localhost:8080"
port = 80
connect_timeout = "3s"
idle = "1h30m"
health = "0"
proxy_protocol = true
comment = "the shop"

[service.dns]
at = "members"
target = "[2001:db8::7]:53"
protocol = "udp"

[connector.shop]
at = ["tag:gateway"]
service = "shop"
kind = "http"
domains = ["Shop.Example.com"]
certificate = "internal"
listen = "*:8443"

[connector.local]
at = ["members"]
service = "dns"
listen = 5353
sources = ["192.0.2.7", "2001:db8::/32"]
rate = 5
streams_max = 100
"""
SHOP = ServiceState(
    at=("tag:web", "member:web1"),
    target="localhost:8080",
    port=80,
    connect_timeout_s=3,
    idle_s=5400,
    health_s=0,
    proxy_protocol=True,
    comment="the shop",
)


def test_services_and_connectors_are_tables_by_name() -> None:
    file = read(SERVICES)
    assert file.problems == []
    assert file.state.services == {
        "shop": SHOP,
        "dns": ServiceState(at=("members",), target="[2001:db8::7]:53", protocol="udp"),
    }
    assert file.state.connectors == {
        "shop": ConnectorState(
            at=("tag:gateway",),
            service="shop",
            kind="http",
            domains=("shop.example.com",),
            certificate="internal",
            listen="*:8443",
        ),
        "local": ConnectorState(
            at=("members",),
            service="dns",
            listen="5353",
            sources=("192.0.2.7/32", "2001:db8::/32"),
            rate=5.0,
            streams_max=100,
        ),
    }


def test_no_services_are_said_and_what_is_not_said_stays() -> None:
    top = b'network = "home"\npolicy = []\n'
    assert (read(top).state.services, read(top).state.connectors) == (None, None)
    none = read(top + b"service = {}\nconnector = {}\n").state
    assert (none.services, none.connectors) == ({}, {})
    assert b"service = {}" in render("home", none).encode()


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "what"),
    [
        (b"[service.shop]", b"[service.Shop]", 4, "service.Shop", "'Shop' is no name"),
        (b"[service.dns]", b"[servce.dns]", 14, "servce", "no such key (did you mean service?)"),
        (b'"tag:web", ', b'"tag:web", "web", ', 5, "service.shop.at[1]", "'web' is no selector"),
        (b'"localhost:8080"', b'"localhost"', 6, "service.shop.target", "'localhost' is no target: say HOST:PORT"),
        (b'"localhost:8080"', b"8080", 6, "service.shop.target", "must be a text in quotes"),
        (b"port = 80", b"port = 70000", 7, "service.shop.port", "this must be at most 65535"),
        (b"port = 80", b"port = 50000", 4, "service.shop", "choose a port below 49152"),
        (b'"3s"', b'"2m"', 8, "service.shop.connect_timeout", "2m is not possible here: from 1s to 1m"),
        (b'"3s"', b"3", 8, "service.shop.connect_timeout", "must be a text in quotes"),
        (b'"1h30m"', b'"8d"', 9, "service.shop.idle", "8d is not possible here: from 1s to 1w"),
        (b'health = "0"', b'helth = "0"', 10, "service.shop.helth", "did you mean health?"),
        (b"true", b'"yes"', 11, "service.shop.proxy_protocol", "this must be true or false, not a text"),
        (b'"the shop"', b'"a\\tb"', 12, "service.shop.comment", "one line of 256 characters"),
        (b'target = "[2001', b'target = "2001', 16, "service.dns.target", "put the IPv6 address in brackets"),
        (b'"udp"', b'"UDP"', 17, "service.dns.protocol", "'UDP' is none of tcp, udp"),
        (b'"udp"', b'"tcp"\nhelper = "tftp"', 14, "service.dns", "TFTP needs protocol udp"),
        (b'at = "members"\n', b"", 14, "service.dns.at", "this key is missing"),
        (b'service = "shop"', b'service = "the shop"', 21, "connector.shop.service", "'the shop' is no name"),
        (b'"http"', b'"https"', 22, "connector.shop.kind", "'https' is none of port, tls, http"),
        (b"Shop.Example", b"*.Example", 23, "connector.shop.domains[0]", "is no domain"),
        (b'["Shop.Example.com"]', b'["A.b", "a.B"]', 19, "connector.shop", "the domain a.b is there twice"),
        (b'kind = "http"', b'kind = "port"', 19, "connector.shop", "domains need kind tls or http"),
        (b'"internal"', b'"self"', 24, "connector.shop.certificate", "none of acme, internal, none"),
        (b'"*:8443"', b'":8443"', 25, "connector.shop.listen", "say 8443 for this host alone"),
        (b"listen = 5353", b"listen = 0", 30, "connector.local.listen", "a port is 1 to 65535"),
        (b"192.0.2.7", b"192.0.2.7/24", 31, "connector.local.sources[0]", "has host bits set"),
        (b"rate = 5", b"rate = 0", 32, "connector.local.rate", "this must be more than 0"),
        (b"rate = 5", b"rate = nan", 32, "connector.local.rate", "this must be more than 0"),
        (b"streams_max = 100", b"streams_max = 0", 33, "connector.local.streams_max", "this must be at least 1"),
    ],
)
def test_a_mistake_in_a_service_or_connector_is_told_with_its_line_and_key(
    old: bytes, new: bytes, line: int, key: str, what: str
) -> None:
    assert SERVICES.count(old) >= 1
    (problem,) = read(SERVICES.replace(old, new, 1)).problems
    assert (problem.line, problem.key) == (line, key)
    assert what in problem.what


@pytest.mark.parametrize(
    ("where", "what", "line", "key"),
    [
        ("services.shop", "it would have the addresses of another", 4, "service.shop"),
        ("services.shop.at[1]", "there is no member web1", 5, "service.shop.at[1]"),
        ("services", "too many", 4, "service"),
        ("connectors.shop.service", "there is no service shop", 21, "connector.shop.service"),
        ("connectors.shop.domains", "connector x has shop.example.com already", 23, "connector.shop.domains"),
        ("connectors.local.listen", "taken", 30, "connector.local.listen"),
        ("connectors.local.sources", "odd", 31, "connector.local.sources"),
    ],
)
def test_what_a_coordinator_finds_wrong_with_services_is_located_in_the_file(
    where: str, what: str, line: int, key: str
) -> None:
    problem = read(SERVICES).locate(Problem(where=where, what=what))
    assert (problem.line, problem.key) == (line, key)


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?", fullmatch=True)
selectors = st.sampled_from(["members", "member:web-1", "tag:web", "10.0.0.0/8", "fd00:1::/64"])
tags = st.lists(st.sampled_from(["web", "db_1", "a-b"]), unique=True).map(tuple)
routes = st.lists(st.sampled_from(["10.1.0.0/16", "fd00:2::/64"]), unique=True).map(tuple)
comments = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=30)
rules = st.builds(
    Rule,
    action=st.sampled_from(["allow", "deny"]),
    sources=st.lists(selectors, min_size=1, max_size=3).map(tuple),
    destinations=st.lists(selectors | st.just("service:web"), min_size=1, max_size=3).map(tuple),
    protocol=st.sampled_from(["tcp", "udp"]),
    ports=st.lists(st.sampled_from(["22", "8000-8100"]), max_size=2).map(tuple),
    comment=comments,
)
questions = st.builds(
    PolicyTest,
    source=names,
    destination=st.just("10.0.0.1"),
    protocol=st.sampled_from(["tcp", "udp", "icmp"]),
    port=st.none() | st.integers(1, 65_535),
    expect=st.sampled_from(["allow", "deny"]),
)
services = st.builds(
    ServiceState,
    at=st.lists(selectors, min_size=1, max_size=2).map(tuple),
    target=st.sampled_from(["h:80", "[2001:db8::7]:443"]),
    port=st.none() | st.integers(1, 49_151),
    connect_timeout_s=st.integers(1, 60),
    idle_s=st.none() | st.integers(1, 604_800),
    health_s=st.integers(0, 3600),
    proxy_protocol=st.booleans(),
    comment=comments,
)
connectors = st.builds(
    ConnectorState,
    at=st.lists(selectors, min_size=1, max_size=2).map(tuple),
    service=names,
    kind=st.just("http"),
    listen=st.sampled_from(["", "80", "*:443", "[::1]:1"]),
    domains=st.lists(st.sampled_from(["a.example", "b.example"]), unique=True).map(tuple),
    certificate=st.sampled_from(["acme", "internal", "none"]),
    sources=routes,
    rate=st.none() | st.floats(0, 1_000_000, exclude_min=True),
    streams_max=st.integers(1, 65_536),
    comment=comments,
)
states = st.builds(
    DesiredState,
    services=st.none() | st.dictionaries(names, services, max_size=2),
    connectors=st.none() | st.dictionaries(names, connectors, max_size=2),
    suffix=st.none() | st.sampled_from(["internal", "vpn.example.com"]),
    relay_members=st.none() | st.sampled_from([(), ("tag:relay", "member:web1")]),
    lease_s=st.none() | st.integers(60, 30 * 86_400),
    members=st.dictionaries(names, st.builds(MemberState, tags=tags, routes=routes), max_size=3),
    policy=st.lists(rules, max_size=4).map(tuple),
    tests=st.lists(questions, max_size=3).map(tuple),
)


@given(states.filter(lambda state: state.policy))
def test_what_was_written_reads_back_as_the_same(state: DesiredState) -> None:
    file = read(render("home", state).encode())
    assert file.problems == []
    assert file.network == "home"
    assert file.state == state


def test_a_network_without_a_policy_is_written_so_that_it_reads_back() -> None:
    file = read(render("home", DesiredState(members={"a": MemberState()}, policy=())).encode())
    assert file.problems == []
    assert file.state.policy == ()


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_reading_fail_otherwise_than_by_problems(data: bytes) -> None:
    assert read(b'network = "home"\n' + data).problems


def changed(old: bytes, new: bytes) -> bytes:
    assert FILE.count(old) >= 1
    return FILE.replace(old, new, 1)


@pytest.mark.parametrize(
    ("data", "line", "key", "what"),
    [
        (changed(b'"home"', b"home"), 1, "", "this is not TOML (invalid value)"),
        (changed(b'expect = "allow"\n', b'expect = "allow'), 29, "", "unterminated string"),
        (b"\xff\xfe", 1, "", "this is not UTF-8 text"),
        (b'network = "home"\npolicy = []\nlease = "\xe4"', 3, "", "this is not UTF-8 text"),
        (b" " * (BYTES_MAX + 1), 1, "", "4194304 are the most"),
        (b"a = " + b"[" * 5000, 1, "", "nested too deeply"),
        (changed(b'network = "home"\n', b""), 1, "network", 'write network = "NAME"'),
        (changed(b'"home"', b'"Home"'), 1, "network", "'Home' is no name"),
        (changed(b'"home"', b"7"), 1, "network", "must be a text in quotes"),
        (changed(b"suffix", b"sufix"), 2, "sufix", "no such key (did you mean suffix?)"),
        (changed(b'"vpn.example.com"', b'"vpn..com"'), 2, "suffix", "no suffix of names"),
        (changed(b'suffix = "vpn.example.com"', b'relay_members = ["web"]'), 2, "relay_members[0]", "is no selector"),
        (changed(b'"1h30m"', b'"1.5h"'), 3, "lease", "'1.5h' is no duration"),
        (changed(b'"1h30m"', b'"31d"'), 3, "lease", "from 1m to 30d"),
        (changed(b"[members.web1]", b"[members.Web1]"), 5, "members.Web1", "'Web1' is no name"),
        (changed(b'tags = ["web"]', b'tags = ["web", "9"]'), 6, "members.web1.tags[1]", "'9' is no tag"),
        (changed(b'tags = ["web"]', b"tags = [1]"), 6, "members.web1.tags[0]", "must be a text in quotes"),
        (changed(b"192.168.7.0/24", b"192.168.7.1/24"), 7, "members.web1.routes[0]", "has host bits set"),
        (changed(b"fd00:7::/64", b"fd00:7:0::/64"), 7, "members.web1.routes[1]", "to be written fd00:7::/64"),
        (changed(b"routes", b"route"), 7, "members.web1.route", "did you mean routes?"),
        (changed(b'"allow"', b'"permit"'), 10, "policy[0].action", "'permit' is none of allow, deny"),
        (changed(b'"tag:admin"', b'"tag:Admin"'), 11, "policy[0].from[0]", "is no selector"),
        (changed(b'to = "members"', b'to = "all"'), 12, "policy[0].to", "is no selector"),
        (changed(b'protocol = "tcp"', b'protocol = "sctp"'), 13, "policy[0].protocol", "none of any, tcp, udp, icmp"),
        (changed(b"22,", b"0,"), 14, "policy[0].ports[0]", "'0' are no ports"),
        (changed(b"[22,", b"[true,"), 14, "policy[0].ports[0]", "must be a text in quotes"),
        (changed(b"8000-8100", b"8100-8000"), 14, "policy[0].ports[1]", "are no ports"),
        (changed(b'protocol = "tcp"\n', b""), 13, "policy[0].ports", "only tcp and udp have ports"),
        (changed(b'"administration"', b'"a\\tb"'), 15, "policy[0].comment", "one line of 256 characters"),
        (changed(b'"administration"', b'"' + b"a" * 257 + b'"'), 15, "policy[0].comment", "one line of 256 characters"),
        (changed(b'from = ["members"]\n', b""), 17, "policy[1].from", "this key is missing"),
        (changed(b'from = ["members"]\n', b"from = []\n"), 19, "policy[1].from", "this must be a list of at least 1"),
        (changed(b'"member:web1"', b'"member:web_1"'), 22, "policy[1].to[1]", "is no selector"),
        (changed(b'expect = "allow"', b'expect = "yes"'), 29, "test[0].expect", "none of allow, deny"),
        (changed(b"port = 22", b"port = 0"), 28, "test[0].port", "this must be at least 1"),
        (changed(b'from = "alice"', b"from = 3"), 26, "test[0].from", "this must be a text, not a whole number"),
        (b'network = "home"\n[policy]\n', 2, "policy", "under [[policy]]"),
        (b'network = "home"\npolicy = []\nmembers = 3\n', 3, "members", "must be a table: [members]"),
        (b'network = "home"\npolicy = []\n[members]\nweb1 = 3\n', 4, "members.web1", "must be a table"),
        (b'network = "home"\n', 1, "policy", "no [[policy]] is there, so nothing would pass"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_key(data: bytes, line: int, key: str, what: str) -> None:
    (problem,) = read(data).problems
    assert (problem.line, problem.key) == (line, key)
    assert what in problem.what


def test_all_mistakes_are_told_at_once() -> None:
    file = read(FILE.replace(b'"allow"', b'"permit"').replace(b"web1]", b"Web1]"))
    assert [(problem.line, problem.key) for problem in file.problems] == [
        (5, "members.Web1"),
        (10, "policy[0].action"),
        (29, "test[0].expect"),
    ]


@pytest.mark.parametrize(
    ("where", "what", "line", "key"),
    [
        ("policy[1].destinations", "there is no member web1, so member:web1 matches nobody", 22, "policy[1].to"),
        ("policy[1].destinations", "something else", 20, "policy[1].to"),
        ("policy[0].sources", "no member has the tag admin, so tag:admin matches nobody", 11, "policy[0].from"),
        ("members.web1.routes[1]", "no", 7, "members.web1.routes[1]"),
        ("members.web1", "there is no member web1", 5, "members.web1"),
        ("tests[0]", "passes", 25, "test[0]"),
        ("tests[0].source", "odd", 26, "test[0].from"),
        ("lease_s", "too long", 3, "lease"),
        ("elsewhere", "odd", 1, "elsewhere"),
        ("", "odd", 1, ""),
    ],
)
def test_what_a_coordinator_finds_wrong_is_located_in_the_file(where: str, what: str, line: int, key: str) -> None:
    problem = read(FILE).locate(Problem(where=where, what=what))
    assert (problem.line, problem.key) == (line, key)


def test_a_member_may_be_called_like_a_key() -> None:
    file = read(b'network = "home"\npolicy = []\n[members.sources]\ntags = []\n')
    assert file.problems == []
    assert file.locate(Problem(where="members.sources.tags", what="x")).key == "members.sources.tags"


def test_a_connector_that_the_file_leaves_out_and_that_so_stays_is_told_as_such() -> None:
    file = read(b'network = "home"\npolicy = []\n[service.a]\nat = ["members"]\ntarget = "h:80"\n')
    problem = file.locate(Problem(where="connectors.ok.service", what="there is no service web"))
    assert problem.what == (
        "there is no service web; the file has no [connector.ok], and where it has no connector at all those stay"
    )
    assert read(SERVICES).locate(Problem(where="connectors.x.service", what="why")).what == "why"


def test_services_in_a_list_are_told_how_they_are_written() -> None:
    file = read(b'network = "home"\npolicy = []\n[[service]]\nat = ["members"]\n')
    assert [(one.line, one.key, one.what) for one in file.problems] == [
        (3, "service", "this must be tables, each with a name: [service.NAME]")
    ]
