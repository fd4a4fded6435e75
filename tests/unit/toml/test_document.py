"""Bytes that are no TOML document, and where they cease to be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from warren.errors import OperationFailed, UsageError
from warren.toml.document import NotToml, document_of, read_bytes


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"a = 1\nb = \n", 2, "this is not TOML (invalid value)"),
        (b"a = 1\nb = [", 2, "this is not TOML (invalid value)"),
        (b"\n\n\xff", 3, "this is not UTF-8 text"),
        (b"a = " + b"[" * 5000, 1, "it is nested too deeply"),
    ],
)
def test_what_is_not_toml_is_said_with_its_line(data: bytes, line: int, what: str) -> None:
    with pytest.raises(NotToml) as refused:
        document_of(data)
    assert (refused.value.line, refused.value.what) == (line, what)


def test_editors_that_begin_with_a_mark_and_end_lines_with_two_are_understood() -> None:
    document = document_of(b"\xef\xbb\xbfa = 1\r\n[b]\r\nc = 2\r\n")
    assert document.content == {"a": 1, "b": {"c": 2}}
    assert document.lines["b", "c"] == 3


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file.toml"
    file.write_bytes(b"12345")
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(UsageError, match="larger than 4 bytes"):
        read_bytes(file, 4)
    with pytest.raises(OperationFailed, match=r"none\.toml cannot be read: No such file"):
        read_bytes(tmp_path / "none.toml", 5)
