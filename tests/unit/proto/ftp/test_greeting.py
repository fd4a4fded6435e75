"""Clients that do not speak FTP."""

from __future__ import annotations

import pytest

from warren.proto.ftp.greeting import foreign


def test_a_client_that_begins_with_tls_is_told_apart() -> None:
    assert "implicit FTPS" in (foreign(b"\x16\x03\x01\x02\x00\x01") or "")


@pytest.mark.parametrize("data", [b"POST /a HTTP/1.1\r\n", b"GET http://x/ HTTP/1.0\r\nHost: x\r\n"])
def test_a_browser_is_told_apart(data: bytes) -> None:
    assert foreign(data) == "the client speaks HTTP"


@pytest.mark.parametrize("data", [b"USER alice\r\n", b"\xff\xfd\x01", b"\r\n", b"STAT HTTP", b"POST\r\n"])
def test_what_may_be_ftp_is_left_alone(data: bytes) -> None:
    assert foreign(data) is None
