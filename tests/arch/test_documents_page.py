"""docs/documents.md names every kind of document, and limits as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arch.test_docs import table_after
from warren.model import documents, envelope, intake, verified

PAGE = (Path(__file__).parents[2] / "docs/documents.md").read_text()


def test_every_kind_of_document_is_there() -> None:
    assert set(table_after(PAGE, "## The documents")) == set(documents.KINDS)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("payload of a `network` or `revocation` document", f"{envelope.PAYLOAD_BYTES_MAX >> 20} MiB"),
        ("payload of the other documents", f"{verified.SMALL_BYTES_MAX >> 10} KiB"),
        ("members of a network", f"{intake.MEMBERS_MAX:,}"),
        ("documents of unknown kinds in a map", f"{intake.UNKNOWN_MAX:,}, and {intake.UNKNOWN_BYTES_MAX >> 20} MiB"),
        ("an update whose last part has not come", f"{intake.STAGED_BYTES_MAX >> 20} MiB"),
    ],
)
def test_limits_are_as_they_are(what: str, limit: str) -> None:
    assert table_after(PAGE, "## Limits")[what] == limit
