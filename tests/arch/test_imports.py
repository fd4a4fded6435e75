"""Imports go downwards: a floor knows the floors below it and nothing above or beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.arch.floors import imports, modules, violations

ROOT = Path(__file__).parents[2] / "src" / "warren"

# The top floor first. Packages named together share a floor and do not import each other.
FLOORS = [
    ["__main__"],
    ["cli"],
    ["tunnel", "agent", "coordinator", "doctor"],
    ["api", "l3", "l4", "ingress", "dns", "lab", "reach", "relay"],
    ["engine"],
    ["linux"],
    ["paths"],
    ["proto"],
    ["model"],
    ["identity"],
    ["files", "toml"],
    ["errors", "log"],
    ["__version__"],
]

# The compiled twins are chosen at one place, so that everything else behaves the same with and without them.
ONLY_IMPORTED_BY = {"warren._speed": "warren.proto.datapath"}


def test_every_import_goes_downwards() -> None:
    found = [
        one
        for module, path in modules(ROOT)
        for one in imports(path.read_text(), module, is_package=path.name == "__init__.py")
    ]
    assert found
    assert violations(found, FLOORS, ONLY_IMPORTED_BY) == []


def test_every_package_has_its_floor() -> None:
    packages = {module.split(".")[1] for module, _ in modules(ROOT) if "." in module}
    listed = {package for floor in FLOORS for package in floor} | {name.split(".")[1] for name in ONLY_IMPORTED_BY}
    assert packages - listed == set()


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("warren.proto.uapi", "import warren.engine.base", "proto is not above engine"),
        ("warren.proto.uapi", "from warren.engine import base", "proto is not above engine"),
        ("warren.proto.uapi", "from warren import engine", "proto is not above engine"),
        ("warren.proto.uapi", "from ..engine import base", "proto is not above engine"),
        ("warren.proto.uapi", "def late():\n    from ..cli import main", "proto is not above cli"),
        ("warren.errors", "from . import log", "errors is not above log"),
        ("warren.engine.memory", "from warren._speed import transport", "only warren.proto.datapath may"),
        ("warren.proto.uapi", "import warren.attic", "'attic' is not in the table"),
        ("warren.attic.box", "import warren.errors", "'attic' is not in the table"),
    ],
)
def test_an_import_that_goes_up_is_found(module: str, source: str, sentence: str) -> None:
    (found,) = violations(list(imports(source, module, is_package=False)), FLOORS, ONLY_IMPORTED_BY)
    assert sentence in found


@pytest.mark.parametrize(
    ("module", "source", "is_package"),
    [
        (
            "warren.engine.memory",
            "from warren.proto import uapi\nfrom . import base\nfrom ..model import tunnel",
            False,
        ),
        ("warren.engine", "from .base import Engine\nfrom ..errors import WarrenError", True),
        ("warren.proto.datapath", "from warren._speed import transport", False),
        ("warren.proto.uapi", "import struct\nfrom ipaddress import ip_address", False),
    ],
)
def test_an_import_that_goes_down_or_stays_in_its_package_passes(module: str, source: str, is_package: bool) -> None:
    assert violations(list(imports(source, module, is_package=is_package)), FLOORS, ONLY_IMPORTED_BY) == []
