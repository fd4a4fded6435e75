"""``warren ping``: the messages, the account, and the command over the loopback interface."""

from __future__ import annotations

import json
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.fakes import agent_status, membership, peer
from warren import cli
from warren.cli import access_agent, ping
from warren.cli.ping_echo import TOKEN_BYTES, Account, EchoSocket, echo_reply_untrusted, echo_request
from warren.errors import MalformedPacket, OperationFailed

TOKEN = b"t" * TOKEN_BYTES


def reply(version: int, sequence: int, token: bytes = TOKEN) -> bytes:
    """What a host answers (RFC 792 page 14, RFC 4443 §4.2): the request with another type."""
    return bytes([{4: 0, 6: 129}[version]]) + echo_request(version, sequence, token)[1:]


@pytest.mark.parametrize("version", [4, 6])
def test_an_answer_says_which_request_it_is_to(version: int) -> None:
    assert echo_reply_untrusted(version, reply(version, 70_000), TOKEN) == 70_000


def test_a_raw_ipv4_socket_gives_the_ip_header_too() -> None:
    packet = bytes([0x46]) + bytes(23) + reply(4, 3)
    assert echo_reply_untrusted(4, packet, TOKEN, with_ip_header=True) == 3


def test_the_checksum_of_an_ipv4_request_is_right() -> None:
    message = echo_request(4, 513, TOKEN)
    words = sum(int.from_bytes(message[at : at + 2]) for at in range(0, len(message), 2))
    assert (words & 0xFFFF) + (words >> 16) == 0xFFFF  # RFC 1071


@pytest.mark.parametrize(
    "data",
    [
        echo_request(6, 1, TOKEN),  # our own request, as a raw socket on the loopback interface sees it
        reply(6, 1, b"u" * TOKEN_BYTES),
        reply(4, 1),
        reply(6, 1)[:27],
        b"",
    ],
)
def test_what_is_no_answer_to_us_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        echo_reply_untrusted(6, data, TOKEN)


@given(st.sampled_from([4, 6]), st.binary(max_size=80), st.booleans())
def test_no_bytes_make_it_fail_otherwise(version: int, data: bytes, with_ip_header: bool) -> None:
    with pytest.raises(MalformedPacket):
        echo_reply_untrusted(version, data, TOKEN, with_ip_header=with_ip_header)


def test_the_account_takes_each_answer_once() -> None:
    account = Account()
    assert account.lost_percent == 0
    assert [account.send(now) for now in (1.0, 2.0, 3.0)] == [1, 2, 3]
    assert account.receive(2, 2.5) == 500.0
    assert account.receive(2, 2.6) is None
    assert account.receive(9, 2.6) is None
    assert account.waiting
    assert (account.sent, account.received) == (3, 1)
    assert account.lost_percent == pytest.approx(66.67, abs=0.01)


def test_an_endless_ping_remembers_only_so_much() -> None:
    account = Account()
    for now in range(1500):
        account.send(float(now))
    assert account.receive(1, 2000.0) is None
    assert account.receive(1500, 1499.5) == 500.0


def may_ping(address: str) -> bool:
    """Whether this machine lets us ping itself."""
    try:
        with EchoSocket(ip_address(address), TOKEN) as echoes:
            return echoes.send(0) == ""
    except OperationFailed:
        return False


@pytest.mark.parametrize("kind", ["datagram", "raw"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_socket_sends_and_receives(address: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def choose(family: int, type_: int, protocol: int) -> socket.socket:
        if (type_ == socket.SOCK_DGRAM) != (kind == "datagram"):
            raise PermissionError(1, "Operation not permitted")
        return real(family, type_, protocol)

    monkeypatch.setattr(socket, "socket", choose)
    try:
        echoes = EchoSocket(ip_address(address), TOKEN)
    except OperationFailed:
        pytest.skip(f"this user may not have {kind} ICMP sockets")
    with echoes:
        if echoes.send(5):
            pytest.skip(f"{address} is not there")
        found = [echoes.receive(1.0) for _ in range(2)]  # a raw socket also sees the request
    assert 5 in found


def test_a_user_who_may_not_ping_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(OperationFailed, match="ping_group_range"):
        EchoSocket(IPv6Address("::1"), TOKEN)


# The command, without a network


class FakeEchoes:
    """Answers every request in a millisecond, but for those in ``lost``."""

    lost: tuple[int, ...] = ()
    refusal = ""

    def __init__(self, address: IPv4Address | IPv6Address, token: bytes, ready: socket.socket | None) -> None:
        assert ready is None
        self.answers: list[int] = []
        FakeEchoes.address = address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, sequence: int) -> str:
        if sequence not in self.lost:
            self.answers.append(sequence)
        return self.refusal

    def receive(self, within_s: float) -> int | None:
        Clock.now += 0.001 if self.answers else within_s
        return self.answers.pop() if self.answers else None


class Clock:
    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


ADDRESSES = {"web1": ("10.77.0.2", "fd5c:d2ae:9f4b:2::1"), "old": ("10.77.0.9",), "none": ()}


@pytest.fixture
def echoes(monkeypatch: pytest.MonkeyPatch) -> type[FakeEchoes]:
    class Agent:
        async def resolve(self, name: str) -> tuple[str, ...]:
            if name not in ADDRESSES:
                raise OperationFailed(f"no member is called {name}")
            return ADDRESSES[name]

    def ask(run: str | None, question: Any) -> Any:
        coroutine = question(Agent())
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits")

    monkeypatch.setattr(access_agent, "ask", ask)
    monkeypatch.setattr(access_agent, "status", lambda run: agent_status(membership(peers=(peer("web1", 2),))))
    monkeypatch.setattr("warren.cli.ping_echo.EchoSocket", FakeEchoes)
    monkeypatch.setattr(ping.time, "monotonic", Clock.monotonic)
    monkeypatch.setattr(FakeEchoes, "lost", ())
    monkeypatch.setattr(FakeEchoes, "refusal", "")
    return FakeEchoes


def test_ping_prints_answers_a_summary_and_the_path(
    echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str]
) -> None:
    echoes.lost = (2,)
    assert cli.run(["ping", "web1", "-c", "3"]) == 0
    assert capsys.readouterr().out == (
        "PING web1 (fd5c:d2ae:9f4b:2::1)\n"
        "fd5c:d2ae:9f4b:2::1 answers: seq=1 time=1.00 ms\n"
        "fd5c:d2ae:9f4b:2::1 answers: seq=3 time=1.00 ms\n"
        "3 sent, 2 received, 33 % lost; round trip 1.00 ms / 1.00 ms / 1.00 ms (least, mean, most)\n"
        "path: direct [2001:db8:0:1::10]:51820 (connected)\n"
    )


def test_ping_takes_ipv4_when_asked_or_when_there_is_nothing_else(echoes: type[FakeEchoes]) -> None:
    for arguments, address in ((["web1", "-4"], "10.77.0.2"), (["old"], "10.77.0.9"), (["10.77.0.2"], "10.77.0.2")):
        assert cli.run(["ping", "-c", "1", *arguments]) == 0
        assert str(echoes.address) == address  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["old", "-6"], "old has no IPv6 address; it has 10.77.0.9"),
        (["none"], "none has no address"),
        (["nobody"], "no member is called nobody"),
        (["8.8.8.8"], "8.8.8.8 is not in a network of this machine, nor behind a member"),
        (["fd5c:d2ae:9f4b:4::1"], "is not in a network of this machine"),
    ],
)
def test_ping_of_nobody_is_an_error(
    echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.run(["ping", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("fd5c:d2ae:9f4b:2::77", "direct [2001:db8:0:1::10]:51820 (connected)"),
        ("192.168.9.3", "direct [2001:db8:0:1::10]:51820 (connected)"),
        ("10.77.0.1", "none (this machine)"),
    ],
)
def test_what_is_behind_a_member_and_this_machine_itself_can_be_pinged(
    echoes: type[FakeEchoes],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    path: str,
) -> None:
    home = membership(peers=(peer("web1", 2, routes=("192.168.9.0/24",)),))
    monkeypatch.setattr(access_agent, "status", lambda run: agent_status(home))
    assert cli.run(["ping", "-c", "1", address]) == 0
    assert capsys.readouterr().out.endswith(f"path: {path}\n")


def test_ping_without_an_answer_is_status_1(echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str]) -> None:
    echoes.lost = (1, 2)
    echoes.refusal = "Destination address required"
    assert cli.run(["ping", "web1", "-c", "2"]) == 1
    out, err = capsys.readouterr()
    assert "not sent: Destination address required\n" in out
    assert "2 sent, 0 received, 100 % lost\n" in out
    assert err.startswith("warren: web1 does not answer; the tunnel to it works, so see whether the policy")


def test_without_a_tunnel_ping_points_to_the_status(
    echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    echoes.lost = (1,)
    home = membership(peers=(peer("web1", 2, state="unreachable"),))
    monkeypatch.setattr(access_agent, "status", lambda run: agent_status(home))
    assert cli.run(["ping", "web1", "-c", "1"]) == 1
    assert capsys.readouterr().err == (
        "warren: web1 does not answer; `warren status` shows how this machine stands with it\n"
    )


def test_ping_as_json(echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["ping", "web1", "-c", "2", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["sent"], value["received"], len(value["rtts_ms"])) == (2, 2, 2)
    assert (value["address"], value["path"]) == ("fd5c:d2ae:9f4b:2::1", "direct [2001:db8:0:1::10]:51820")


def test_an_interrupted_ping_still_sums_up(
    echoes: type[FakeEchoes], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(self: FakeEchoes, sequence: int) -> str:
        if sequence == 3:
            raise KeyboardInterrupt
        self.answers.append(sequence)
        return ""

    monkeypatch.setattr(echoes, "send", send)
    assert cli.run(["ping", "web1", "-c", "0"]) == 0
    assert "2 received" in capsys.readouterr().out
