"""``warren doctor``: whom it asks, what it prints, how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks import MadeNetwork, signing_key
from tests.unit.doctor.seen import SILENT4, observed
from warren import cli
from warren.agent.state import NetworkState, Settings
from warren.cli.doctor_targets import targets_of
from warren.doctor import observe
from warren.doctor.observe import StunTarget, Targets
from warren.doctor.observed import Observed
from warren.doctor.web import TlsTarget
from warren.model.documents import Coordinator, Relay


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Targets]:
    """Makes ``observe`` see what is in the first element, and notes whom it was to ask."""
    calls: list[Targets] = []

    async def seen(targets: Targets, **_: Any) -> Observed:
        calls.append(targets)
        return observed(ipv4=SILENT4) if any(one.host == "dead" for one in targets.stun) else observed()

    monkeypatch.setattr(observe, "observe", seen)
    return calls


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("stun.example", StunTarget("stun.example", 3478)),
        ("stun.example:3479", StunTarget("stun.example", 3479)),
        ("192.0.2.1:1", StunTarget("192.0.2.1", 1)),
        ("2001:db8::1", StunTarget("2001:db8::1", 3478)),
        ("[2001:db8::1]", StunTarget("2001:db8::1", 3478)),
        ("[2001:db8::1]:3479", StunTarget("2001:db8::1", 3479)),
    ],
)
def test_a_server_is_named_with_or_without_its_port(
    asked: list[Targets], text: str, target: StunTarget, tmp_path: Path
) -> None:
    assert cli.run(["doctor", "--state", str(tmp_path), "--stun", text]) == 0
    assert asked[0].stun == (target,)


@pytest.mark.parametrize("text", ["", ":3478", "host:0", "host:65536", "host:port", "host:\u00b2", "[2001:db8::1]:x"])
def test_what_is_no_server_is_wrong_usage(asked: list[Targets], text: str, tmp_path: Path) -> None:
    assert cli.run(["doctor", "--state", str(tmp_path), "--stun", text]) == 2
    assert asked == []


def test_the_worst_comes_first_and_decides_the_exit_status(
    asked: list[Targets], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["doctor", "--state", str(tmp_path), "--stun", "dead"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "unknown: nobody outside answers"
    assert lines[2].startswith("BAD   UDP: no STUN server answers")
    assert any(line.startswith("      → ") for line in lines)
    assert lines[-1] == "members may not be reached: see BAD above"
    assert cli.run(["doctor", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing was found that keeps members from being reached"


def test_as_json_it_is_one_document(asked: list[Targets], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["doctor", "--state", str(tmp_path), "--stun", "dead", "--json"]) == 1
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert (report["kind"], report["two_nics"]) == ("unknown", False)
    assert {"topic", "level", "what", "meaning", "remedy"} == set(report["findings"][0])
    assert report["observed"]["ipv4"]["asked"] == ["203.0.113.1:3478"]


def kept(directory: Path) -> MadeNetwork:
    """The state of an agent in a network with two relays."""
    made = MadeNetwork()
    relays = (
        Relay(name="one", hosts=("192.0.2.1", "relay.example"), tls_port=443, certificate_sha256=bytes(32)),
        Relay(name="two", hosts=("192.0.2.2",), udp_port=None, tcp_port=80),
    )
    state = NetworkState(directory, made.key)
    other = Coordinator(url="https://ticket.example:8443", key=signing_key("other").verify_key.raw)
    state.write(Settings(name="home", interface="warren7", coordinators=(other,)))
    state.write_documents(1, (made.spec(relays=relays).envelope, made.membership("a").envelope))
    return made


def test_without_names_the_relays_and_coordinators_of_the_kept_documents_are_asked(tmp_path: Path) -> None:
    kept(tmp_path)
    targets, passed_over = targets_of(str(tmp_path), ())
    assert targets.stun == (StunTarget("192.0.2.1", 3478), StunTarget("relay.example", 3478))
    assert targets.tls == (
        TlsTarget("relay one", "192.0.2.1", 443, bytes(32)),
        TlsTarget("relay one", "relay.example", 443, bytes(32)),
    )
    assert [one.url for one in targets.coordinators] == ["https://ticket.example:8443", "https://c.example:443"]
    assert {"warren7", "w-*", "docker*"} <= set(targets.ignored)
    assert passed_over == []


def test_named_servers_take_the_relays_place(tmp_path: Path) -> None:
    kept(tmp_path)
    targets, _ = targets_of(str(tmp_path), (StunTarget("mine", 1),))
    assert targets.stun == (StunTarget("mine", 1),)
    assert targets.coordinators


def test_damaged_forged_or_missing_documents_name_nobody_and_are_left_as_they_are(tmp_path: Path) -> None:
    assert targets_of(str(tmp_path / "nothing"), ())[0].stun == ()
    made = kept(tmp_path)
    state = NetworkState(tmp_path, made.key)
    state.write_documents(2, (MadeNetwork("other").spec().envelope,))
    assert targets_of(str(tmp_path), ())[0].stun == ()
    for name in ("documents", "settings"):
        (tmp_path / "networks" / str(made.key) / name).write_bytes(b"damaged\n\xff\xff")
    before = sorted(tmp_path.rglob("*"))
    assert targets_of(str(tmp_path), ())[0].coordinators == ()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(tmp_path)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    targets, passed_over = targets_of(str(tmp_path), ())
    assert targets.stun == ()
    assert "Permission denied" in passed_over[0]


def test_the_proxy_and_the_interfaces_of_agent_toml_count_and_its_mistakes_are_said(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('ignored_interfaces = ["lan9"]\n[proxy]\nurl = "http://proxy.example:3128"\n')
    targets, passed_over = targets_of(str(tmp_path), ())
    assert (targets.proxy, "lan9" in targets.ignored, passed_over) == ("http://proxy.example:3128", True, [])
    (tmp_path / "agent.toml").write_text("[proxy]\nurl = 5\n")
    targets, passed_over = targets_of(str(tmp_path), ())
    assert targets.proxy is None
    assert "line 2" in passed_over[0]
