"""Log lines: one line each, harmless, without secrets."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.logs import log_restored
from tests.unit.tunnel.fakes import private_key
from warren import log

__all__ = ["log_restored"]


def _logged(message: str, *, as_json: bool = False) -> str:
    stream = io.StringIO()
    log.configure(as_json=as_json, stream=stream)
    log.get("tunnel").warning("%s", message)
    return stream.getvalue()


def test_a_plain_line_has_time_level_and_message() -> None:
    line = _logged("home is up")
    assert line[2] == line[5] == ":"
    assert line[8:] == " warning home is up\n"


def test_a_json_line_is_an_object() -> None:
    entry = json.loads(_logged("home is up", as_json=True))
    assert entry.pop("time").endswith("Z")
    assert entry == {"level": "warning", "part": "tunnel", "message": "home is up"}


def test_control_characters_are_escaped() -> None:
    line = _logged("a\nb\x1b[31m\u202e\u2028\x00é")
    assert line.endswith(" a\\nb\\x1b[31m\\u202e\\u2028\\x00é\n")


@given(st.text())
def test_whatever_is_logged_is_one_printable_line(text: str) -> None:
    shown = log.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_a_hidden_key_is_never_shown() -> None:
    key = private_key("secret of this test")
    other = private_key("another").public_key()
    log.hide(key.base64, key.hex)
    line = _logged(f"hook: echo {key.base64} {key.hex.upper()} {other.base64}")
    assert line.endswith(f"hook: echo (hidden) (hidden) {other.base64}\n")


def test_debug_lines_are_for_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    for wish, shown in {"": False, "0": False, "1": True}.items():
        monkeypatch.setenv("WARREN_DEBUG", wish)
        stream = io.StringIO()
        log.configure(stream=stream)
        log.get("tunnel").debug("detail")
        assert ("detail" in stream.getvalue()) == shown


def test_the_processes_of_one_command_agree_on_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.FORMAT_VARIABLE, "json")
    stream = io.StringIO()
    log.configure(prefix="home: ", stream=stream)
    log.get("engine").info("ready")
    assert json.loads(stream.getvalue())["message"] == "home: ready"


def test_a_stream_that_is_gone_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    log.configure(stream=stream)
    stream.close()
    log.get("tunnel").info("nobody reads this")
    assert capsys.readouterr().err == ""
