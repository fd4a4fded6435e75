"""How it stands, in words."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.agent.streams.fakes import view, worked_out
from warren.agent.streams.config import Gateway
from warren.agent.streams.forward_text import parse_forward
from warren.agent.streams.status import news, stream_values, tasks
from warren.l4.config import Entry, EntryState, Listen, PartState, Status
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


def test_connectors_that_share_a_place_are_counted_each_by_itself() -> None:
    part = PartState(open=1, opened=3, refused={"rate": 2}, last_refusal="too fast", bytes_in=10, bytes_out=20)
    gate = EntryState(id="gateway *:443", state="listening", opened=9, bytes_in=90, parts={"home: connector raw": part})
    found = {one.id: one for one in stream_values(ITEMS, Status(entries=(gate,)))}
    raw, whole = found["home: connector raw"], found["gateway *:443"]
    assert (raw.open, raw.opened, raw.refused, raw.bytes_in, raw.bytes_out) == (1, 3, {"rate": 2}, 10, 20)
    assert raw.last_refusal == "too fast"
    assert (whole.opened, whole.bytes_in) == (9, 90)


def test_of_a_web_site_clients_are_counted_and_what_is_refused_behind_caddy_as_well() -> None:
    (item,) = [one for one in ITEMS if one.id == "home: connector raw"]
    behind = Entry(id="home: connector raw", listen=(Listen(path="/run/x"),))
    own = EntryState(
        id=item.id, state="listening", opened=5, refused={"connect": 1}, last_refusal="it is away", bytes_in=5
    )
    part = PartState(opened=3, refused={"rate": 2, "connect": 1}, last_refusal="too fast", bytes_in=10)
    gate = EntryState(id="gateway *:443", state="listening", parts={item.id: part})
    items = [replace(one, entry=behind) if one is item else one for one in ITEMS]
    found = {one.id: one for one in stream_values(items, Status(entries=(gate, own)))}[item.id]
    assert (found.opened, found.bytes_in) == (3, 10)
    assert found.refused == {"rate": 2, "connect": 2}
    assert found.last_refusal == "it is away"


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
    assert news(said, fine) == ([], ["forward 127.0.0.1:8080: works now"])
