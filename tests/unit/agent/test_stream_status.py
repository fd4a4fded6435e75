"""How it stands, in words."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.agent.stream_fakes import view, worked_out
from warren.agent.forward_text import parse_forward
from warren.agent.stream_config import Gateway
from warren.agent.stream_status import news, stream_values, tasks
from warren.l4.config import EntryState, Status
from warren.model.services import Connector, Service

WEB = Service(name="web", at=("members",), target="localhost:8080", port=80)
RAW = Connector(name="raw", at=("members",), service="web", kind="tls", domains=("a.example.org",))
ITEMS = worked_out(view(WEB, connectors=[RAW]), forwards=(parse_forward("8080", "bob:80"),), gateway=Gateway()).items


def listening(*names: str) -> Status:
    return Status(entries=tuple(EntryState(id=name, state="listening", places=(f"at {name}",)) for name in names))


ALL = listening("home: service web", "gateway *:443", "forward 127.0.0.1:8080")


def states(status: Status) -> dict[str, tuple[str, str]]:
    return {one.id: (one.state, one.reason) for one in stream_values(ITEMS, status)}


def test_everything_listens_and_a_connector_that_shares_a_place_is_as_that_is() -> None:
    assert set(states(ALL).values()) == {("listening", "")}
    assert [one.name for one in tasks(ITEMS, stream_values(ITEMS, ALL), "home")] == [
        "forward 127.0.0.1:8080",
        "service web",
        "connector raw",
        "gateway *:443",
    ]
    assert {one.state for one in tasks(ITEMS, stream_values(ITEMS, ALL), "home")} == {"done"}
    assert tasks(ITEMS, stream_values(ITEMS, ALL), "work") == ()


def test_what_the_process_has_not_told_of_is_pending() -> None:
    assert set(states(Status()).values()) == {("pending", "")}


def test_what_cannot_listen_or_whose_target_is_away_says_why_and_so_do_those_that_share_it() -> None:
    gate = EntryState(id="gateway *:443", state="failed", reason="port 443 is in use")
    web = EntryState(id="home: service web", state="unhealthy", reason="nobody is there")
    found = states(Status(entries=(*listening("forward 127.0.0.1:8080").entries, gate, web)))
    assert found["gateway *:443"] == found["home: connector raw"] == ("failed", "port 443 is in use")
    assert found["home: service web"] == ("unhealthy", "nobody is there")
    made = tasks(ITEMS, stream_values(ITEMS, Status(entries=(gate, web))), "home")
    assert [(one.name, one.state, one.reason) for one in made if one.state == "failed"] == [
        ("service web", "failed", "nobody is there"),
        ("connector raw", "failed", "port 443 is in use"),
        ("gateway *:443", "failed", "port 443 is in use"),
    ]


def test_a_problem_counts_more_than_that_it_listens() -> None:
    items = [replace(one, problem="the policy forbids it") if one.kind == "forward" else one for one in ITEMS]
    (forward,) = [one for one in stream_values(items, ALL) if one.kind == "forward"]
    assert (forward.state, forward.reason, forward.places) == (
        "failed",
        "the policy forbids it",
        ("at forward 127.0.0.1:8080",),
    )


def test_the_log_says_what_changed_and_says_it_once() -> None:
    fine = stream_values(ITEMS, ALL)
    broken = tuple(stream_values([replace(one, problem="no") if one.kind == "forward" else one for one in ITEMS], ALL))
    said = {one.id: (one.state, one.reason) for one in broken}
    assert news({}, fine) == ([], [])
    assert news({}, broken) == (["forward 127.0.0.1:8080: no"], [])
    assert news(said, broken) == ([], [])
    assert news(said, fine) == ([], ["forward 127.0.0.1:8080: works again"])
