"""Secrets and authenticators are compared in constant time: ``hmac.compare_digest``, never ``==``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arch.floors import modules
from tests.arch.secrets import leaky_comparisons

ROOT = Path(__file__).parents[2] / "src" / "warren"


def test_no_secret_is_compared_byte_by_byte() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for _, path in modules(ROOT)
        for line, text in leaky_comparisons(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "mac1 == expected",
        "expected != self._mac2",
        "message.tag == tag",
        "bytes(received_tag) == b''",
        "psk.raw != other",
        "packet.mac1[:16] == x",
        "private_key.raw == other_key",
        "peer.preshared_key.base64 in known",
    ],
)
def test_a_leaky_comparison_is_found(source: str) -> None:
    assert [text for _, text in leaky_comparisons(source)] == [source]


@pytest.mark.parametrize(
    "source",
    [
        "compare_digest(mac1, expected)",
        "psk is None",
        "tag_bytes == 16",
        "len(mac1) == 16",
        "macro == message",
        "stage == 1",
        "public_key == other",
        "at + TAG_BYTES == end",
        "kind == COOKIE_REPLY",
        "private_key == other_key",
    ],
)
def test_an_innocent_comparison_passes(source: str) -> None:
    assert list(leaky_comparisons(source)) == []
