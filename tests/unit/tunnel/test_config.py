"""The parser of wg-quick files: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import UsageError
from warren.identity.keys import PrivateKey
from warren.tunnel.config import TunnelConfig, parse
from warren.tunnel.fields import Endpoint


def _private(name: str) -> PrivateKey:
    return PrivateKey(hashlib.sha256(name.encode()).digest())


OWN = _private("own").base64
A = _private("a").public_key().base64
B = _private("b").public_key().base64
PSK = base64.b64encode(hashlib.sha256(b"psk").digest()).decode()
MINIMAL = f"[Interface]\nPrivateKey = {OWN}\n"


def _parse(text: str) -> TunnelConfig:
    return parse(text, "home.conf")


FULL = f"""\
# the house
[Interface]
Address = 10.0.0.1/24, fd00::1/64
Address = 10.0.1.1
ListenPort = 51820
PrivateKey = {OWN}
FwMark = 0xca6c
MTU = 1380
Table = 1234
DNS = 10.0.0.53, fd00::53, example.net
DNS = lan
PreUp = echo one %i
PreUp = echo two
PostUp = echo three # not this
PreDown = echo four
PostDown = echo five = 5
SaveConfig = true

[Peer]
PublicKey = {A}
PresharedKey = {PSK}
AllowedIPs = 10.0.0.2/32, 10.2.0.7/16
AllowedIPs = fd00::2
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25

[Peer]
PublicKey = {B}
AllowedIPs =
Endpoint = vpn.example.net:1
PersistentKeepalive = off
"""


def test_every_key_of_the_manual_is_understood() -> None:
    config = _parse(FULL)
    assert config.private_key == _private("own")
    assert config.addresses == tuple(ip_interface(a) for a in ("10.0.0.1/24", "fd00::1/64", "10.0.1.1/32"))
    assert (config.listen_port, config.fwmark, config.mtu, config.table) == (51820, 0xCA6C, 1380, 1234)
    assert config.dns_servers == (ip_address("10.0.0.53"), ip_address("fd00::53"))
    assert config.dns_search == ("example.net", "lan")
    assert config.pre_up == ("echo one %i", "echo two")
    assert config.post_up == ("echo three",)
    assert config.pre_down == ("echo four",)
    assert config.post_down == ("echo five = 5",)
    assert config.save_config
    first, second = config.peers
    assert first.public_key.base64 == A
    assert first.preshared_key is not None
    assert first.preshared_key.base64 == PSK
    assert first.allowed_ips == tuple(ip_network(n) for n in ("10.0.0.2/32", "10.2.0.0/16", "fd00::2/128"))
    assert first.endpoint == Endpoint("2001:db8::1", 51820)
    assert first.persistent_keepalive_s == 25
    assert (second.allowed_ips, second.persistent_keepalive_s) == ((), 0)
    assert second.endpoint == Endpoint("vpn.example.net", 1)
    assert config.warnings == ()


def test_what_is_not_given_has_wg_quicks_defaults() -> None:
    config = _parse(MINIMAL)
    assert config == TunnelConfig(_private("own"))
    assert (config.listen_port, config.fwmark, config.mtu, config.table) == (0, None, None, "auto")


@pytest.mark.parametrize(
    "text",
    [
        FULL.replace("\n", "\r\n"),
        "\ufeff" + FULL,
        FULL.upper().replace(OWN.upper(), OWN).replace(A.upper(), A).replace(B.upper(), B).replace(PSK.upper(), PSK),
        FULL.replace(" = ", "="),
        FULL.replace("\n", "  \n\t"),
        FULL.replace("[Interface]", "[ interface ]  # comment"),
    ],
    ids=["windows", "bom", "upper case", "no blanks", "blanks around", "section with comment"],
)
def test_spelling_makes_no_difference(text: str) -> None:
    config, reference = _parse(text), _parse(FULL)
    assert (config.private_key, config.addresses, config.mtu) == (
        reference.private_key,
        reference.addresses,
        reference.mtu,
    )
    assert [peer.public_key for peer in config.peers] == [peer.public_key for peer in reference.peers]
    assert [peer.allowed_ips for peer in config.peers] == [peer.allowed_ips for peer in reference.peers]


def test_several_interface_sections_are_one() -> None:
    config = _parse(f"[Interface]\nAddress = 10.0.0.1\n[Peer]\nPublicKey = {A}\n[Interface]\nPrivateKey = {OWN}\n")
    assert len(config.addresses) == 1
    assert len(config.peers) == 1


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("FwMark = off", "fwmark", 0),
        ("FwMark = 51820", "fwmark", 51820),
        ("FwMark = 0xFFFFFFFF", "fwmark", 0xFFFFFFFF),
        ("Table = off", "table", "off"),
        ("Table = AUTO", "table", "auto"),
        ("Table = vpn", "table", "vpn"),
        ("Table = 4294967295", "table", 4294967295),
        ("MTU = 68", "mtu", 68),
        ("ListenPort = 0", "listen_port", 0),
        ("SaveConfig = False", "save_config", False),
        ("Address = 10.0.0.1/8 10.0.0.2/8", "addresses", (ip_interface("10.0.0.1/8"), ip_interface("10.0.0.2/8"))),
        ("Address =", "addresses", ()),
        ("PostUp =", "post_up", ()),
    ],
)
def test_value_of_the_interface(line: str, field: str, value: object) -> None:
    assert getattr(_parse(f"{MINIMAL}{line}\n"), field) == value


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("192.0.2.1:51820", Endpoint("192.0.2.1", 51820)),
        ("[2001:DB8:0::1]:1", Endpoint("2001:db8::1", 1)),
        ("[fe80::1%eth0]:65535", Endpoint("fe80::1", 65535, "eth0")),
        ("[fe80::1%3]:5", Endpoint("fe80::1", 5, "3")),
        ("vpn.example.net:51820", Endpoint("vpn.example.net", 51820)),
        ("localhost:7", Endpoint("localhost", 7)),
        ("a_b.example.:7", Endpoint("a_b.example.", 7)),
    ],
)
def test_endpoint_forms(text: str, endpoint: Endpoint) -> None:
    config = _parse(f"{MINIMAL}[Peer]\nPublicKey = {A}\nEndpoint = {text}\n")
    assert config.peers[0].endpoint == endpoint
    assert parse(f"{MINIMAL}[Peer]\nPublicKey = {A}\nEndpoint = {endpoint}\n", "again").peers == config.peers


_LOW_ORDER = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
    "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
    "7P///////////////////////////////////////38=",
    "7f///////////////////////////////////////38=",
    "7v///////////////////////////////////////38=",
]


@pytest.mark.parametrize("key", [*_LOW_ORDER, base64.b64encode(bytes(31) + b"\x80").decode()])
def test_a_low_order_public_key_is_refused(key: str) -> None:
    with pytest.raises(UsageError, match=r"home.conf:4: PublicKey: the key is a low-order point"):
        _parse(f"{MINIMAL}[Peer]\nPublicKey = {key}\n")


_PEER = f"{MINIMAL}[Peer]\nPublicKey = {A}\n"

REFUSED = {
    "": "home.conf: there is no [Interface] section; a config begins with one",
    "PrivateKey = x": "home.conf:1: a key stands before any section; begin with [Interface]",
    "[Interface]\n\nMTU = 1400": "home.conf:1: PrivateKey is missing from [Interface]; make one with `wg genkey`",
    "[Interfaces]": 'home.conf:1: "[Interfaces]" is not a section; write [Interface] or [Peer]',
    "[Interface": 'home.conf:1: "[Interface" is not a section; write [Interface] or [Peer]',
    "[Interface]\nnonsense": "home.conf:2: the line is not a setting; write it like Key = value",
    "[Interface]\nPrivateKey = short": (
        "home.conf:2: PrivateKey: a key is 44 characters of base64, as `wg genkey` prints it"
    ),
    f"[Interface]\nPrivateKey = {'A' * 43}=": (
        "home.conf:2: PrivateKey: the key is all zero; make one with `wg genkey`"
    ),
    f"{MINIMAL}Colour = blue": (
        'home.conf:3: "Colour" is not a key of [Interface]; it takes PrivateKey, ListenPort, FwMark, Address, MTU, '
        "Table, DNS, PreUp, PostUp, PreDown, PostDown, SaveConfig"
    ),
    f"{MINIMAL}AllowedIPs = 10.0.0.0/8": "home.conf:3: AllowedIPs belongs in [Peer], not in [Interface]",
    f"{MINIMAL}ListenPort = 1\nListenPort = 2": ("home.conf:4: ListenPort: is given twice (first on line 3); keep one"),
    f"{MINIMAL}ListenPort = 65536": 'home.conf:3: ListenPort: "65536" is not a number from 0 to 65535',
    f"{MINIMAL}ListenPort = ٣": 'home.conf:3: ListenPort: "٣" is not a number from 0 to 65535',
    f"{MINIMAL}ListenPort =": "home.conf:3: ListenPort: has no value",
    f"{MINIMAL}MTU = 67": 'home.conf:3: MTU: "67" is not a number from 68 to 65535',
    f"{MINIMAL}MTU = 1279\nAddress = fd00::1/64": (
        "home.conf:3: MTU: 1279 is too small for fd00::1/64; IPv6 needs at least 1280"
    ),
    f"{MINIMAL}FwMark = 0x": ('home.conf:3: FwMark: "0x" is not a mark; write a number like 51820 or 0xca6c, or off'),
    f"{MINIMAL}Table = 0": 'home.conf:3: Table: "0" is not a number from 1 to 4294967295',
    f"{MINIMAL}Table = a b": (
        'home.conf:3: Table: "a b" is not a routing table; write off, auto, a number, or a name of '
        "/etc/iproute2/rt_tables"
    ),
    f"{MINIMAL}Address = 10.0.0.1/33": (
        'home.conf:3: Address: "10.0.0.1/33" is not an address; write it like 10.0.0.1/24 or fd00::1/64'
    ),
    f"{MINIMAL}Address = 10.0.0.1/255.0.0.0": (
        'home.conf:3: Address: "10.0.0.1/255.0.0.0" is not an address; write it like 10.0.0.1/24 or fd00::1/64'
    ),
    f"{MINIMAL}DNS = 10.0.0": ('home.conf:3: DNS: "10.0.0" is not an address; write it like 10.0.0.53 or fd00::53'),
    f"{MINIMAL}DNS = ex!ample": (
        'home.conf:3: DNS: "ex!ample" is neither an address like 10.0.0.53 nor a search domain like example.net'
    ),
    f"{MINIMAL}SaveConfig = yes": 'home.conf:3: SaveConfig: "yes" is neither true nor false',
    f"{MINIMAL}[Peer]\nAllowedIPs = 10.0.0.0/8": (
        "home.conf:3: PublicKey is missing from this [Peer]; the peer prints it with `wg pubkey`"
    ),
    f"{_PEER}AllowedIPs = 10.0.0.0/33": (
        'home.conf:5: AllowedIPs: "10.0.0.0/33" is not an address range; write it like 10.0.0.0/24 or fd00::/64'
    ),
    f"{_PEER}[Peer]\nPublicKey = {A}": (
        "home.conf:6: PublicKey: the peer of line 3 is given again; make it one [Peer] section"
    ),
    f"{_PEER}PersistentKeepalive = 65536": (
        'home.conf:5: PersistentKeepalive: "65536" is not a number of seconds from 0 to 65535, or off'
    ),
    f"{_PEER}Endpoint = 192.0.2.1": (
        'home.conf:5: Endpoint: "192.0.2.1" is not an endpoint; write it like 192.0.2.1:51820, [2001:db8::1]:51820 '
        "or vpn.example.net:51820"
    ),
    f"{_PEER}Endpoint = 192.0.2.300:1": (
        'home.conf:5: Endpoint: "192.0.2.300" is not an IPv4 address; write the endpoint like 192.0.2.1:51820'
    ),
    f"{_PEER}Endpoint = 192.0.2.1:0": 'home.conf:5: Endpoint: the port "0" is not a number from 1 to 65535',
    f"{_PEER}Endpoint = [2001:db8::g]:1": (
        'home.conf:5: Endpoint: "2001:db8::g" is not an IPv6 address; write the endpoint like [2001:db8::1]:51820'
    ),
    f"{_PEER}Endpoint = -a.example:1": (
        'home.conf:5: Endpoint: "-a.example" is not a host name; write the endpoint like vpn.example.net:51820'
    ),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: REFUSED[text][:60])
def test_a_malformed_config_names_file_line_key_and_form(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        _parse(text)
    assert str(caught.value) == REFUSED[text]
    assert caught.value.exit_status == 2


def test_the_same_range_at_two_peers_is_a_warning() -> None:
    config = _parse(f"{_PEER}AllowedIPs = 10.0.0.0/8\n[Peer]\nPublicKey = {B}\nAllowedIPs = 10.1.2.3/8\n")
    assert config.warnings == (f"home.conf:8: AllowedIPs: 10.0.0.0/8 is also at {A[:8]}…; {B[:8]}… gets it",)


def test_a_peer_with_our_own_key_is_a_warning() -> None:
    own = _private("own").public_key().base64
    (warning,) = _parse(f"{MINIMAL}[Peer]\nPublicKey = {own}\n").warnings
    assert "our own PublicKey" in warning


@pytest.mark.parametrize(
    "line",
    [
        f"PrivateKey {OWN}",
        OWN,
        f"{OWN} = x",
        f"PrivateKey = {OWN} {OWN}",
        f"ListenPort = {OWN}",
        f"MTU = {OWN[:-1]}",
        f"Address = {OWN}",
        f"DNS = {OWN}",
        f"[{OWN}]",
        f"Table = {OWN}",
        f"SaveConfig={OWN}",
    ],
)
def test_no_error_quotes_a_private_key(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        _parse(f"[Interface]\n{line}\n")
    assert OWN[:20] not in str(caught.value)


_KEYS = [
    *("PrivateKey", "ListenPort", "FwMark", "Address", "MTU", "Table", "DNS", "PreUp", "SaveConfig"),
    *("PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive", "[Interface]", "[Peer]"),
]
_VALUES = ("", OWN, A, "0", "10.0.0.1/24", "fd00::/64", "[::1]:1", "a:1", "off", "true", "%", "[", "]:", "::", "/", "#")
_lines = st.builds(
    lambda key, equals, value: key + equals + value,
    st.sampled_from(_KEYS) | st.text(max_size=20),
    st.sampled_from(["=", " = ", "", "\t=\t"]),
    st.sampled_from(_VALUES) | st.text(max_size=60),
)


@given(st.lists(_lines, max_size=12).map("\n".join) | st.text())
def test_whatever_a_file_holds_it_is_a_config_or_a_usage_error(text: str) -> None:
    message = ""
    try:
        config = _parse(text)
        assert not config.private_key.is_zero
    except UsageError as error:
        message = str(error)
    assert message.startswith("home.conf") or not message
    assert OWN not in message
