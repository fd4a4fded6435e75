"""What Caddy says: one line of ours for each, and what is wrong with certificates."""

from __future__ import annotations

import asyncio
import logging
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.errors import OperationFailed
from warren.ingress import log_lines
from warren.ingress.log_lines import Certificates, Line, LogSocket, read_line

FAILED = Line(
    level="error",
    logger="tls.obtain",
    msg="could not get certificate from issuer",
    identifier="a.example",
    error="HTTP 429 urn:ietf:params:acme:error:rateLimited - too many",
)
CHALLENGE = Line(
    level="error",
    logger="http.acme_client",
    msg="challenge failed",
    identifier="a.example",
    challenge_type="http-01",
    error="dial tcp 192.0.2.1:80: connection refused",
)
NOTHING_LEFT = Line(
    level="error", logger="tls.obtain", msg=FAILED.msg, identifier="a.example", error="no solvers available"
)
OBTAINED = Line(logger="tls.obtain", msg="certificate obtained successfully", identifier="a.example")


def test_a_certificate_that_failed_is_a_trouble_until_it_comes() -> None:
    certificates = Certificates()
    assert certificates.take(FAILED)
    assert not certificates.take(FAILED), "the same once more is nothing new"
    trouble = certificates.trouble(("b.example", "a.example"))
    assert trouble == (
        "no certificate for a.example: HTTP 429 urn:ietf:params:acme:error:rateLimited - too many; it is tried again"
    )
    assert certificates.trouble(("b.example",)) is None
    assert certificates.take(OBTAINED)
    assert certificates.trouble(("a.example",)) is None
    assert not certificates.take(OBTAINED)


def test_how_the_authority_failed_to_look_says_more_than_that_nothing_is_left() -> None:
    certificates = Certificates()
    certificates.take(CHALLENGE)
    certificates.take(NOTHING_LEFT)
    trouble = certificates.trouble(("a.example",))
    assert trouble is not None
    assert "http-01" in trouble
    assert "192.0.2.1:80" in trouble
    assert "no solvers" not in trouble


def test_a_domain_that_is_gone_has_no_trouble() -> None:
    certificates = Certificates()
    certificates.take(CHALLENGE)
    certificates.take(FAILED)
    certificates.keep_only(frozenset({"b.example"}))
    assert certificates.trouble(("a.example",)) is None
    certificates.take(FAILED)
    assert "http-01" not in (certificates.trouble(("a.example",)) or "")


@pytest.mark.parametrize(
    "line",
    [
        Line(level="error", logger="http.handlers.reverse_proxy", msg="x", identifier="a.example", error="y"),
        Line(level="warn", logger="tls.obtain", msg="x", identifier="a.example", error="y"),
        Line(level="error", logger="tls.obtain", msg="unable to unlock", identifier="a.example", error="y"),
        Line(level="error", logger="tls.obtain", msg="x", error="y"),
    ],
)
def test_other_lines_are_no_trouble_of_a_certificate(line: Line) -> None:
    assert not Certificates().take(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_line_or_none(data: bytes) -> None:
    for start in (b"", b'{"msg":', b'{"error":{"a":'):
        found = read_line(start + data)
        assert found is None or isinstance(found.sentence, str)


def test_a_line_may_have_many_more_fields_and_its_error_any_shape() -> None:
    found = read_line(b'{"level":"error","ts":1.5,"msg":"m","error":{"a":[1]},"identifier":"a.example","x":{}}')
    assert found is not None
    assert found.sentence == "a.example: m: {'a': [1]}"


# The socket


def play(scene: Callable[[Path, list[Line]], object]) -> list[Line]:
    async def whole(path: Path) -> list[Line]:
        heard: list[Line] = []
        log = LogSocket(path, heard.append)
        await log.open()
        try:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            before = len(heard)
            await asyncio.to_thread(scene, path, heard)
            async with asyncio.timeout(10):
                while not heard or heard[-1].msg != "end":
                    await asyncio.sleep(0.005)
            return heard[before:]
        finally:
            await log.close()

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(whole(Path(directory) / "log.sock"))


def say(path: Path, *lines: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        sock.sendall(b"".join(line + b"\n" for line in (*lines, b'{"msg":"end"}')))


def encoded(line: Line) -> bytes:
    return msgspec.json.encode(line)


def test_errors_are_warnings_of_ours_and_the_rest_is_for_those_who_look_closely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "warren.caddy")
    play(lambda path, _: say(path, encoded(FAILED), encoded(OBTAINED), b'{"level":"warn","msg":"exiting"}'))
    assert [(record.levelname, record.message.partition(": ")[2][:20]) for record in caplog.records[-4:]] == [
        ("WARNING", "a.example: could not"),
        ("INFO", "a.example: certifica"),
        ("DEBUG", "exiting"),
        ("DEBUG", "end"),
    ]


def test_what_is_no_line_or_too_long_is_skipped() -> None:
    heard = play(lambda path, _: say(path, b"panic: x", b"x" * (log_lines.LINE_BYTES_MAX + 5), encoded(FAILED)))
    assert [line.msg for line in heard] == [FAILED.msg, "end"]


def test_a_flood_is_heard_and_not_repeated(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINES_PER_MINUTE", 5)
    heard = play(lambda path, _: say(path, *[encoded(FAILED)] * 100))
    assert len(heard) == 101
    assert len([record for record in caplog.records if record.name == "warren.caddy"]) == 5


def test_a_socket_that_cannot_be_made_is_told() -> None:
    with pytest.raises(OperationFailed, match="cannot be listened on"):
        asyncio.run(LogSocket(Path("/nowhere/log.sock"), lambda line: None).open())
