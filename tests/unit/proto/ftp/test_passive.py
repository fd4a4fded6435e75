"""Asking servers for a port: EPSV, else PASV, and nothing but the port is believed."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.proto.ftp.lines import Line
from warren.proto.ftp.passive import NoPort, PassiveMode, Port
from warren.proto.ftp.replies import Part, Replies

SERVER = ip_address("203.0.113.1")


def reply(text: bytes) -> Part:
    return Replies().part_untrusted(Line(text))


def mode_with_pasv() -> PassiveMode:
    mode = PassiveMode(SERVER)
    assert mode.answer(reply(b"500 EPSV not understood")) is None
    return mode


def test_a_port_is_asked_for_by_epsv() -> None:
    mode = PassiveMode(SERVER)
    assert mode.question() == b"EPSV"
    assert mode.answer(reply(b"229 Entering Extended Passive Mode (|||6446|)")) == Port(6446)
    assert mode.question() == b"EPSV"


@pytest.mark.parametrize(
    "text", [b"500 ?", b"501 ?", b"502 ?", b"504 ?", b"522 ?", b"550 Permission denied.", b"229 garbage", b"200 OK"]
)
def test_a_server_that_does_not_take_epsv_is_asked_by_pasv_from_then_on(text: bytes) -> None:
    mode = PassiveMode(SERVER)
    assert mode.answer(reply(text)) is None
    assert mode.question() == b"PASV"
    assert mode.answer(reply(b"227 Entering Passive Mode (203,0,113,1,25,46)")) == Port(6446)
    assert mode.question() == b"PASV"


@pytest.mark.parametrize("text", [b"530 Log in first.", b"421 Too late", b"425 No port"])
def test_a_refusal_of_both_modes_is_passed_on(text: bytes) -> None:
    mode = PassiveMode(SERVER)
    assert mode.answer(reply(text)) == NoPort(text)
    assert mode.question() == b"EPSV"


@pytest.mark.parametrize("text", [b"502 No PASV", b"530 Log in first."])
def test_a_refusal_of_pasv_is_passed_on(text: bytes) -> None:
    assert mode_with_pasv().answer(reply(text)) == NoPort(text)


@pytest.mark.parametrize("text", [b"227 garbage", b"200 OK", b"300 ?"])
def test_a_server_without_passive_mode_is_told_of(text: bytes) -> None:
    answer = mode_with_pasv().answer(reply(text))
    assert isinstance(answer, NoPort)
    assert answer.reply.startswith(b"425 ")


def test_another_host_in_a_227_is_noted_once_and_not_gone_to() -> None:
    mode = mode_with_pasv()
    named = b"227 Entering Passive Mode (10,0,0,5,25,46)"
    first = mode.answer(reply(named))
    assert isinstance(first, Port)
    assert first.number == 6446
    assert "10.0.0.5" in first.suspicion
    assert mode.answer(reply(named)) == Port(6446)


def test_no_host_in_a_227_is_what_servers_say_on_ipv6() -> None:
    assert mode_with_pasv().answer(reply(b"227 Entering Passive Mode (0,0,0,0,25,46)")) == Port(6446)


def test_ports_of_services_are_not_gone_to() -> None:
    for mode, text in (
        (PassiveMode(SERVER), b"229 x (|||22|)"),
        (mode_with_pasv(), b"227 x (203,0,113,1,0,22)"),
        (mode_with_pasv(), b"227 x (203,0,113,1,3,255)"),
    ):
        answer = mode.answer(reply(text))
        assert isinstance(answer, NoPort)
        assert answer.reply.startswith(b"425 ")
        assert "below 1024" in answer.suspicion
    assert PassiveMode(SERVER).answer(reply(b"229 x (|||1024|)")) == Port(1024)
