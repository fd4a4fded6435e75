"""Writes how long it takes until two nodes talk, and until they talk directly, in a virtual Internet, as a table.

``python -m tests.sim.paths_table 3000 [FIRST_SEED] > docs/…``
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence

from tests.support.nat_cases import Played, play
from warren.paths.nat import MEANS


def main(arguments: Sequence[str]) -> int:
    count = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if len(arguments) > 1 else 0
    groups: dict[str, list[Played]] = defaultdict(list)
    wrong = []
    for seed in range(first, first + count):
        played = play(seed)
        groups[played.verdict.by].append(played)
        if played.wrong:
            wrong.append(played)
    lines = [
        "| by | pairs | first packet: median | p95 | direct: median | p95 | worst | packets: median |",
        "|---|---|---|---|---|---|---|---|",
        *(_row(by, groups[by]) for by in MEANS if by in groups),
        f"\n{count} pairs, seeds {first} to {first + count - 1}; other than the oracle says: {len(wrong)}.",
        *(f"- {played}" for played in wrong),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    return bool(wrong)


def _row(by: str, played: list[Played]) -> str:
    first = sorted(one.first_s for one in played if one.first_s is not None)
    direct = sorted(one.direct_s for one in played if one.direct_s is not None)
    packets = sorted(one.packets for one in played)
    cells = [by, str(len(played)), _at(first, 0.5), _at(first, 0.95), _at(direct, 0.5), _at(direct, 0.95)]
    cells += [_at(direct, 1.0), str(packets[len(packets) // 2])]
    return f"| {' | '.join(cells)} |"


def _at(ordered: list[float], share: float) -> str:
    if not ordered:
        return "–"
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))]:.2f} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
