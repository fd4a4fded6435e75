"""What clients may ask for: data connections to and from themselves."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto.ftp.asking import Asked, NotGranted, understand
from warren.proto.ftp.commands import command_of
from warren.proto.ftp.lines import Line

CLIENT4, LOCAL4 = ip_address("192.0.2.7"), ip_address("192.0.2.1")
CLIENT6, LOCAL6 = ip_address("2001:db8::7"), ip_address("2001:db8::1")


def asked(text: bytes, client: IPAddress = CLIENT4, local: IPAddress = LOCAL4) -> Asked | NotGranted:
    return understand(command_of(Line(text)), client=client, local=local)


def refused(text: bytes, client: IPAddress = CLIENT4, local: IPAddress = LOCAL4) -> NotGranted:
    answer = asked(text, client, local)
    assert isinstance(answer, NotGranted)
    return answer


def test_passive_modes_are_granted() -> None:
    assert asked(b"PASV") == asked(b"pasv ") == Asked("PASV")
    assert asked(b"EPSV") == asked(b"EPSV 1") == asked(b"EPSV 2", CLIENT6, LOCAL6) == Asked("EPSV")


def test_active_modes_are_granted_towards_the_client() -> None:
    assert asked(b"PORT 192,0,2,7,200,10") == Asked("PORT", TransportAddress(CLIENT4, 51_210))
    assert asked(b"EPRT |1|192.0.2.7|1024|") == Asked("EPRT", TransportAddress(CLIENT4, 1024))
    assert asked(b"EPRT |2|2001:db8::7|1024|", CLIENT6, LOCAL6) == Asked("EPRT", TransportAddress(CLIENT6, 1024))


@pytest.mark.parametrize(
    ("text", "client", "local"),
    [
        (b"PORT 192,0,2,8,200,10", CLIENT4, LOCAL4),
        (b"PORT 127,0,0,1,200,10", CLIENT4, LOCAL4),
        (b"PORT 192,0,2,1,200,10", CLIENT4, LOCAL4),
        (b"PORT 0,0,0,0,200,10", CLIENT4, LOCAL4),
        (b"EPRT |1|198.51.100.1|51210|", CLIENT4, LOCAL4),
        (b"EPRT |2|2001:db8::8|51210|", CLIENT6, LOCAL6),
        (b"EPRT |2|::1|51210|", CLIENT6, LOCAL6),
        (b"EPRT |2|fe80::7|51210|", CLIENT6, LOCAL6),
    ],
)
def test_a_third_party_is_never_connected_to(text: bytes, client: IPAddress, local: IPAddress) -> None:
    answer = refused(text, client, local)
    assert answer.reply.startswith(b"504 ")
    assert "not who asks" in answer.suspicion


@pytest.mark.parametrize("text", [b"PORT 192,0,2,7,0,22", b"PORT 192,0,2,7,3,255", b"EPRT |1|192.0.2.7|1023|"])
def test_ports_of_services_are_never_connected_to(text: bytes) -> None:
    answer = refused(text)
    assert answer.reply.startswith(b"504 ")
    assert "below 1024" in answer.suspicion


@pytest.mark.parametrize(
    ("text", "client", "local", "use"),
    [
        (b"EPSV 2", CLIENT4, LOCAL4, b"use (1)"),
        (b"EPSV 1", CLIENT6, LOCAL6, b"use (2)"),
        (b"EPSV 3", CLIENT6, LOCAL6, b"use (2)"),
        (b"PASV", CLIENT6, LOCAL6, b"use (2)"),
        (b"PORT 192,0,2,7,200,10", CLIENT6, LOCAL6, b"use (2)"),
        (b"EPRT |2|2001:db8::7|51210|", CLIENT4, LOCAL4, b"use (1)"),
        (b"EPRT |3|x|51210|", CLIENT4, LOCAL4, b"501"),
        (b"EPRT |3|1234|51210|", CLIENT4, LOCAL4, b"use (1)"),
    ],
)
def test_the_other_protocol_is_answered_with_the_right_one(
    text: bytes, client: IPAddress, local: IPAddress, use: bytes
) -> None:
    answer = refused(text, client, local)
    assert use in answer.reply
    assert use == b"501" or answer.reply.startswith(b"522 ")
    assert not answer.suspicion


@pytest.mark.parametrize("text", [b"PORT", b"PORT 1", b"EPRT", b"EPRT |1|192.0.2.7|0|", b"EPSV x", b"EPSV 123456"])
def test_what_is_not_understood_is_a_syntax_error(text: bytes) -> None:
    assert refused(text).reply.startswith(b"501 ")


def test_answers_are_as_the_rfcs_have_them() -> None:
    here = TransportAddress(LOCAL4, 51_210)
    assert Asked("PASV").answer(here) == b"227 Entering Passive Mode (192,0,2,1,200,10)."
    assert Asked("EPSV").answer(here) == b"229 Entering Extended Passive Mode (|||51210|)"
    assert Asked("PORT", here).answer(here).startswith(b"200 ")
