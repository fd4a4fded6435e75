"""Processes that outlive the one that started them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import pytest

from warren.errors import OperationFailed
from warren.linux import processes
from warren.linux.processes import Outliving


def python(text: str) -> list[str]:
    return [sys.executable, "-S", "-c", text]


SLEEPER = python("import signal; print('ready', flush=True); signal.pause()")
DEAF = python(
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)\nwhile 1: signal.pause()"
)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(scene())  # type: ignore[arg-type]


def test_one_that_is_ready_is_in_a_session_of_its_own_until_it_is_closed() -> None:
    async def scene() -> None:
        process = await Outliving.start(SLEEPER, "the sleeper")
        assert os.getsid(process.pid) == process.pid
        assert not await process.ended(0)
        waiting = [asyncio.create_task(process.wait_closed()) for _ in range(2)]
        await process.close()
        await asyncio.gather(*waiting)
        await process.close()
        assert await process.ended(40)

    play(scene)


def test_one_that_does_not_end_when_it_is_asked_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.1)

    async def scene() -> None:
        process = await Outliving.start(DEAF, "the deaf")
        await process.close()
        assert await process.ended(40)

    play(scene)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("print('error: the disk is full: make room')", "the disk is full: make room"),
        ("pass", "the sleeper ended at once; the log says more"),
    ],
)
def test_one_that_cannot_be_says_why(text: str, says: str) -> None:
    async def scene() -> None:
        with pytest.raises(OperationFailed) as caught:
            await Outliving.start(python(text), "the sleeper")
        assert str(caught.value) == says

    play(scene)


def test_one_that_is_never_ready_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "START_S", 0.1)

    async def scene() -> None:
        with pytest.raises(OperationFailed, match="the sleeper did not start within 0 s"):
            await Outliving.start(python("import signal; signal.pause()"), "the sleeper")

    play(scene)


def test_one_that_was_let_go_goes_on_and_is_found_by_its_number() -> None:
    async def scene() -> None:
        process = await Outliving.start(SLEEPER, "the sleeper")
        pid = process.pid
        process.forget()
        del process
        again = Outliving(pid)
        assert not await again.ended(0)
        await again.close()
        os.waitpid(pid, 0)
        with pytest.raises(ProcessLookupError):
            Outliving(pid)

    play(scene)


def test_a_descriptor_that_is_kept_is_there() -> None:
    async def scene() -> None:
        ours, theirs = os.pipe()
        try:
            text = f"import os, signal; os.write({theirs}, b'x'); print('ready', flush=True); signal.pause()"
            process = await Outliving.start(python(text), "the sleeper", kept=(theirs,))
            assert os.read(ours, 1) == b"x"
            os.kill(process.pid, signal.SIGKILL)
            await process.wait_closed()
        finally:
            os.close(ours)
            os.close(theirs)

    play(scene)
