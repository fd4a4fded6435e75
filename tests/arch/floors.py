"""Reads which package of Warren imports which, and compares it with the order of the floors."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Import(NamedTuple):
    importer: str
    """Dotted name of the importing module."""
    imported: str
    """Dotted name of what it imports: a module, or a name in one."""
    line: int


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module under ``root``, a package directory; ``__init__`` is not part of a name."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """All imports in ``source``, wherever they stand, relative ones resolved against ``module``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module, is_package=is_package)
            for alias in node.names:
                yield Import(module, f"{origin}.{alias.name}", node.lineno)


def _origin(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])


def violations(found: Sequence[Import], floors: Sequence[Sequence[str]], exceptions: Mapping[str, str]) -> list[str]:
    """One sentence for each import that does not go downwards.

    ``floors`` lists the top floor first; packages on one floor do not import each other. ``exceptions`` maps the
    dotted name of a package to the only module that may import it.
    """
    height = {package: -level for level, floor in enumerate(floors) for package in floor}
    sentences = []
    for one in found:
        if not one.imported.startswith("warren."):
            continue
        upper, lower = _package(one.importer), _package(one.imported)
        where = f"{one.importer}:{one.line}"
        private = ".".join(one.imported.split(".")[:2])
        if private in exceptions:
            if one.importer != exceptions[private] and upper != lower:
                sentences.append(f"{where} imports {one.imported}, which only {exceptions[private]} may")
        elif upper not in height or lower not in height:
            unknown = upper if upper not in height else lower
            sentences.append(f"{where}: the floor of {unknown!r} is not in the table")
        elif upper != lower and height[lower] >= height[upper]:
            sentences.append(f"{where} imports {one.imported}: {upper} is not above {lower}")
    return sentences


def _package(dotted: str) -> str:
    """The second part of the name: ``warren.proto.ip`` → ``proto``. The root package itself is ``warren``."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else parts[0]
