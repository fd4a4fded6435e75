"""The wheel: with the compiled twins it belongs to this platform, without them to every one, and both work."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
PROBE = "from warren.proto import datapath; print(datapath.__file__, datapath.COMPILED)"


def build(directory: Path, **environment: str) -> Path:
    """Build a wheel into ``directory`` and return it."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(directory)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return directory / done.stdout.split()[-1]


@pytest.mark.parametrize(
    "environment", [{"WARREN_BUILD_PURE": "1"}, {"CC": "false"}], ids=["as wished", "no working compiler"]
)
def test_a_wheel_without_the_compiled_twins_is_pure_and_works(tmp_path: Path, environment: dict[str, str]) -> None:
    pytest.importorskip("hatchling")
    wheel = build(tmp_path, **environment)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert "warren/__init__.py" in names
    assert [name for name in names if name.endswith((".so", ".pyx", ".c"))] == []
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site/warren/proto/datapath.py"), "False"]
