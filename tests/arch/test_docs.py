"""The documentation names what is there: every counter, every page, every config key."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from warren.agent import config as agent_config
from warren.api.varlink_agent import description
from warren.cli import program
from warren.errors import UsageError
from warren.proto.wireguard.counters import COUNTERS
from warren.tunnel.config import parse

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference.md").read_text()
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
    assert table_after(REFERENCE, "## Counters") == COUNTERS


def test_every_command_is_in_the_reference() -> None:
    rows = table_after(REFERENCE, "## Commands")
    assert {row.split()[1] for row in rows} == set(program.list_commands(click.Context(program)))


def test_every_environment_variable_is_in_the_reference() -> None:
    sources = [*(ROOT / "src").rglob("*.py"), ROOT / "hatch_build.py"]
    used = {name for source in sources for name in re.findall(r"\bWARREN_[A-Z_]+", source.read_text())}
    rows = table_after(REFERENCE, "## Environment")
    assert {row.strip("`").partition("=")[0] for row in rows} == used


def test_every_method_of_the_agent_is_in_the_reference() -> None:
    rows = table_after(REFERENCE, "<!-- varlink -->")
    assert list(rows) == re.findall(r"^method (.*)$", description(), re.MULTILINE)


@pytest.mark.parametrize("section", ["Interface", "Peer"])
def test_every_key_of_a_config_is_in_the_guide(section: str) -> None:
    rows = table_after((ROOT / "docs/tunnel.md").read_text(), f"### [{section}]")
    named = {name.strip(" `") for row in rows for name in row.split(",")}
    with pytest.raises(UsageError) as refused:
        parse(f"[{section}]\nNoSuchKey = 1\n", "x.conf")
    assert named == set(str(refused.value).partition("it takes ")[2].split(", "))


def test_the_agents_file_in_the_guide_is_one_and_has_every_table() -> None:
    page = (ROOT / "docs/node.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    config = agent_config.parse(example.encode(), "node.md")
    assert None not in (config.relay, config.proxy, config.streams.socks, config.streams.gateway)
    assert config.streams.forwards
    assert config.streams.serving.allow


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_into_pages_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text())
    assert [link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)] == []


def anchors(page: Path) -> set[str]:
    """What headings are linked to by, as GitHub makes it of them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
