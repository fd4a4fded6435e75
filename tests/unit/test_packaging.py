"""The wheel: with the compiled twins it belongs to this platform, without them to every one, and both work."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from warren.proto import datapath

ROOT = Path(__file__).parents[2]
BUILD = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
PROBE = "from warren.proto import datapath; print(datapath.__file__, datapath.COMPILED)"

pytestmark = pytest.mark.xdist_group("packaging")  # all builds use one scratch directory


def run(program: str, *arguments: str, **environment: str) -> list[str]:
    """The words that a Python program prints."""
    command = [sys.executable, "-c", program, *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True).stdout.split()


def build(directory: Path, **environment: str) -> tuple[str, list[str]]:
    """Build a wheel and unpack it into ``directory/site``; returns its name and the names of its files."""
    pytest.importorskip("hatchling")
    name = run(BUILD, str(directory), **environment)[-1]
    with zipfile.ZipFile(directory / name) as archive:
        archive.extractall(directory / "site")
        return name, archive.namelist()


def probe(directory: Path) -> list[str]:
    """Where the unpacked wheel's data path is, seen by a program that uses it, and whether it is the compiled one."""
    return run(PROBE, PYTHONPATH=str(directory / "site"))


@pytest.mark.parametrize(
    "environment", [{"WARREN_BUILD_PURE": "1"}, {"CC": "false"}], ids=["as wished", "no working compiler"]
)
def test_a_wheel_without_the_compiled_twins_is_pure_and_works(tmp_path: Path, environment: dict[str, str]) -> None:
    wheel, files = build(tmp_path, **environment)
    assert wheel.endswith("-py3-none-any.whl")
    assert "warren/__init__.py" in files
    assert [name for name in files if name.endswith((".so", ".pyx", ".c"))] == []
    assert probe(tmp_path) == [str(tmp_path / "site/warren/proto/datapath.py"), "False"]


@pytest.mark.skipif(not datapath.COMPILED, reason="the speedups are not built, or WARREN_PURE is set")
def test_a_wheel_with_the_compiled_twins_belongs_to_this_platform_and_works(tmp_path: Path) -> None:
    wheel, files = build(tmp_path, CFLAGS="-O0")  # whether they are fast is measured elsewhere
    assert not wheel.endswith("-any.whl")
    assert len([name for name in files if name.endswith(".so")]) == 3
    assert probe(tmp_path) == [str(tmp_path / "site/warren/proto/datapath.py"), "True"]
