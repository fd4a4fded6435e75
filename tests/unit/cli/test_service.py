"""``warren service`` and ``warren connector``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from click.shell_completion import ShellComplete

from tests.unit.cli.fakes import CONNECTOR, SERVICE, FakeAdmin, admin, agent_status, membership, peer, stream
from warren import cli
from warren.cli import access_agent
from warren.errors import Unreachable
from warren.proto.control.administration import ConnectorEntry, ConnectorRequest, Hindrance, ServiceRequest

__all__ = ["admin"]

COMPLETER = ShellComplete(cli.program, {}, "warren", "_WARREN_COMPLETE")
ADD_SERVICE = ["service", "add", "home", "shop", "--at", "tag:web", "--target"]
ADD_CONNECTOR = ["connector", "add", "home", "site", "--service", "shop", "--at", "tag:gw"]


def test_services_are_a_table_with_what_is_perhaps_not_meant_beside_it(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["service", "list", "home"]) == 0
    out, err = capsys.readouterr()
    assert out == (
        "NAME  PORT    AT           WORKS   TARGET          CONNECTORS\n"
        "shop  tcp 80  tag:web (1)  1 of 1  localhost:8080  site\n"
    )
    assert err == "warning: shop: no member has the tag wbe, so tag:wbe matches nobody\n"


def test_connectors_are_a_table(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["connector", "list", "home"]) == 0
    assert capsys.readouterr().out == (
        "NAME  SERVICE  KIND  LISTENS  DOMAINS       AT          WORKS\n"
        "site  shop     http  *:443    shop.example  tag:gw (1)  1 of 1\n"
    )


def hindered(*members: str, state: Literal["failed", "pending"] = "failed") -> tuple[Hindrance, ...]:
    return tuple(Hindrance(member=member, state=state, reason=f"{state}: do this") for member in members)


def test_what_keeps_a_member_from_it_is_a_line_with_what_to_do(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"m{number}" for number in range(9)]
    some = hindered("web1", "web2") + hindered("web3", state="pending")
    found = (
        msgspec.structs.replace(CONNECTOR, name="a", taken_by_count=6, working_count=1, hindered=some),
        msgspec.structs.replace(CONNECTOR, name="b", taken_by_count=9, working_count=0, hindered=hindered(*names)),
    )

    async def connectors(network: str) -> tuple[ConnectorEntry, ...]:
        return found

    monkeypatch.setattr(admin, "connectors", connectors)
    assert cli.run(["connector", "list", "home"]) == 0
    out, err = capsys.readouterr()
    assert "1 of 6" in out
    assert err == (
        "warning: a: at web1, web2: failed: do this\n"
        "warning: a: at web3: pending: do this\n"
        "warning: a: at 2 more, as their `warren status` tells\n"
        "warning: b: at m0, m1, m2, m3, m4, m5, m6, m7 and 1 more: failed: do this\n"
    )


def test_who_adds_one_hears_whether_it_works(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the members say comes a moment later, or not at all."""
    pending = msgspec.structs.replace(CONNECTOR, working_count=0, hindered=hindered("gw1", state="pending"))
    failed = msgspec.structs.replace(pending, hindered=hindered("gw1"))
    answers: list[tuple[ConnectorEntry, ...]] = [(pending,), (), (failed,)]

    async def add_connector(network: str, request: ConnectorRequest) -> ConnectorEntry:
        return pending

    async def connectors(network: str) -> tuple[ConnectorEntry, ...]:
        if not answers:
            raise Unreachable("it is gone")
        return answers.pop(0)

    monkeypatch.setattr("warren.cli.entries._EVERY_S", 0.0)
    monkeypatch.setattr(admin, "add_connector", add_connector)
    monkeypatch.setattr(admin, "connectors", connectors)
    assert cli.run([*ADD_CONNECTOR, "--wait", "0"]) == 0
    assert capsys.readouterr().err == ""
    assert len(answers) == 3
    assert cli.run([*ADD_CONNECTOR, "--wait", "5m"]) == 0
    assert capsys.readouterr().err == "warning: at gw1: failed: do this\n"
    assert cli.run([*ADD_CONNECTOR, "--wait", "5m"]) == 0
    assert capsys.readouterr().err == "warning: at gw1: pending: do this\n"


def test_a_service_is_added_as_it_was_said(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--at", "member:db", "--port", "80", "--connect-timeout", "3s", "--idle", "1h", "--health", "0s"]
    assert cli.run([*ADD_SERVICE, "localhost:8080", *options, "--proxy-protocol", "--comment", "the shop"]) == 0
    assert admin.asked[-1] == (
        "add_service",
        "home",
        ServiceRequest(
            name="shop",
            at=("tag:web", "member:db"),
            target="localhost:8080",
            port=80,
            connect_timeout_s=3,
            idle_s=3600,
            health_s=0,
            proxy_protocol=True,
            comment="the shop",
        ),
    )
    out, err = capsys.readouterr()
    assert out == "home has service shop: shop.svc.home.internal, tcp 80, at web1.\n"
    assert "warning: no member has the tag wbe" in err


def test_a_connector_is_added_as_it_was_said(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--kind", "http", "--domain", "Shop.Example", "--source", "192.0.2.7", "--source", "2001:db8::/32"]
    assert cli.run([*ADD_CONNECTOR, *options, "--rate", "2.5", "--streams", "7", "--certificate", "internal"]) == 0
    assert admin.asked[-1] == (
        "add_connector",
        "home",
        ConnectorRequest(
            name="site",
            service="shop",
            at=("tag:gw",),
            kind="http",
            domains=("shop.example",),
            sources=("192.0.2.7/32", "2001:db8::/32"),
            rate=2.5,
            streams_max=7,
            certificate="internal",
        ),
    )
    assert capsys.readouterr().out == (
        "home has connector site to service shop: *:443 (http for shop.example) of gw1.\n"
    )


def test_both_are_removed_by_name(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["connector", "remove", "home", "site"]) == 0
    assert cli.run(["service", "remove", "home", "shop"]) == 0
    assert [asked for asked in admin.asked if asked[0] != "access"] == [
        ("remove_connector", "home", "site"),
        ("remove_service", "home", "shop"),
    ]
    assert capsys.readouterr().out == "home has connector site no longer.\nhome has service shop no longer.\n"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([*ADD_SERVICE, "localhost:80"], SERVICE),
        (["service", "remove", "home", "shop"], SERVICE),
        (["service", "list", "home"], [SERVICE]),
        (ADD_CONNECTOR, CONNECTOR),
        (["connector", "remove", "home", "site"], CONNECTOR),
        (["connector", "list", "home"], [CONNECTOR]),
    ],
)
def test_as_json_everything_is_spelled_out(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], words: list[str], value: object
) -> None:
    assert cli.run([*words, "--json"]) == 0
    out, err = capsys.readouterr()
    first = json.loads(out)[0] if isinstance(value, list) else json.loads(out)
    assert first["warnings"] is not None
    assert set(first) >= {"name", "at", "comment"}
    assert err == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([*ADD_SERVICE, "localhost"], "'localhost' is no target: say HOST:PORT, [IPV6]:PORT or unix:/PATH"),
        ([*ADD_SERVICE, "::1:80"], "put the IPv6 address in brackets"),
        ([*ADD_SERVICE, "h:80", "--at", "web"], "'web' is no selector: members, member:NAME, tag:TAG or a prefix"),
        ([*ADD_SERVICE, "unix:/run/x"], "service shop: say a port, since unix:/run/x has none"),
        ([*ADD_SERVICE, "h:21", "--helper", "ftp", "--protocol", "udp"], "service shop: FTP needs protocol tcp"),
        ([*ADD_SERVICE, "h:50000"], "service shop: choose a port below 49152, those above are for helpers"),
        ([*ADD_SERVICE, "h:80", "--idle", "0s"], "0s is not possible here: from 1s to 1w"),
        ([*ADD_SERVICE, "h:80", "--connect-timeout", "5"], "'5' is no duration: say 90s, 30m"),
        ([*ADD_SERVICE, "h:80", *["--at", "members"] * 64], "service shop: at: this must be a list of at most 64"),
        ([*ADD_SERVICE, "h:80", "--comment", "a\nb"], "a comment is one line"),
        (["service", "add", "home", "Shop", "--at", "members", "--target", "h:1"], "'Shop' is no name"),
        (["service", "add", "home", "shop", "--target", "h:1"], "Missing option '--at'"),
        ([*ADD_CONNECTOR, "--kind", "tls"], "connector site: kind tls needs domains"),
        ([*ADD_CONNECTOR, "--domain", "a.example"], "connector site: domains need kind tls or http"),
        ([*ADD_CONNECTOR, "--kind", "http", "--domain", "192.0.2.1"], "192.0.2.1 is no domain but an address"),
        ([*ADD_CONNECTOR, "--kind", "http", "--domain", "*.a.example"], "'*.a.example' is no domain"),
        ([*ADD_CONNECTOR, "--listen", ":80"], "':80': say 80 for this host alone, or *:80 for everybody"),
        ([*ADD_CONNECTOR, "--listen", "web:80"], "'web:80' is no place to listen"),
        ([*ADD_CONNECTOR, "--source", "192.0.2.1/24"], "192.0.2.1/24 has host bits set: say 192.0.2.0/24"),
        ([*ADD_CONNECTOR, "--source", "web"], "'web' does not appear to be an IPv4 or IPv6 address"),
        ([*ADD_CONNECTOR, "--rate", "0"], "0.0 is not in the range"),
        ([*ADD_CONNECTOR, "--rate", "nan"], "connector site: rate"),
        ([*ADD_CONNECTOR, "--wait", "6m"], "6m is not possible here: from 0s to 5m"),
        ([*ADD_CONNECTOR, "--certificate", "none"], "connector site: only kind http has a certificate"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_before_anything_is_sent(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    assert cli.run(words) == 2
    err = capsys.readouterr().err
    assert why in err
    assert err.count("\n") == 1
    assert admin.asked == []


@pytest.mark.parametrize(
    "words",
    [
        ["service", "list", "my home"],
        ["network", "plan", "--network", "my home"],
        ["network", "uninvite", "home", "a b"],
        ["network", "relay", "remove", "home", "a b"],
        ["network", "revoke", "home", "a b"],
        ["service", "remove", "home", "Shop"],
        ["connector", "remove", "home", "a b"],
        ["connector", "add", "home", "db", "--service", "S!", "--at", "members"],
    ],
)
def test_what_cannot_be_a_name_is_refused_before_a_coordinator_is_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    monkeypatch.delenv("WARREN_ACCESS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert cli.run(words) == 2
    err = capsys.readouterr().err
    assert "Invalid value for" in err
    assert err.count("\n") == 1


def test_selectors_services_and_connectors_complete_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    home = membership(peers=(peer("web1", 2, tags=("web",)),))
    work = membership(network="work", tags=(), peers=(peer("carol", 3),))
    streams = (
        stream("home: service shop"),
        stream("home: connector site", target="service blog"),
        stream("work: service mail"),
        stream("forward 127.0.0.1:8080", origin="kept"),
        stream("socks 127.0.0.1:1080", origin="held", kind="socks"),
        stream("forward 127.0.0.1:8081", origin="config"),
    )
    status = agent_status(home, work)
    monkeypatch.setattr(access_agent, "status", lambda run, **_: msgspec.structs.replace(status, streams=streams))

    def offered(*words: str) -> list[str]:
        return [item.value for item in COMPLETER.get_completions(list(words[:-1]), words[-1])]

    assert offered("service", "remove", "home", "") == ["blog", "shop"]
    assert offered("service", "remove", "work", "") == ["mail"]
    assert offered("connector", "remove", "home", "") == ["site"]
    assert offered("connector", "add", "home", "x", "--service", "b") == ["blog"]
    everybody = ["members", "member:alice", "member:carol", "member:web1", "tag:admin", "tag:web"]
    assert offered("service", "add", "home", "x", "--at", "") == everybody
    assert offered("service", "add", "work", "x", "--at", "member:c") == ["member:carol"]
    assert offered("forward", "8080", "") == ["blog", "carol", "mail", "shop", "web1"]
    assert offered("forward", "--remove", "") == ["127.0.0.1:8080", "127.0.0.1:1080"]
