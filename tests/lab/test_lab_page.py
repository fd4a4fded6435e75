"""The examples of docs/lab.md run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from warren.cli import lab_scenes
from warren.lab.nat import KINDS
from warren.lab.scene_plan import plan
from warren.lab.site_kinds import SITE_KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text()


def test_the_scene_is_one() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert plan(lab_scenes.parse(example.encode(), "mine.toml")).hosts == ("dc", "alice", "laptop", "bob")


def test_every_kind_is_there() -> None:
    table = PAGE.partition("## Kinds of sites")[2].partition("The words are")[0]
    named = re.findall(r"`([a-z0-9-]+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if "|" in row))
    assert set(named) == set(SITE_KINDS)
    assert set(KINDS) <= set(SITE_KINDS)


@pytest.mark.lab
@pytest.mark.usefixtures("lab_privilege")
def test_the_python_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    subprocess.run([sys.executable, "-W", "error", "-c", example], check=True, timeout=60)
