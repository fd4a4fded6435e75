"""What a helper takes commands for."""

from __future__ import annotations

import pytest

from warren.proto.ftp.commands import Kind, command_of
from warren.proto.ftp.lines import Line


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"USER alice", Kind.PLAIN),
        (b"noop", Kind.PLAIN),
        (b"XMD5 a", Kind.PLAIN),
        (b"SITE CHMOD 600 a", Kind.PLAIN),
        (b"PASV", Kind.DATA),
        (b"epsv 2", Kind.DATA),
        (b"port 192,0,2,7,200,10", Kind.DATA),
        (b"Retr a b", Kind.TRANSFER),
        (b"MLSD", Kind.TRANSFER),
        (b"ABOR", Kind.ABORT),
        (b"STAT", Kind.ASK),
        (b"FEAT", Kind.FEATURES),
        (b"AUTH TLS", Kind.REFUSED),
        (b"pbsz 0", Kind.REFUSED),
        (b"LPRT 6,16,1", Kind.REFUSED),
        (b"", Kind.BROKEN),
        (b" PORT 192,0,2,7,200,10", Kind.BROKEN),
        (b"PORT\t192,0,2,7,200,10", Kind.BROKEN),
        (b"Host: ftp.example", Kind.BROKEN),
        (b"\x16\x03\x01", Kind.BROKEN),
        (b"ABCDEFGHIJKLM", Kind.BROKEN),
    ],
)
def test_a_line_is_one_kind_of_command(text: bytes, kind: Kind) -> None:
    assert command_of(Line(text)).kind is kind


def test_verb_and_argument_are_taken_apart_and_the_line_is_kept() -> None:
    command = command_of(Line(b"retr  two spaces "))
    assert (command.verb, command.argument, command.text) == ("RETR", b" two spaces ", b"retr  two spaces ")


def test_a_broken_line_is_never_passed_on() -> None:
    command = command_of(Line(b"RETR a\rPORT 10,0,0,5,0,22", broken=True))
    assert command.kind is Kind.BROKEN
    assert command.text == b""


@pytest.mark.parametrize(("text", "code"), [(b"AUTH TLS", b"534 "), (b"PROT P", b"503 "), (b"EPSV", b"")])
def test_what_asks_for_tls_is_told_what_to_do_instead(text: bytes, code: bytes) -> None:
    refusal = command_of(Line(text)).refusal
    assert refusal.startswith(code)
    assert not code or b"log in without" in refusal
