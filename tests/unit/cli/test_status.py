"""``warren status``: the page, what fits on it, and the command that shows it."""

from __future__ import annotations

import json
from datetime import timedelta

import click
import msgspec
import pytest

from tests.unit.cli.fakes import NOW, agent_status, membership, peer, stream
from warren import cli
from warren.cli import access_agent, status
from warren.cli.status_page import page
from warren.errors import Unreachable
from warren.proto.control import local
from warren.proto.control.messages import Task

STATUS = agent_status(membership(), membership(network="work", network_id="w" * 52, peers=(), tasks=(), warnings=()))


def plain(status: local.AgentStatus, width: int | None) -> list[str]:
    return [click.unstyle(line) for line in page(status, NOW, width)]


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> list[local.AgentStatus | Exception]:
    """What the agent answers, one after the other; the last answer stays."""
    answers: list[local.AgentStatus | Exception] = [STATUS]

    def answer(run: str | None, **_: object) -> local.AgentStatus:
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(access_agent, "status", answer)
    monkeypatch.setattr("warren.cli.output.utc_now", lambda: NOW)
    return answers


def test_the_page_of_a_rootless_node_says_how_programs_reach_the_network() -> None:
    status = msgspec.structs.replace(agent_status(membership()), engine="rootless", engine_why="of this")
    assert plain(status, None)[-1].startswith("rootless, since of this: `warren exec COMMAND`")


def test_the_page_of_a_pipe_has_one_line_for_each_peer() -> None:
    *header, titles, bob, web1 = plain(agent_status(membership()), None)
    assert header == [
        "home  degraded  alice.home.internal",
        "  addresses    fd5c:d2ae:9f4b:1::1, 10.77.0.1",
        "  interface    wn-home (userspace engine, UDP port 41641)",
        "  lease        for another 22 h",
        "  coordinator  connected for 5 min to https://c.example.com:8443",
        "  reachable    hidden",
        "  stated       198.51.100.7:41641",
        "  observed     192.0.2.4 (by the coordinator)",
        "  tags         admin",
        "  routes       192.168.7.0/24",
        "  tasks        1 of 2 done",
        "  members      3 with this one, 1 connected to it",
        "  warning      this host's clock is 3 hours behind the coordinator's",
        "  failed       dns: port 53 is taken by dnsmasq; stop it",
        "",
    ]
    assert titles.split() == ["NAME", "STATE", "ADDRESSES", "PATH", "RTT", "HANDSHAKE", "RECEIVED", "SENT", "LEASE"]
    assert " ".join(bob.split()) == "bob unreachable fd5c:d2ae:9f4b:3::1, 10.77.0.3 none - - 987 B 1.2 MB 23 h"
    assert web1 == (
        "  web1  connected    fd5c:d2ae:9f4b:2::1, 10.77.0.2  direct [2001:db8:0:1::10]:51820  0.42 ms   75 s ago"
        "     987 B  1.2 MB   23 h"
    )
    assert len({len(line) for line in (titles, bob, web1)}) == 1


def test_on_eighty_columns_a_peer_takes_two_lines() -> None:
    lines = plain(agent_status(membership()), 80)
    assert max(map(len, lines)) <= 80
    assert lines[-5:] == [
        "  NAME  STATE            RTT  HANDSHAKE  RECEIVED    SENT  LEASE",
        "  bob   unreachable        -          -     987 B  1.2 MB   23 h",
        "    fd5c:d2ae:9f4b:3::1 10.77.0.3  none",
        "  web1  connected    0.42 ms   75 s ago     987 B  1.2 MB   23 h",
        "    fd5c:d2ae:9f4b:2::1 10.77.0.2  direct [2001:db8:0:1::10]:51820",
    ]


def test_a_narrow_terminal_gets_the_path_on_a_line_of_its_own() -> None:
    lines = plain(agent_status(membership()), 64)
    assert lines[-2:] == ["    fd5c:d2ae:9f4b:2::1 10.77.0.2", "    direct [2001:db8:0:1::10]:51820"]


def test_why_a_service_is_not_carried_is_on_the_page_once() -> None:
    why = "127.0.0.1:8001 refuses connections"
    network = membership(tasks=(Task(name="service web", state="failed", reason=why),))
    streams = (stream("home: service web", state="failed", reason=why),)
    shown = plain(msgspec.structs.replace(agent_status(network), streams=streams), None)
    assert [line for line in shown if why in line] == [f"  failed       service web: {why}"]


def test_every_network_has_its_part() -> None:
    lines = plain(STATUS, None)
    assert [line for line in lines if not line.startswith(" ") and line] == [
        "home  degraded  alice.home.internal",
        "work  degraded  alice.home.internal",
    ]
    assert lines[-1] == "  nobody else is in it"


def test_a_coordinator_that_is_gone_is_told_with_the_reason() -> None:
    link = local.CoordinatorLink(
        url="https://c:8443",
        connected=False,
        since=NOW - timedelta(minutes=9),
        error="nobody answers at https://c:8443",
        clock_offset_s=None,
        observed="",
    )
    lines = plain(agent_status(membership(coordinator=link, lease_ends=NOW, stated=(), reachability="unknown")), None)
    assert "  coordinator  not connected for 9 min: nobody answers at https://c:8443" in lines
    assert "  lease        has ended" in lines
    assert not any(line.startswith(("  stated", "  observed", "  reachable")) for line in lines)


def test_a_revoked_node_has_neither_addresses_nor_a_lease_to_show() -> None:
    lines = plain(agent_status(membership(state="revoked", addresses=(), peers=())), None)
    assert lines[0] == "home  revoked  alice.home.internal"
    assert not any(line.startswith(("  addresses", "  lease")) for line in lines)


def test_nothing_on_the_page_can_drive_the_terminal() -> None:
    bad = "\x1b[2Jx\n"
    shown = page(agent_status(membership(fqdn=bad, warnings=(bad,), peers=(peer(bad, 2),))), NOW, 80)
    text = "".join(click.unstyle(line) for line in shown)
    assert "\x1b" not in text
    assert "\n" not in text


def test_status_shows_one_network_by_name_or_key(agent: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("work", "w" * 52):
        assert cli.run(["status", name]) == 0
        assert capsys.readouterr().out.startswith("work  degraded")
    assert cli.run(["status", "nowhere"]) == 1
    assert "it is in: home, work" in capsys.readouterr().err


def test_status_of_a_machine_in_no_network(agent: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    agent[:] = [agent_status()]
    assert cli.run(["status"]) == 0
    assert "warren up" in capsys.readouterr().out


def test_status_as_json_is_complete(agent: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    import msgspec

    assert cli.run(["status", "--json"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=local.AgentStatus) == STATUS


def test_an_agent_that_does_not_answer_is_status_3(agent: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    agent[:] = [Unreachable("the agent does not answer")]
    assert cli.run(["status"]) == 3
    assert capsys.readouterr().err == "warren: the agent does not answer\n"


def test_without_an_agent_the_socket_is_named(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert cli.run(["status", "--run", str(tmp_path)]) == 3
    assert f"{tmp_path}/agent.sock" in capsys.readouterr().err


def test_watching_goes_on_while_the_agent_is_restarted(
    agent: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent[:] = [STATUS, Unreachable("the agent does not answer"), STATUS]
    sleeps = iter([None, None])

    def sleep(_: float) -> None:
        if next(sleeps, "end") == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert cli.run(["status", "--watch"]) == 130
    out = capsys.readouterr().out
    assert out.count("home  degraded") == 2
    assert "the agent does not answer\n" in out
    assert "\x1b[H" not in out


def test_watching_on_a_terminal_draws_over_the_old_page(
    agent: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    monkeypatch.setattr("warren.cli.output.terminal_width", lambda: 80)
    assert cli.run(["status", "--watch"]) == 130
    out = capsys.readouterr().out
    assert out.startswith("\x1b[H")
    assert "\x1b[K\n" in out
    assert out.endswith("\x1b[J")


def test_watching_shows_what_the_terminal_has_room_for() -> None:
    lines = [str(number) for number in range(10)]
    assert status.fitting(lines, 80, 12) == lines
    assert status.fitting(lines, 80, 11) == [*lines[:9], "… and 1 more lines; without --watch all are shown"]
    lines[1] = click.style("x" * 81, fg="red")
    assert status.fitting(lines, 80, 12)[8:] == ["8", "… and 1 more lines; without --watch all are shown"]
    assert status.fitting(lines, 80, 1) == ["… and 10 more lines; without --watch all are shown"]


def test_watching_as_json_is_a_line_each_time(
    agent: list[object], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent[:] = [STATUS, STATUS, Unreachable("gone")]
    monkeypatch.setattr(status.time, "sleep", lambda _: None)
    assert cli.run(["status", "--watch", "--json"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["host"] for line in lines] == ["alice", "alice"]


def relay(name: str, **changes: object) -> local.Relay:
    values: dict[str, object] = {
        "state": "ready",
        "transport": "udp",
        "address": "45.80.2.2:3478",
        "relayed": (),
        "rtt_ms": 12.0,
        "why": "",
    }
    return local.Relay(name=name, **{**values, **changes})  # type: ignore[arg-type]


def test_a_relayed_peer_and_one_without_any_way_are_told_apart_in_words() -> None:
    why = "None of the 7 ways that were tried was answered."
    peers = (
        peer("web1", 2, path="relayed", relay="near"),
        peer("bob", 3, state="unreachable", path="none", endpoint="", rtt_ms=None, why=why),
    )
    lines = plain(agent_status(membership(peers=peers)), None)
    assert any("relayed via near" in line for line in lines)
    assert lines[-1] == f"  no way       bob: {why}"


def test_the_header_tells_how_the_relays_are() -> None:
    relays = (
        relay("near"),
        relay("tls", transport="tls", rtt_ms=None),
        relay("far", state="standby"),
        relay("gone", state="failed", why="the relay gone does not answer over UDP"),
    )
    lines = plain(agent_status(membership(relays=relays, udp_blocked=True)), None)
    (line,) = [line for line in lines if line.startswith("  relays ")]
    assert line.split("  ")[-1].strip() == (
        "near (12 ms), tls over TLS, far (not needed), gone (the relay gone does not answer over UDP)"
    )
    assert any(line.startswith("  UDP ") and "blocked" in line for line in lines)
