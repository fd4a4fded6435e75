"""What Caddy says: one line of ours for each, and what is wrong with certificates."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.ingress import log_lines
from warren.ingress.log_lines import Certificates, Line, LogFile, read_line

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


@pytest.mark.parametrize(
    ("left_s", "validity"),
    [
        (20.5 * 86400, "is valid for 20 more days, and cannot be renewed"),
        (47.9 * 3600, "is valid for 47 more hours, and cannot be renewed"),
        (3700.0, "is valid for 1 more hour, and cannot be renewed"),
        (3599.0, "is valid for less than an hour, and cannot be renewed"),
        (-1.0, "has expired, and cannot be renewed"),
    ],
)
def test_of_a_certificate_that_is_not_renewed_it_is_told_how_long_it_is_still_valid(
    left_s: float, validity: str
) -> None:
    certificates = Certificates({"a.example": left_s}.get)
    certificates.take(FAILED)
    assert (certificates.trouble(("a.example",)) or "").startswith("no certificate for a.example: ")
    certificates.take(msgspec.structs.replace(FAILED, logger="tls.renew"))
    trouble = certificates.trouble(("a.example",))
    assert trouble == f"the certificate for a.example {validity}: {FAILED.error}; it is tried again"
    assert certificates.take(msgspec.structs.replace(OBTAINED, logger="tls.renew"))
    assert certificates.trouble(("a.example",)) is None


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


# The file


def play(*lines: bytes, before: bytes = b"", instead: bytes = b"") -> list[Line]:
    """What is heard of lines that are written after the file was opened; ``instead``: then into another file."""

    async def whole(path: Path) -> list[Line]:
        heard: list[Line] = []
        if before:
            path.write_bytes(before + b"\n")
        log = LogFile(path, heard.append)
        log.open()
        try:
            with path.open("ab") as file:
                for line in (*lines, b"" if instead else END):
                    file.write(line + b"\n")
                    file.flush()
                    await asyncio.sleep(0)
            if instead:
                async with asyncio.timeout(10):
                    while not heard:
                        await asyncio.sleep(0.005)
                path.rename(path.with_suffix(".old"))
                path.write_bytes(instead + b"\n" + END + b"\n")
            async with asyncio.timeout(10):
                while not heard or heard[-1].msg != "end":
                    await asyncio.sleep(0.005)
            return heard[:-1]
        finally:
            await log.close()

    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(whole(Path(directory) / "log"))


END = b'{"msg":"end"}'


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LOOK_EVERY_S", 0.01)


def encoded(line: Line) -> bytes:
    return msgspec.json.encode(line)


def test_errors_are_warnings_of_ours_and_the_rest_is_for_those_who_look_closely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "warren.caddy")
    play(encoded(FAILED), encoded(OBTAINED), b'{"level":"warn","msg":"exiting"}')
    ours = [record for record in caplog.records if record.name == "warren.caddy"]
    assert [(record.levelname, record.message.partition(": ")[2][:20]) for record in ours] == [
        ("WARNING", "a.example: could not"),
        ("INFO", "a.example: certifica"),
        ("DEBUG", "exiting"),
        ("DEBUG", "end"),
    ]


def test_what_is_no_line_or_too_long_is_skipped() -> None:
    heard = play(b"panic: x", b"x" * (log_lines.LINE_BYTES_MAX * 3), encoded(FAILED))
    assert [line.msg for line in heard] == [FAILED.msg]


def test_a_line_that_comes_in_pieces_is_one() -> None:
    async def scene(path: Path) -> list[Line]:
        heard: list[Line] = []
        log = LogFile(path, heard.append)
        with path.open("ab") as file:
            log.open()
            for piece in (b'{"msg":', b'"in pieces"}', b"\n"):
                file.write(piece)
                file.flush()
                await asyncio.sleep(0.03)
        async with asyncio.timeout(10):
            while not heard:
                await asyncio.sleep(0.005)
        await log.close()
        return heard

    with tempfile.TemporaryDirectory() as directory:
        assert [line.msg for line in asyncio.run(scene(Path(directory) / "log"))] == ["in pieces"]


def test_what_was_said_before_is_heard_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    heard = play(before=encoded(FAILED))
    assert [line.msg for line in heard] == [FAILED.msg]
    assert [record for record in caplog.records if record.name == "warren.caddy"] == []


def test_another_file_in_its_place_is_followed() -> None:
    heard = play(encoded(FAILED), instead=encoded(OBTAINED))
    assert [line.msg for line in heard] == [FAILED.msg, OBTAINED.msg]


def test_a_flood_is_heard_and_not_repeated(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINES_PER_MINUTE", 5)
    heard = play(*[encoded(FAILED)] * 100)
    assert len(heard) == 100
    assert len([record for record in caplog.records if record.name == "warren.caddy"]) == 5
