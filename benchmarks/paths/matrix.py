"""Prints the table of docs/nat.md: ``python -m benchmarks.paths.matrix [KIND…]``, as root; some minutes."""

from __future__ import annotations

import sys

from tests.support.path_matrix import KINDS, Matrix, table
from warren.errors import OperationFailed
from warren.lab import Lab


def main(kinds: list[str]) -> int:
    with Lab(name="matrix", seed=1) as lab:
        matrix = Matrix(lab, kinds or KINDS)
        matrix.start()
        cells = []
        for cell in matrix.cells():
            cells.append(cell)
            mark = "" if cell.agrees else f"   <-- {cell.watched}"
            print(f"{cell.row:22} {cell.column:22} {cell.verdict.by:10} {cell}{mark}", flush=True)
        print(table(cells, matrix.kinds))
    return 0 if all(cell.agrees for cell in cells) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OperationFailed as error:
        sys.exit(f"error: {error}")
