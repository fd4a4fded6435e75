"""agent.toml: what it may say, and how errors in it are told."""

from __future__ import annotations

import contextlib
import errno
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.config import AgentConfig, OwnRelay, load, locate, parse
from warren.agent.stated import StatedAddress
from warren.errors import OperationFailed, UsageError

COMPLETE = b"""
dns = false
listen_port = 51820
ignored_interfaces = ["lxc*"]

[public]
addresses = ["203.0.113.7", "[2001:db8::7]:51821", "2001:db8::8"]
gateway = "192.0.2.1"
segment = "192.0.2.0/24"

[keys]
rotate_days = 3
announce_hours = 12

[reach]
port_mapping = false
hard_nat = false
relays = false

[proxy]
url = "http://me:secret@proxy.example:3128"

[relay]
enabled = true
udp_port = 3479
tls_port = 443

[network.home]
listen_port = 51822
dns = true
"""


def test_everything_can_be_said() -> None:
    config = parse(COMPLETE, "agent.toml")
    assert config.stated.addresses == (
        StatedAddress(ip_address("203.0.113.7")),
        StatedAddress(ip_address("2001:db8::7"), 51821),
        StatedAddress(ip_address("2001:db8::8")),
    )
    assert (config.stated.gateway, config.stated.segment) == (ip_address("192.0.2.1"), ip_network("192.0.2.0/24"))
    assert config.streams.known_as == ip_address("203.0.113.7")
    assert (config.rotate_s, config.announce_s) == (3 * 86_400, 12 * 3600)
    assert (config.wants_dns("home"), config.wants_dns("work")) == (True, False)
    assert (config.port_for("home"), config.port_for("work")) == (51822, 51820)
    assert (config.port_mapping, config.hard_nat, config.relays) == (False, False, False)
    assert config.relay == OwnRelay(3479, 443)
    assert config.proxy == "http://me:secret@proxy.example:3128"
    assert "secret" not in repr(config)
    assert config.ignores("lxc0")
    assert not config.ignores("docker0")
    assert config.stated.lines()[1] == "address [2001:db8::7]:51821"


def test_nothing_need_be_said(tmp_path: Path) -> None:
    assert parse(b"", "agent.toml") == load(None) == AgentConfig()
    assert AgentConfig().ignores("docker0")


def test_the_file_of_the_state_directory_comes_first(tmp_path: Path) -> None:
    assert locate(tmp_path) != tmp_path / "agent.toml"
    (tmp_path / "agent.toml").write_text("dns = false")
    assert locate(tmp_path) == tmp_path / "agent.toml"
    assert not load(locate(tmp_path)).dns


def test_a_state_directory_of_another_user_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", closed)
    with pytest.raises(OperationFailed, match=r"agent\.toml cannot be looked at: .*; run as root or name"):
        locate(tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dns = maybe", "agent.toml, line 1: "),
        ("\ndns = 3", "agent.toml, line 2: dns: this must be true or false, not a whole number"),
        ("dns = true\nlisten_prot = 3", "agent.toml, line 2: listen_prot: there is no such key"),
        ("listen_port = 0", "agent.toml, line 1: listen_port: this must be at least 1"),
        ("[public]\naddresses = ['x']", "agent.toml, line 2: public.addresses: 'x' is no address; say 203.0.113.7"),
        ("[public]\naddresses = ['127.0.0.1']", "agent.toml, line 2: public.addresses: nobody else can reach"),
        ("[public]\naddresses = ['203.0.113.7:70000']", "a port is 1 to 65535"),
        ("[public]\ngateway = '192.0.2.0/24'", "agent.toml, line 2: public.gateway: "),
        ("[public]\nsegment = '192.0.2.7/24'", "agent.toml, line 2: public.segment: 192.0.2.7/24 has host bits set"),
        ("dns = true\n[network.home]\nlisten_port = 'x'", "agent.toml, line 3: network.home.listen_port: this must be"),
        ("[network.home]\ncolour = 'x'", "agent.toml, line 2: network.home.colour: there is no such key"),
        ("[network.a]\ndns = true\n[network.B]\n", "agent.toml, line 3: network.B: expected str matching regex"),
        ("[keys]\nrotate_days = 1\nannounce_hours = 24", "agent.toml, line 3: keys.announce_hours: a key must be"),
        ("[reach]\nport_maping = true", "agent.toml, line 2: reach.port_maping: there is no such key"),
        ("[reach]\nrelays = 'no'", "agent.toml, line 2: reach.relays: this must be true or false"),
        (
            "[proxy]\nurl = 'socks5://proxy:1080'",
            "agent.toml, line 2: proxy.url: the proxy socks5://proxy:1080 is of a",
        ),
        ("[relay]\nenabled = true\ntls_port = 0", "agent.toml, line 3: relay.tls_port: this must be at least 1"),
        ("engine = 'kernel'", "agent.toml, line 1: engine: 'kernel' is none of auto, userspace, rootless"),
        ("public = 3", "agent.toml, line 1: public: this must be a table, not a whole number"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text.encode(), "agent.toml")
    assert sentence in str(caught.value)


def test_the_password_of_a_proxy_is_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        parse(b"[proxy]\nurl = 'socks5://me:secret@proxy:1080'", "agent.toml")
    assert "secret" not in str(caught.value)


def test_an_error_is_one_sentence_without_traces_of_the_parser() -> None:
    with pytest.raises(UsageError, match=r"^agent.toml, line 2: this is not UTF-8 text$"):
        parse(b"dns = true\n# \xff", "agent.toml")


@given(st.binary(max_size=200) | st.text("[]=\"'.\nabcdns_portlishen0123 {},").map(str.encode))
def test_whatever_the_file_holds_only_a_usage_error_comes_of_it(data: bytes) -> None:
    with contextlib.suppress(UsageError):
        parse(data, "agent.toml")
