"""Builds the compiled twins of ``src/warren/_speed`` if a C compiler, Cython and libcrypto's headers are there.

As a hatchling hook: a wheel with them gets this platform's tag, without them it is ``py3-none-any`` and works the same.
As a program, ``python hatch_build.py``: puts them next to their sources, for a checkout; ``--clean`` removes them.
WARREN_BUILD_PURE=1 in the environment leaves them out; CC and CFLAGS there count as everywhere.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run as a program where hatchling is not installed
    BuildHookInterface = object  # type: ignore[assignment, misc]

ROOT = Path(__file__).resolve().parent
SPEED = ROOT / "src" / "warren" / "_speed"
SCRATCH = ROOT / "build" / "speed"
MODULES = ("coalesce", "segment", "transport")
LIBRARIES = {"transport": ["-lcrypto"]}
COMPILE = ["-O3", "-fPIC", "-shared", "-DNDEBUG", "-fstack-protector-strong", "-fno-strict-overflow", "-w"]
LINK = ["-Wl,-z,relro,-z,now"]


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # it is no generic class at run time
    """Adds the compiled modules to a wheel; next to the sources for an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it collects the files of the target."""
        if self.target_name != "wheel":
            return
        editable = version == "editable"
        built = build(SPEED if editable else SCRATCH)
        if built and not editable:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["force_include"].update({str(path): f"warren/_speed/{path.name}" for path in built})


def build(place: Path) -> list[Path]:
    """Compile all modules into the directory ``place``; return their paths, none if one of them cannot be built."""
    if os.environ.get("WARREN_BUILD_PURE") == "1":
        say("WARREN_BUILD_PURE=1")
        return []
    built = [place / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}" for name in MODULES]
    place.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="warren-build-") as scratch:
            for name, path in zip(MODULES, built, strict=True):
                compile_module(name, Path(scratch), path)
    except (OSError, subprocess.CalledProcessError) as error:
        clean(place)
        lines = (getattr(error, "stderr", None) or str(error)).splitlines()
        say(next((line for line in lines if "error:" in line or "No module" in line), lines[-1]))
        return []
    return built


def compile_module(name: str, scratch: Path, path: Path) -> None:
    """Translate one module to C in ``scratch`` and compile it to ``path``. Raises OSError or CalledProcessError."""
    source = scratch / f"{name}.c"
    cython = [sys.executable, "-m", "cython", "-3", "--module-name", f"warren._speed.{name}"]
    run([*cython, "-o", str(source), str(SPEED / f"{name}.pyx")])
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = [*COMPILE, *shlex.split(os.environ.get("CFLAGS", ""))]
    include = f"-I{sysconfig.get_path('include')}"
    # Linked beside its place and moved there: a process that runs the old one keeps it.
    fresh = path.with_name(f"{path.name}.new")
    run([*compiler, *flags, include, str(source), "-o", str(fresh), *LINK, *LIBRARIES.get(name, [])])
    fresh.replace(path)


def clean(place: Path) -> None:
    """Remove compiled modules from a directory."""
    for name in MODULES:
        for path in [*place.glob(f"{name}.*.so"), *place.glob(f"{name}.*.so.new")]:
            path.unlink()


def run(command: list[str]) -> None:
    """Run one tool; its output is in the CalledProcessError that is raised when it fails."""
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "src")


def say(reason: str) -> None:
    """Tell a person why the pure twins will be used."""
    print(f"warren: building without the compiled data path: {reason}", file=sys.stderr)


if __name__ == "__main__":
    if "--clean" in sys.argv[1:]:
        clean(SPEED)
    elif build(SPEED):
        print("warren: compiled data path built")
