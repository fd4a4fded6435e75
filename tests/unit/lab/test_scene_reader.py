from __future__ import annotations

import tomllib
from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.lab.impairment import Impairment
from warren.lab.nat import KINDS, NatKind
from warren.lab.scene import Scene, SceneMistakes, SceneNetwork, SceneServer
from warren.lab.scene_reader import read_scene
from warren.lab.site_kinds import SITE_KINDS

WHOLE = """
description = "Everything"
seed = 7

[server.dc]
families = "4"
relay = "coturn"

[site.home]
kind = "cgn"
lan = "10.1.0.0/16"
hosts = ["alice", "laptop"]
gateway = ["pcp"]
link = { delay_s = 0.02, loss = 0 }

[site.office]
nat = { mapping = "apdm", allocation = "random", hairpin = true, udp_lifetime_s = 30 }
carrier = "symmetric"
firewall = { udp = "dropped", tcp_ports = [443], stateful = true }
families = "46"
proxy = true
hosts = ["bob", "laptop"]

[coordinator]
server = "dc"
port = 443

[network.home]
members = ["alice", "bob", "dc"]
ipv4 = "10.9.0.0/16"
"""


def scene_of(text: str) -> Scene:
    return read_scene("example", tomllib.loads(text))


def mistakes_of(text: str) -> list[tuple[str, str]]:
    with pytest.raises(SceneMistakes) as caught:
        scene_of(text)
    return [(".".join(map(str, one.path)), one.what) for one in caught.value.mistakes]


def test_a_whole_scene_is_read() -> None:
    scene = scene_of(WHOLE)
    assert scene.servers == (SceneServer("dc", "4", "coturn"),)
    assert scene.networks == (SceneNetwork("home", ("alice", "bob", "dc"), "10.9.0.0/16"),)
    assert (scene.seed, scene.coordinator, scene.coordinator_port) == (7, "dc", 443)
    assert scene.hosts == ("alice", "laptop", "bob")
    home, office = scene.sites
    assert home.kind is SITE_KINDS["cgn"]
    assert (home.lan, home.gateway, home.link) == (IPv4Network("10.1.0.0/16"), ("pcp",), Impairment(delay_s=0.02))
    assert office.kind.nat == NatKind("apdm", "apdf", "random", hairpin=True, udp_lifetime_s=30)
    assert office.kind.carrier == KINDS["symmetric"]
    assert office.kind.firewall.tcp_ports == (443,)
    assert office.kind.firewall.stateful
    assert office.kind.proxy
    assert [site.name for site in scene.sites_of("laptop")] == ["home", "office"]


def test_a_scene_without_a_coordinator_is_one() -> None:
    scene = scene_of('[site.home]\nkind = "open"\nhosts = ["a"]\n')
    assert scene.coordinator is None
    assert scene.seed == 1


SITE = '[site.home]\nkind = "open"\nhosts = ["a"]\n'
SERVER = "[server.dc]\n"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("sede = 1", "sede", "there is no such key (did you mean seed?)"),
        ("seed = -1", "seed", "this is a whole number, 0 to"),
        ("seed = true", "seed", "this is a whole number, 0 to"),
        ("description = 1", "description", "this is a text in quotes"),
        ("server = 1", "server", "this is a table: [server]"),
        ("[server]\ndc = 1", "server.dc", "this is a table: [server.dc]"),
        ('[server.dc]\nrelay = "turn"', "server.dc.relay", "'turn' is none of warren, coturn"),
        ('[server.dc]\nfamilies = "5"', "server.dc.families", "'5' is none of 4, 6, 46"),
        ("[server.dc]\nfamilies = []", "server.dc.families", "[] is none of 4, 6, 46"),
        ("[server.-a]", "server.-a", "the name '-a' is not 1 to 32 letters"),
        ("[server.internet]", "server.internet", "is taken by the core"),
        ("[site.home]", "site.home", "say what kind of site this is"),
        ('[site.home]\nkind = "full-cohn"', "site.home.kind", "(did you mean full-cone?)"),
        ('[site.home]\nkind = "open"\nproxy = true', "site.home.proxy", "kind says that already"),
        ("[site.home]\nproxy = 1", "site.home.proxy", "this is true or false"),
        ('[site.home]\nnat = "cone"', "site.home.nat", "NAT kind 'cone': say full-cone"),
        ("[site.home]\nnat = 5", "site.home.nat", "this is a table: { … }"),
        ('[site.home]\nnat = { maping = "eim" }', "site.home.nat.maping", "(did you mean mapping?)"),
        ('[site.home]\nnat = { mapping = "cone" }', "site.home.nat.mapping", "NAT mapping 'cone': say eim"),
        ("[site.home]\nnat = { hairpin = 1 }", "site.home.nat.hairpin", "this is true or false"),
        ("[site.home]\nnat = { udp_lifetime_s = true }", "site.home.nat.udp_lifetime_s", "this is a whole number"),
        ("[site.home]\nnat = { udp_lifetime_s = 0 }", "site.home.nat.udp_lifetime_s", "say 1 to 86400 seconds"),
        ('[site.home]\ncarrier = "linux"', "site.home.carrier", "has one of its own, too"),
        ('[site.home]\nnat = "linux"\nfamilies = "6"', "site.home.families", "no NAT for IPv4 but its NAT64"),
        ('[site.home]\nnat = "linux"\nfirewall = { udp = "no" }', "site.home.firewall.udp", "say open, dropped"),
        (
            '[site.home]\nnat = "linux"\nfirewall = { tcp_ports = 443 }',
            "site.home.firewall.tcp_ports",
            "this is a list",
        ),
        (
            '[site.home]\nnat = "linux"\nfirewall = { tcp_ports = ["x"] }',
            "site.home.firewall.tcp_ports",
            "a list of whole numbers",
        ),
        ('[site.home]\nkind = "open"\nlan = "10.0.0.0/24"', "site.home.lan", "has public addresses: leave lan out"),
        ('[site.home]\nkind = "linux"\nlan = "10.0.0.1/24"', "site.home.lan", "'10.0.0.1/24' is no IPv4 range"),
        ('[site.home]\nkind = "linux"\nlan = "8.0.0.0/24"', "site.home.lan", "is no private range of /16 to /24"),
        ('[site.home]\nkind = "linux"\nlan = 10', "site.home.lan", "this is a text in quotes"),
        ('[site.home]\nkind = "open"\ngateway = ["upnp"]', "site.home.gateway", "without a NAT"),
        (
            '[site.home]\nkind = "linux"\ngateway = ["igd"]',
            "site.home.gateway.0",
            "'igd' is none of upnp, nat-pmp",
        ),
        ('[site.home]\nkind = "linux"\nhosts = "a"', "site.home.hosts", "this is a list of texts"),
        ('[site.home]\nkind = "linux"\nhosts = [1]', "site.home.hosts.0", "this is a text in quotes"),
        ('[site.home]\nkind = "linux"\nhosts = ["a", "a"]', "site.home.hosts.1", "a is in this list twice"),
        ('[site.home]\nkind = "linux"\nhosts = ["home-router"]', "site.home.hosts.0", "taken by a part of site home"),
        ('[site.home]\nkind = "linux"\nlink = { loss = 2 }', "site.home.link.loss", "is a probability from 0 to 1"),
        ('[site.home]\nkind = "linux"\nlink = { loss = "1" }', "site.home.link.loss", "this is a number"),
        (f"[site.{'x' * 21}]\nkind = 'open'", f"site.{'x' * 21}", "20 letters at most"),
        (f"{SITE}{SERVER}[site.dc]\nkind = 'open'", "site.dc", "the name dc is taken by a server"),
        ("[coordinator]", "coordinator", "there is none: add [server.NAME]"),
        (f"{SERVER}[coordinator]", "coordinator.server", "this key is missing: say dc"),
        (f"{SERVER}[coordinator]\nserver = 'cd'", "coordinator.server", "'cd' is none of dc"),
        (f"{SERVER}[coordinator]\nserver = 'dc'\nport = 0", "coordinator.port", "this is a whole number, 1 to 65535"),
        (
            "[server.dc]\nrelay = 'warren'\n[coordinator]\nserver = 'dc'\nport = 443",
            "coordinator.port",
            "the relay on dc has port 443",
        ),
        (f"{SITE}[network.n]\nmembers = ['a']", "network", "a network needs a coordinator"),
        (f"{SERVER}[coordinator]\nserver = 'dc'\n[network.n]", "network.n.members", "this key is missing"),
        (
            f"{SITE}{SERVER}[coordinator]\nserver = 'dc'\n[network.n]\nmembers = ['a', 'b']",
            "network.n.members.1",
            "there is no host or server 'b'",
        ),
        (
            f"{SITE}{SERVER}[coordinator]\nserver = 'dc'\n[network.n]\nmembers = ['a', 'a']",
            "network.n.members.1",
            "a is in this list twice",
        ),
        (
            f"{SITE}{SERVER}[coordinator]\nserver = 'dc'\n[network.n]\nmembers = ['a']\nipv4 = 'x'",
            "network.n.ipv4",
            "'x' is no IPv4 range; say 10.77.0.0/16",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key(text: str, where: str, what: str) -> None:
    found = mistakes_of(text)
    assert [path for path, _ in found] == [where]
    assert what in found[0][1]


def test_all_mistakes_are_told() -> None:
    text = '[site.one]\nkind = "linx"\n[site.two]\nkind = "open"\nhots = []\n[network.n]\nmembers = ["x"]\n'
    assert [path for path, _ in mistakes_of(text)] == [
        "site.one.kind",
        "site.two.hots",
        "network",
        "network.n.members.0",
    ]


def test_a_name_that_is_none_is_told_for_the_document_as_a_whole() -> None:
    with pytest.raises(SceneMistakes, match="that of its file, and 'my scene' is not"):
        read_scene("my scene", {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    path=st.sampled_from(
        [
            ("seed",),
            ("server", "dc"),
            ("server", "dc", "relay"),
            ("site", "home"),
            ("site", "office", "nat"),
            ("site", "office", "nat", "mapping"),
            ("site", "office", "firewall"),
            ("site", "office", "firewall", "tcp_ports"),
            ("site", "home", "hosts"),
            ("site", "home", "link"),
            ("coordinator", "server"),
            ("network", "home", "members"),
            ("network", "home", "ipv4"),
        ]
    ),
    value=VALUES,
)
def test_any_value_anywhere_is_taken_or_told(path: tuple[str, ...], value: Any) -> None:
    parsed = tomllib.loads(WHOLE)
    table = parsed
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    try:
        scene = read_scene("example", parsed)
    except SceneMistakes as error:
        mistakes = error.mistakes
    else:
        mistakes = ()
        assert scene.name == "example"
    assert all(one.what for one in mistakes)
