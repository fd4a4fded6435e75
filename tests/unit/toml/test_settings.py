"""Settings: a mistake is named with file, line and key."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from warren.errors import UsageError
from warren.toml.settings import Unusable, read

Name = Annotated[str, Meta(pattern="^[a-z.]+$")]


class _Rate(msgspec.Struct, forbid_unknown_fields=True):
    most: int


class _File(msgspec.Struct, forbid_unknown_fields=True):
    ports: tuple[int, ...] = ()
    rates: dict[Name, _Rate] = {}


def _sum(file: _File) -> int:
    if len(file.ports) > 2:
        raise Unusable("ports", "Two at most")
    if sum(file.ports) > 9:
        raise Unusable("total", "nine at most")
    return sum(file.ports)


def test_settings_are_converted() -> None:
    assert read(b"ports = [1, 2]\n[rates]\na.most = 1", "f.toml", _File, _sum) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\nprots = 1", "f.toml, line 2: prots: there is no such key"),
        ("ports = [1,\n'2']", "f.toml, line 2: ports: this must be a whole number, not a text"),
        ("ports = [1, 2, 3]", "f.toml, line 1: ports: two at most"),
        ("ports = [10]", "f.toml: total: nine at most"),
        (
            "[rates.a]\nmost = 1\n[rates.b]\nmost = ''",
            "f.toml, line 4: rates.b.most: this must be a whole number",
        ),
        ("[rates.a]\nmost = 1\nleast = 1", "f.toml, line 3: rates.a.least: there is no such key"),
        ("[rates.'a.b']\n", "f.toml, line 1: rates.a.b.most: this key is missing"),
        ("[rates.a]\nmost = 1\n[rates.B]\nmost = 1", "f.toml, line 3: rates.B: expected str matching regex"),
        ("ports = ", "f.toml, line 1: this is not TOML (invalid value)"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(text.encode(), "f.toml", _File, _sum)
    assert str(refused.value).startswith(sentence)
