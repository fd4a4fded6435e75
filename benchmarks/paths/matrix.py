"""Measures the table of docs/nat.md: ``python -m benchmarks.paths.matrix [--publish] [KIND…]``; some four minutes.

Ends with status 0 when every pair came to what the oracle says.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.paths.publish import publish_matrix
from tests.support.path_matrix import KINDS, Cell, Matrix, table
from warren.errors import WarrenError
from warren.lab import Lab
from warren.lab.privilege import ensure as ensure_privilege

_DOCS = Path(__file__).resolve().parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paths.matrix", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="of sites; all that docs/nat.md has")
    parser.add_argument("--publish", action="store_true", help="rewrite the table in docs/nat.md")
    options = parser.parse_args(arguments)
    cells: list[Cell] = []
    try:
        ensure_privilege()
        machine = describe_machine()
        with Lab(name="matrix", seed=1) as lab:
            matrix = Matrix(lab, options.kinds or KINDS)
            matrix.start()
            for cell in matrix.cells():
                cells.append(cell)
                mark = "" if cell.agrees else f"   <-- {cell.watched}"
                print(f"{cell.row:22} {cell.column:22} {cell.verdict.by:10} {cell}{mark}", flush=True)
    except WarrenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = f"{table(cells, matrix.kinds)}\n\n{agreement(cells)}"
    print(found)
    if options.publish:
        print(f"written: {publish_matrix(found, machine, _DOCS)}")
    return 0 if all(cell.agrees for cell in cells) else 1


def agreement(cells: Sequence[Cell]) -> str:
    """How many pairs came to what the oracle says, and which did not: Markdown."""
    lines = [f"{sum(cell.agrees for cell in cells)} of {len(cells)} pairs came to what the oracle says."]
    for cell in cells:
        if not cell.agrees:
            came = "no reply" if cell.watched.first_reply_s is None else "relayed"
            came = "direct" if cell.watched.direct_s is not None else came
            lines.append(f"Not so {cell.row} – {cell.column}: it says {cell.verdict.by}, and it was {came}.")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
