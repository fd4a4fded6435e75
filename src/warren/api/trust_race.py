"""Several ways to one thing, begun one a little after the other (as in RFC 8305 §5): the first that works counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from warren.errors import OperationFailed, Unreachable, WarrenError

STAGGER_S: Final = 0.5
"""How long one attempt has before the next begins beside it; it begins at once when the one before fails."""

T = TypeVar("T")
Attempt = Callable[[], Awaitable[T]]


async def first_of(attempts: Iterable[Attempt[T]], release: Callable[[T], Awaitable[None]] | None = None) -> T:
    """The result of the first attempt to succeed; the others are cancelled, and what one of them still brought is
    handed to ``release``. An attempt fails by a WarrenError.

    Raises the error of the only attempt, or one that names all: OperationFailed when any of them is (somebody
    answered, but wrongly), else Unreachable.
    """
    waiting = list(attempts)
    running: list[asyncio.Task[T]] = []
    errors: list[WarrenError] = []
    winner: asyncio.Task[T] | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                running.append(asyncio.ensure_future(waiting.pop(0)()))
            done, _ = await asyncio.wait(
                running, timeout=STAGGER_S if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in sorted(done, key=running.index):
                error = task.exception()
                if error is None:
                    winner = winner or task
                elif isinstance(error, WarrenError):
                    running.remove(task)
                    errors.append(error)
                else:
                    raise error
        if winner is None:
            raise _together(errors)
        return winner.result()
    finally:
        await _clear([task for task in running if task is not winner], release)


async def _clear(tasks: list[asyncio.Task[T]], release: Callable[[T], Awaitable[None]] | None) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if release is not None and not isinstance(outcome, BaseException):
            await release(outcome)


def _together(errors: list[WarrenError]) -> WarrenError:
    if not errors:
        return Unreachable("no coordinator's address is known")
    if len(errors) == 1:
        return errors[0]
    wrong = any(isinstance(error, OperationFailed) for error in errors)
    return (OperationFailed if wrong else Unreachable)(_list([str(error) for error in errors]))


def _list(sentences: list[str]) -> str:
    """One after the other; those that end alike after a colon say that part once."""
    heads: dict[str, dict[str, None]] = {}
    for sentence in sentences:
        head, colon, tail = sentence.rpartition(": ")
        heads.setdefault(colon + tail, {})[head] = None
    return "; ".join(" and ".join(several) + tail for tail, several in heads.items())
