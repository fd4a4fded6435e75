"""``warren network plan`` and ``apply``: what is shown, what is asked, what is sent, and when nothing is."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from msgspec.structs import replace

from tests.unit.cli.fakes import CONNECTOR, STATE, FakeAdmin, admin
from warren import cli
from warren.api.rest import RequestInvalid
from warren.cli.network_plan import change_lines
from warren.errors import OperationFailed
from warren.proto.control.administration import ConnectorEntry, Hindrance
from warren.proto.control.desired_state import Change, Plan, Problem

__all__ = ["admin"]

TEXT = """\
network = "home"

[[policy]]
action = "allow"
from = ["members"]
to = ["members", "member:gone"]
"""
CHANGES = (
    Change(action="change", subject="policy rule 1", before="allow a", after="deny b"),
    Change(action="add", subject="tags of web1", before=None, after="web"),
    Change(action="remove", subject="suffix", before="internal", after=None),
)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "home.toml"
    path.write_text(TEXT)
    return str(path)


def answer_on_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer)


def applied(admin: FakeAdmin) -> list[object]:
    return [asked[2] for asked in admin.asked if asked[0] == "apply"]


def test_a_plan_shows_the_changes_and_makes_none(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    assert cli.run(["network", "plan", file]) == 0
    assert capsys.readouterr().out == (
        f"home differs from {file}:\n\n"
        "  ~ policy rule 1  - allow a\n"
        "                   + deny b\n"
        "  + tags of web1   web\n"
        "  - suffix         internal\n\n"
        f"3 changes to make; `warren network apply {file}` does it.\n"
    )
    assert applied(admin) == []


def test_a_network_that_is_as_the_file_says_needs_nothing(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("plan", "apply"):
        assert cli.run(["network", command, file]) == 0
        assert capsys.readouterr().out == f"Nothing to do: home is as {file} says.\n"
    assert applied(admin) == []


def test_an_apply_sends_the_version_that_was_planned(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    assert cli.run(["network", "apply", "--yes", file]) == 0
    assert capsys.readouterr().out.endswith(f"Done: 3 changes. home is as {file} says.\n")
    (request,) = applied(admin)
    assert request.version == 4  # type: ignore[attr-defined]
    assert request.state.policy[0].destinations == ("members", "member:gone")  # type: ignore[attr-defined]


def test_who_applies_services_and_connectors_hears_whether_they_work(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = Hindrance(member="gw1", state="pending", reason="not yet")
    failed = Hindrance(member="gw1", state="failed", reason="port in use")
    answers = [(replace(CONNECTOR, working_count=0, hindered=(one,)),) for one in (pending, failed, pending)]

    async def connectors(network: str) -> tuple[ConnectorEntry, ...]:
        return answers.pop(0)

    monkeypatch.setattr("warren.cli.entries._EVERY_S", 0.0)
    monkeypatch.setattr(admin, "connectors", connectors)
    carried = (
        Change(action="add", subject="connector site", before=None, after="port"),
        Change(action="remove", subject="connector old", before="port", after=None),
    )
    for changes, said in (
        (CHANGES, ""),
        (carried[1:], ""),
        (carried, "warning: connector site: at gw1: port in use\n"),
    ):
        admin.planned = Plan(version=4, changes=changes, problems=())
        assert cli.run(["network", "apply", "--yes", file, "--wait", "5m"]) == 0
        assert capsys.readouterr().err == said
    assert cli.run(["network", "apply", "--yes", file, "--wait", "0"]) == 0
    assert len(answers) == 1


def test_what_is_said_of_something_changed_is_not_what_was_said_before(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Hindrance(member="gw1", state="failed", reason="port in use")
    slept: list[float] = []

    async def connectors(network: str) -> tuple[ConnectorEntry, ...]:
        said = sum(slept) > 1  # agents tell a second after a change
        return (replace(CONNECTOR, working_count=int(not said), hindered=(failed,) if said else ()),)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(admin, "connectors", connectors)
    monkeypatch.setattr("asyncio.sleep", sleep)
    changed = Change(action="change", subject="connector site", before="port", after="tls")
    admin.planned = Plan(version=4, changes=(changed,), problems=())
    assert cli.run(["network", "apply", "--yes", file]) == 0
    assert capsys.readouterr().err == "warning: connector site: at gw1: port in use\n"


def test_an_apply_after_somebody_else_changed_the_network_is_refused(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    admin.apply_error = OperationFailed("The network has changed: it is at version 5; plan again")
    assert cli.run(["network", "apply", "--yes", file]) == 1
    out, err = capsys.readouterr()
    assert "Done" not in out
    assert err == "warren: The network has changed: it is at version 5; plan again\n"


def test_without_a_terminal_an_apply_wants_yes(admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    assert cli.run(["network", "apply", file]) == 2
    assert "say --yes" in capsys.readouterr().err
    assert applied(admin) == []


@pytest.mark.parametrize(("answer", "status", "count"), [("y", 0, 1), ("n", 1, 0), ("", 1, 0)])
def test_on_a_terminal_an_apply_asks(
    admin: FakeAdmin, file: str, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, count: int
) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    answer_on_a_terminal(monkeypatch, answer)
    assert cli.run(["network", "apply", file]) == status
    assert len(applied(admin)) == count


def test_a_problem_of_the_coordinator_is_told_with_file_line_and_key(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(where="policy[0].destinations", what="there is no member gone, so member:gone matches nobody")
    admin.planned = Plan(version=4, changes=CHANGES, problems=(problem,))
    for command in ("plan", "apply"):
        assert cli.run(["network", command, file]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err == f"warren: {file}:6: policy[0].to: {problem.what}; nothing was changed\n"
    assert applied(admin) == []


def test_problems_that_an_apply_meets_are_told_in_the_same_way(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    admin.apply_error = RequestInvalid("It cannot be.", (Problem(where="policy[0]", what="odd"),))
    assert cli.run(["network", "apply", "-y", file]) == 2
    assert capsys.readouterr().err == f"warren: {file}:3: policy[0]: odd; nothing was changed\n"
    admin.apply_error = RequestInvalid("It cannot be.", ())
    assert cli.run(["network", "apply", "-y", file]) == 2
    assert capsys.readouterr().err == "warren: It cannot be.\n"


def test_several_problems_are_a_line_each_in_the_order_of_the_file(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("allow", "permit") + 'colour = "\\u001b[31m"\n')
    assert cli.run(["network", "apply", "-y", str(path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{path}:4: policy[0].action: 'permit' is none of allow, deny",
        f"{path}:7: policy[0].colour: there is no such key (known are action, from, to, protocol, ports, comment)",
        f"warren: {path} has 2 problems; nothing was changed",
    ]
    assert admin.asked == []


def test_problems_as_json_are_a_list_and_an_error(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(TEXT.replace("allow", "permit"))
    assert cli.run(["network", "plan", "--json", str(path)]) == 2
    out, err = capsys.readouterr()
    (problem,) = json.loads(out)["problems"]
    assert problem["line"] == 4
    assert problem["key"] == "policy[0].action"
    assert json.loads(err)["level"] == "error"


def test_plan_and_apply_as_json(admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["network", "apply", "--json", file]) == 0
    assert json.loads(capsys.readouterr().out)["applied"] is False
    admin.planned = Plan(version=4, changes=CHANGES, problems=())
    assert cli.run(["network", "plan", "--json", file]) == 0
    assert len(json.loads(capsys.readouterr().out)["changes"]) == 3
    assert cli.run(["network", "apply", "--json", "-y", file]) == 0
    assert json.loads(capsys.readouterr().out)["applied"] is True


def test_what_is_perhaps_not_meant_is_told_beside_the_plan_and_hinders_nothing(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "home.toml"
    file.write_text(f'{TEXT}\n[service.web]\nat = ["tag:wbe"]\ntarget = "localhost:80"\n')
    warning = Problem(where="services.web.at[0]", what="no member has the tag wbe, so tag:wbe matches nobody")
    admin.planned = Plan(version=4, changes=CHANGES, problems=(), warnings=(warning,))
    assert cli.run(["network", "plan", str(file)]) == 0
    assert capsys.readouterr().err == f"warning: {file}:9: service.web.at[0]: {warning.what}\n"
    assert cli.run(["network", "apply", "-y", str(file)]) == 0
    assert len(applied(admin)) == 1
    assert f"warning: {file}:9" in capsys.readouterr().err
    assert cli.run(["network", "plan", "--json", str(file)]) == 0
    out, err = capsys.readouterr()
    expected = {"file": str(file), "line": 9, "key": "service.web.at[0]", "what": warning.what}
    assert json.loads(out)["warnings"] == [expected]
    assert err == ""


def test_a_file_may_come_from_standard_input(
    admin: FakeAdmin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(TEXT.encode())))
    assert cli.run(["network", "plan", "-"]) == 0
    assert capsys.readouterr().out == "Nothing to do: home is as standard input says.\n"


def test_a_plan_without_a_file_prints_one_that_changes_nothing(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["network", "plan"]) == 0
    text = capsys.readouterr().out
    assert cli.run(["network", "show", "home", "--toml"]) == 0
    assert capsys.readouterr().out == text
    path = tmp_path / "present.toml"
    path.write_text(text)
    assert cli.run(["network", "plan", str(path)]) == 0
    assert admin.asked[-1] == ("plan", "home", STATE)


def test_a_plan_without_a_file_needs_a_network_to_print(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
    admin.networks_there *= 2
    assert cli.run(["network", "plan"]) == 2
    assert "say which: --network home or home" in capsys.readouterr().err
    admin.networks_there = ()
    assert cli.run(["network", "plan"]) == 2
    assert "there is no network yet" in capsys.readouterr().err


def test_a_file_about_another_network_is_refused(
    admin: FakeAdmin, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["network", "plan", file, "--network", "work"]) == 2
    assert "is about the network home, not work" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(
    admin: FakeAdmin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["network", "plan", str(tmp_path)]) == 1
    remedy = "name a file that `warren network plan` printed"
    assert capsys.readouterr().err == f"warren: {tmp_path} cannot be read: Is a directory; {remedy}\n"
    assert cli.run(["network", "apply"]) == 2


def test_a_diff_cannot_drive_the_terminal() -> None:
    lines = change_lines((Change(action="add", subject="x", before=None, after="\x1b[2J\nhidden"),))
    assert [click.unstyle(line) for line in lines] == ["  + x  \\x1b[2J\\nhidden"]
