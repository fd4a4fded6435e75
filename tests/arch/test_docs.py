"""The documentation names what is there: every counter, every page, every config key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from warren.errors import UsageError
from warren.proto.wireguard.counters import COUNTERS
from warren.tunnel.config import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def table_after(page: str, heading: str) -> dict[str, str]:
    """First and second cell of each row of the first table after ``heading``; code marks are taken off the first."""
    rows = page.partition(heading)[2].partition("|---|")[2].splitlines()[1:]
    table = {}
    for row in rows:
        if not row.startswith("|"):
            break
        first, second = (cell.strip() for cell in row.split("|")[1:3])
        table[first.strip("`")] = second
    return table


def test_every_counter_of_the_device_is_in_the_reference() -> None:
    assert table_after((ROOT / "docs/reference.md").read_text(), "## Counters") == COUNTERS


@pytest.mark.parametrize("section", ["Interface", "Peer"])
def test_every_key_of_a_config_is_in_the_guide(section: str) -> None:
    rows = table_after((ROOT / "docs/tunnel.md").read_text(), f"### [{section}]")
    named = {name.strip(" `") for row in rows for name in row.split(",")}
    with pytest.raises(UsageError) as refused:
        parse(f"[{section}]\nNoSuchKey = 1\n", "x.conf")
    assert named == set(str(refused.value).partition("it takes ")[2].split(", "))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
