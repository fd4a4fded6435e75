"""relay.toml: what it says, and how a mistake is named."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest

from warren.errors import OperationFailed, UsageError
from warren.relay.config import RelayConfig
from warren.relay.config_file import load, parse

WHOLE = """
listen = ["203.0.113.7", "2001:db8::7"]
udp_port = 3479
tcp_port = 3478
tls_port = 443
relay_addresses = ["10.0.0.5"]
external_addresses = ["203.0.113.7"]
ports = [50000, 51000]
realm = "example.org"
secrets = ["0123456789abcdef"]
metrics = "[::1]:9641"
drain_s = 30

[users]
alice = "a password"

[peers]
allow = ["192.168.7.0/24"]
deny = ["9.9.9.0/24"]
nat64_prefixes = ["2001:db8:64::/96"]
own_ports = [51820]

[limits]
allocations = 100
allocations_per_user = 3
allocations_per_address = 30
user_mbit_s = 8
total_mbit_s = 80

[tls]
certificate = "/c.pem"
key = "/k.pem"
"""


def test_everything_can_be_said() -> None:
    config = parse(WHOLE.encode(), "relay.toml")
    assert config == RelayConfig(
        listen=(ip_address("203.0.113.7"), ip_address("2001:db8::7")),
        udp_port=3479,
        tcp_port=3478,
        tls_port=443,
        relay_addresses=(ip_address("10.0.0.5"),),
        external_addresses=(ip_address("203.0.113.7"),),
        ports=(50000, 51000),
        realm="example.org",
        secrets=(b"0123456789abcdef",),
        users={"alice": "a password"},
        allow_peers=(ip_network("192.168.7.0/24"),),
        deny_peers=(ip_network("9.9.9.0/24"),),
        nat64_prefixes=(IPv6Network("2001:db8:64::/96"),),
        own_ports=(51820,),
        allocations=100,
        allocations_per_user=3,
        allocations_per_address=30,
        user_bytes_per_s=1_000_000,
        total_bytes_per_s=10_000_000,
        metrics=config.metrics,
        certificate=Path("/c.pem"),
        key=Path("/k.pem"),
        drain_s=30,
    )
    assert str(config.metrics) == "[::1]:9641"


def test_nothing_need_be_said() -> None:
    assert parse(b"", "relay.toml") == load(None) == RelayConfig()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("udp_prot = 1", "relay.toml, line 1: udp_prot: there is no such key"),
        ("\nudp_port = 70000", "relay.toml, line 2: udp_port: this must be at most 65535"),
        ("udp_port = 0", "relay.toml, line 1: udp_port: no port is left to serve at"),
        ("ports = [60000, 50000]", "relay.toml, line 1: ports: 60000 is behind 50000"),
        ("ports = [80, 50000]", "relay.toml, line 1: ports: this must be at least 1024"),
        ('listen = ["nowhere"]', "relay.toml, line 1: listen: 'nowhere' is no address"),
        ('relay_addresses = ["1.1.1.1", "2.2.2.2"]', "relay_addresses: one IPv4 and one IPv6 address at most"),
        ('external_addresses = ["::"]', "external_addresses: no peer can reach such an address"),
        ('secrets = ["short"]', "line 1: secrets: this must be a text of at least 16 characters"),
        ('realm = "a b"', "line 1: realm: "),
        ('metrics = "9641"', "line 1: metrics: '9641' is no address and port"),
        ('[peers]\nallow = ["10.0.0.1/8"]', "line 2: peers.allow: 10.0.0.1/8 has host bits set"),
        ('[peers]\nnat64_prefixes = ["2001:db8::/50"]', "line 2: peers.nat64_prefixes: '2001:db8::/50' is no prefix"),
        ("[limits]\nuser_mbit_s = -1", "line 2: limits.user_mbit_s: this must be at least 0"),
        ("[limits]\nfoo = 1", "line 2: limits.foo: there is no such key"),
        ('[tls]\ncertificate = "x"', "line 1: tls.key: this key is missing"),
        ('discovery_addresses = ["1.1.1.1"]', "line 1: discovery_addresses: discovery takes two addresses"),
        ('discovery_addresses = ["1.1.1.1", "::1"]', "line 1: discovery_addresses: discovery takes two addresses"),
        (
            'udp_port = 3479\ndiscovery_addresses = ["1.1.1.1", "1.1.1.2"]',
            "discovery_port: discovery takes",
        ),
        ("udp_port = ", "relay.toml, line 1: "),
        ("[users]\nu = 7", "line 2: users.u: this must be a text"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text.encode(), "relay.toml")
    assert sentence in str(refused.value)


def test_text_that_is_none_is_named() -> None:
    with pytest.raises(UsageError, match="line 2: this is not UTF-8"):
        parse(b"\n\xff", "relay.toml")


def test_a_secret_may_lie_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0\n")
    assert parse(f'secret_file = "{secret}"'.encode(), "r").secrets == (b"0123456789abcdef0",)
    secret.write_text("short")
    with pytest.raises(UsageError, match=r"line 1: secret_file: .* holds 5 bytes"):
        parse(f'secret_file = "{secret}"'.encode(), "r")
    with pytest.raises(OperationFailed, match="cannot be read"):
        load(tmp_path / "none")
