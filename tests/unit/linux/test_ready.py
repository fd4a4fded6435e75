"""How a process tells who started it that it serves."""

from __future__ import annotations

import subprocess
import sys


def test_the_pipe_is_let_go_of_so_that_its_reader_may_end() -> None:
    text = """
import sys
from warren.linux.ready import say_ready
say_ready()
print("lost", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ready\n"
        assert process.poll() is None
        process.communicate()
    assert process.returncode == 0
