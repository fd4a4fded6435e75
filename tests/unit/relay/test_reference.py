"""Every key of relay.toml stands in the reference."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from warren.relay import config_file

REFERENCE = (Path(__file__).parents[3] / "docs" / "reference.md").read_text()


def test_every_key_of_the_file_is_in_the_reference() -> None:
    section = REFERENCE.partition("## The relay's file")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.partition("| key |")[2].splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    expected = set()
    for field in msgspec.structs.fields(config_file._File):
        kind = getattr(config_file, f"_{field.name.capitalize()}", None)
        if field.name == "users":
            expected.add("users.NAME")
        elif kind is None:
            expected.add(field.name)
        else:
            expected |= {f"{field.name}.{inner.name}" for inner in msgspec.structs.fields(kind)}
    assert named == expected
