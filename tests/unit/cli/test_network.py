"""The commands of operators: what they ask a coordinator, and what they print."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec
import pytest

from tests.unit.cli.fakes import STATE, TICKET, FakeAdmin, admin
from warren import cli
from warren.cli import output
from warren.cli.network_invite import qr_lines
from warren.proto.control.desired_state import ConnectorState, DesiredState, ServiceState

__all__ = ["admin"]


def asked(admin: FakeAdmin, what: str) -> tuple[Any, ...]:
    (found,) = [entry[1:] for entry in admin.asked if entry[0] == what]
    return found


def test_a_network_is_made_with_what_was_said(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "create", "home", "--ipv4", "10.77.0.0/16", "--lease", "1h30m"]) == 0
    (request,) = asked(admin, "create_network")
    assert (request.name, request.prefix4, request.suffix, request.lease_s) == (
        "home",
        "10.77.0.0/16",
        "internal",
        5400,
    )
    assert "home is made, with fd00:1:2::/48 and 10.77.0.0/16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "Home"], "'Home' is no name"),
        (["create", "home", "--suffix", "a..b"], "'a..b' is no suffix of names"),
        (["create", "home", "--lease", "5s"], "from 1m to 30d"),
        (["create", "home", "--lease", "5"], "'5' is no duration"),
        (["invite", "home", "--tag", "9"], "'9' is no tag"),
        (["invite", "home", "--ttl", "soon"], "'soon' is no duration"),
        (["invite", "home", "--ttl", "9999d"], "9999d is not possible: from 1s to 366d"),
        (["invite", "home", "--ttl", "0s"], "0s is not possible: from 1s to 366d"),
        (["invite", "home", "--uses", "0"], "0 is not in the range"),
        (["rename", "home", "web1", "Web"], "'Web' is no name"),
        (["tag", "home", "web1"], "say which tags it is to have, or --none"),
        (["tag", "home", "web1", "a", "--none"], "say which tags it is to have, or --none"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_what_cannot_be_is_refused_before_anybody_is_asked(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.run(["network", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert admin.asked == []


def test_networks_are_a_table(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "list"]) == 0
    assert capsys.readouterr().out == (
        "NAME  MEMBERS  IPV6           IPV4          SUFFIX    LEASE  MADE\n"
        "home        1  fd00:1:2::/48  10.77.0.0/16  internal  24 h   3 d ago\n"
    )
    admin.networks_there = ()
    assert cli.run(["network", "list"]) == 0
    assert "There is no network yet" in capsys.readouterr().out


def test_a_network_is_shown_with_its_policy(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "show", "home"]) == 0
    out = capsys.readouterr().out
    assert "  names     NODE.home.internal\n" in out
    assert "    1  allow from members to members (all)\n" in out
    assert cli.run(["network", "show", "other"]) == 1


def test_a_network_is_shown_with_its_services_and_connectors(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = msgspec.structs.replace(
        STATE,
        services={"web": ServiceState(at=("tag:web",), target="localhost:80")},
        connectors={"shop": ConnectorState(at=("tag:gw",), service="web", kind="http", domains=("a.example",))},
    )

    async def desired_state(network: str) -> DesiredState:
        return state

    monkeypatch.setattr(admin, "desired_state", desired_state)
    assert cli.run(["network", "show", "home"]) == 0
    assert capsys.readouterr().out.endswith(
        "\nServices\n  web  tcp 80 at tag:web to localhost:80\n"
        "\nConnectors\n  shop  http a.example at tag:gw to service web\n"
    )


def test_an_invite_prints_the_command_to_paste(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "invite", "home", "--uses", "3", "--ttl", "2d", "--tag", "web", "--ephemeral"]) == 0
    _, request = asked(admin, "create_invite")
    assert (request.uses, request.ttl_s, request.tags, request.ephemeral) == (3, 172_800, ("web",), True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("For 3 machines, until ")
    assert lines[0].endswith(", with the tag web, ephemeral; on the machine run:")
    assert lines[-1] == f"warren up '{TICKET}'"
    assert len(lines) == 3


@pytest.mark.parametrize(("columns", "shown"), [(200, True), (80, True), (60, False)])
def test_a_terminal_that_is_wide_enough_gets_a_qr_code(
    admin: FakeAdmin,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
    shown: bool,
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda: columns)
    assert cli.run(["network", "invite", "home"]) == 0
    assert ("█" in capsys.readouterr().out) is shown
    assert cli.run(["network", "invite", "home", "--no-qr"]) == 0
    assert "█" not in capsys.readouterr().out
    assert cli.run(["network", "invite", "home", "--qr"]) == 0
    assert "█" in capsys.readouterr().out


@pytest.mark.parametrize("quiet_zone", [1, 2])
def test_a_qr_code_on_the_terminal_has_every_module_of_the_code(quiet_zone: int) -> None:
    import click
    import segno

    lines = [click.unstyle(line) for line in qr_lines(TICKET, quiet_zone)]
    drawn = [[int(character in halves) for character in line] for line in lines for halves in ("▀█", "▄█")]
    code = segno.make_qr(TICKET, error="l")
    expected = [[int(module) for module in row] for row in code.matrix_iter(border=quiet_zone)]
    assert drawn[: len(expected)] == expected
    assert not any(map(any, drawn[len(expected) :]))


def test_a_qr_code_that_would_be_too_large_is_an_error(admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.cli.fakes.TICKET", "x" * 3000)
    assert cli.run(["network", "invite", "home", "--qr"]) == 1


def test_invites_say_how_they_stand(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "invites", "home"]) == 0
    assert capsys.readouterr().out == (
        "ID  USED    STATE               TAGS  KIND\n"
        "i0  0 of 3  open for 30 min     web   ephemeral\n"
        "i1  1 of 3  expired 30 min ago  web   ephemeral\n"
        "i2  2 of 3  revoked             web   ephemeral\n"
        "i3  3 of 3  used up             web   ephemeral\n"
    )


def test_an_invite_is_taken_back(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "uninvite", "home", "i2"]) == 0
    assert asked(admin, "revoke_invite") == ("home", "i2")
    assert "Nobody can join with invite i2 any more; it was used 2 times." in capsys.readouterr().out


def test_members_are_a_table(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "members", "home"]) == 0
    assert capsys.readouterr().out == (
        "NAME  STATE   SINCE      IPV6           IPV4       LEASE  TAGS\n"
        "web1  online  7 min ago  fd00:1:2:1::1  10.77.0.1  23 h   web\n"
    )


def test_a_member_is_renamed_and_tagged(admin: FakeAdmin) -> None:
    assert cli.run(["network", "rename", "home", "web1", "web2"]) == 0
    assert cli.run(["network", "tag", "home", "web1", "a", "b"]) == 0
    assert cli.run(["network", "tag", "home", "web1", "--none"]) == 0
    renamed, tagged, bare = [entry[3] for entry in admin.asked if entry[0] == "change_member"]
    assert (renamed.name, renamed.tags) == ("web2", None)
    assert (tagged.name, tagged.tags) == (None, ("a", "b"))
    assert bare.tags == ()


def test_a_revocation_says_until_when_it_is_in_force_everywhere(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["network", "revoke", "home", "web1", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "connected to the coordinator drop it at once" in out
    assert "in 23 h at the latest" in out


def test_a_revocation_wants_to_be_meant(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "revoke", "home", "web1"]) == 2
    assert "say --yes" in capsys.readouterr().err
    assert cli.run(["network", "revoke", "home", "nobody", "--yes"]) == 1
    assert [entry for entry in admin.asked if entry[0] == "revoke_member"] == []


def test_events_cannot_drive_the_terminal(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "events", "home", "--after", "6", "--limit", "10"]) == 0
    assert asked(admin, "events") == ("home", 6, 10)
    assert "with a\\x1b[31m bad name" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["create", "home"],
        ["list"],
        ["show", "home"],
        ["invite", "home"],
        ["invites", "home"],
        ["uninvite", "home", "i1"],
        ["members", "home"],
        ["rename", "home", "web1", "web2"],
        ["tag", "home", "web1", "a"],
        ["revoke", "home", "web1", "--yes"],
        ["events"],
        ["plan"],
    ],
)
def test_every_command_speaks_json(admin: FakeAdmin, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert cli.run(["network", *arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert isinstance(json.loads(out), dict | list)
    assert out.count("\n") == 1


def test_json_on_a_terminal_is_indented(
    admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.run(["network", "list", "--json"]) == 0
    assert capsys.readouterr().out.startswith('[\n  {\n    "id"')
