"""What agent.toml says of streams."""

from __future__ import annotations

import pytest

from warren.agent.config import AgentConfig, parse
from warren.errors import UsageError
from warren.model.stream_places import parse_listen, parse_target

COMPLETE = b"""
engine = "rootless"

[[forward]]
listen = "8080"
target = "db:5432"

[[forward]]
listen = "overlay:53"
target = "localhost:53/udp"

[socks]
listen = "1080"

[gateway]
enabled = true
domain = "gw.example.org"
acme_directory = "https://acme.example/dir"
acme_email = "admin@example.org"
acme_ca = "/etc/ssl/root.pem"

[services]
allow = ["127.0.0.1:*", "10.0.0.0/8:80", "[fd00::]/8:80-89", "*.lan:443", "unix:/run/*"]
"""

FORWARD = "[[forward]]\nlisten = '1'\ntarget = 'x:1'\n"


def test_everything_can_be_said() -> None:
    config = parse(COMPLETE, "agent.toml")
    assert config.engine == "rootless"
    assert [forward.id for forward in config.streams.forwards] == ["forward 127.0.0.1:8080", "forward overlay:53/udp"]
    assert config.streams.socks is not None
    assert config.streams.socks.place == "127.0.0.1:1080"
    gateway = config.streams.gateway
    assert gateway is not None
    assert (gateway.domain, gateway.acme_email, str(gateway.acme_ca)) == (
        "gw.example.org",
        "admin@example.org",
        "/etc/ssl/root.pem",
    )


def test_nothing_need_be_said() -> None:
    streams = AgentConfig().streams
    assert (streams.forwards, streams.socks, streams.gateway) == ((), None, None)
    assert streams.serving.objection(parse_target("127.0.0.1:22")) == ""


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("127.0.0.1:1", True),
        ("127.0.0.2:1", False),
        ("10.1.2.3:80", True),
        ("10.1.2.3:81", False),
        ("[fd12::1]:85", True),
        ("[fd12::1]:90", False),
        ("web.lan:443", True),
        ("WEB.lan.:443", True),
        ("web.lan:80", False),
        ("localhost:80", False),
        ("unix:/run/web.sock", True),
        ("unix:/etc/web.sock", False),
    ],
)
def test_targets_that_the_operator_does_not_allow_are_not_served(target: str, allowed: bool) -> None:
    said = parse(COMPLETE, "agent.toml").streams.serving.objection(parse_target(target))
    assert (said == "") is allowed
    assert allowed or "[services] allow, can add it" in said


def test_unix_sockets_are_served_only_where_the_operator_names_them() -> None:
    serving = parse(b"", "agent.toml").streams.serving
    assert serving.objection(parse_target("127.0.0.1:22")) == ""
    assert 'allow = ["unix:/run/docker.sock", "*:*"]' in serving.objection(parse_target("unix:/run/docker.sock"))


def test_services_can_be_switched_off() -> None:
    serving = parse(b"[services]\nenabled = false", "agent.toml").streams.serving
    assert "has switched services off" in serving.objection(parse_target("127.0.0.1:80"))


def test_places_of_connectors_are_listed_as_targets_are() -> None:
    taking = parse(b"[connectors]\nallow = ['127.0.0.1:8000-8999', '*:443']", "agent.toml").streams.taking
    assert taking.objection([parse_listen("8080"), parse_listen("*:443")], gateway=True) == ""
    assert taking.objection([parse_listen("7080")], gateway=True)
    assert parse(b"", "agent.toml").streams.taking.objection([parse_listen("8080")], gateway=False) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[connectors]\nallow = ['web.lan:80']", "line 2: connectors.allow: 'web.lan:80': say ADDRESS:PORT"),
        ("[connectors]\nallow = ['8080']", "line 2: connectors.allow: '8080': say ADDRESS:PORT"),
        ("engine = 'kernel'", "agent.toml, line 1: engine: "),
        (
            "[[forward]]\nlisten = '1'\ntarget = 'x:1'\n[[forward]]\nlisten = '0'\ntarget = 'x:1'",
            "line 4: forward: '0'",
        ),
        (FORWARD * 2, "line 4: forward: two forwards cannot listen at 127.0.0.1:1"),
        (
            f"{FORWARD}[[forward]]\nlisten = '*:1'\ntarget = 'x:1'",
            "line 4: forward: two forwards cannot listen at 127.0.0.1:1 and *:1",
        ),
        ("[[forward]]\nlisten = '1'", "line 1: forward.target: this key is missing"),
        (
            "[[forward]]\nlisten = '1'\ntarget = 'x:1'\n[socks]\nlisten = '1'",
            "a forward listens at 127.0.0.1:1 already",
        ),
        ("[socks]\nlisten = '*:1080'", "line 2: socks.listen: "),
        ("[gateway]\nenabled = true\nacme_ca = 'root.pem'", "line 3: gateway.acme_ca: 'root.pem' is no absolute path"),
        (
            "[gateway]\nacme_directory = 'http://acme.example'",
            "line 2: gateway.acme_directory: 'http://acme.ex",
        ),
        ("[gateway]\ndomain = 'GW'", "line 2: gateway.domain: 'GW' is no domain: lower-case letters"),
        ("[gateway]\nacme_email = 'ada'", "line 2: gateway.acme_email: 'ada' is no mail address: say "),
        (f"[gateway]\ndomain = '{'.'.join(['a' * 63] * 3)}'", "line 2: gateway.domain: it has more than 189"),
        ("[services]\nallow = ['10.0.0.1/8:80']", "line 2: services.allow: '10.0.0.1/8:80': 10.0.0.1/8 has host bits"),
        ("[services]\nallow = ['10.0.0.1']", "say ADDRESS:PORT"),
        ("[services]\nallow = ['a b:80']", "say ADDRESS:PORT"),
    ],
)
def test_an_error_names_line_and_key(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text.encode(), "agent.toml")
    assert sentence in str(caught.value)
