"""``python -m fuzz.run [TARGET …] [--seconds N]``: fuzzes targets one after another, each for N seconds (all, 20).

What breaks a target is kept in ``fuzz/findings``, and the exit status is 1; ``--again FILE`` runs a target on one such
file. Inputs that reach new code are kept in ``fuzz/found``, where the next run goes on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = HERE / "seeds"
FINDINGS = HERE / "findings"
FOUND = HERE / "found"
INPUT_BYTES_MAX = 4096
ONE_INPUT_WITHIN_S = 5


def main(arguments: list[str]) -> int:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m fuzz.run")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of: {', '.join(TARGETS)} [all]")
    parser.add_argument("--seconds", type=int, default=20, help="for each target [20]")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run one target on one file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = set(options.targets) - set(TARGETS)
    if unknown or options.seconds < 1 or (options.again and len(options.targets) != 1):
        parser.error(f"unknown target {', '.join(unknown)}" if unknown else "one target and one second at least")
    if options.again:
        TARGETS[options.targets[0]](options.again.read_bytes())
        return 0
    if options.one:
        fuzz(options.targets[0], options.seconds)
    broken = [name for name in options.targets or TARGETS if not ran(name, options.seconds)]
    for name in broken:
        print(f"broken: {name}; see {FINDINGS / name}")
    return 1 if broken else 0


def ran(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own. Whether nothing broke it."""
    command = [sys.executable, "-m", "fuzz.run", name, "--seconds", str(seconds), "--one"]
    try:
        done = subprocess.run(
            command, check=False, cwd=HERE.parent, capture_output=True, text=True, timeout=seconds + 60
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: did not end in time")
        return False
    lines = done.stderr.splitlines()
    print(f"{name}: {next((line for line in reversed(lines) if line.startswith('Done ')), lines[-1] if lines else '')}")
    if done.returncode:
        print("\n".join(lines[-30:]))
    return done.returncode == 0


def fuzz(name: str, seconds: int) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    for directory in (FOUND / name, FINDINGS / name):
        directory.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["warren", "fuzz.targets"]):
        import fuzz.targets

        for seed in sorted((SEEDS / name).glob("*")):  # imports what the target needs, instrumented
            fuzz.targets.TARGETS[name](seed.read_bytes())
    atheris.Setup(
        [
            f"fuzz-{name}",
            f"-max_total_time={seconds}",
            f"-max_len={INPUT_BYTES_MAX}",
            f"-timeout={ONE_INPUT_WITHIN_S}",
            f"-artifact_prefix={FINDINGS / name}/",
            "-verbosity=1",
            str(FOUND / name),
            str(SEEDS / name),
        ],
        fuzz.targets.TARGETS[name],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
