"""Python functions that run inside a host: forked from the lab's program, so that anything can be called as it is."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from warren.errors import OperationFailed
from warren.lab.forked import fork_child, reap
from warren.lab.program import Place

Result = TypeVar("Result")

_READ_BYTES = 1 << 16


class Call(Generic[Result]):
    """A function running in a child process on a host; :meth:`result` must be called once, or :meth:`cancel`."""

    def __init__(self, place: Place, function: Callable[..., Result], args: tuple[object, ...]) -> None:
        self._title = f"host {place.host}: {getattr(function, '__qualname__', repr(function))}"
        self._answer, theirs = os.pipe()
        try:
            self._pid: int | None = fork_child(lambda: _answer_call(place, function, args, theirs))
        except BaseException:
            os.close(self._answer)
            raise
        finally:
            os.close(theirs)

    @property
    def is_done(self) -> bool:
        """Whether :meth:`result` would return or raise at once."""
        return self.is_over or self._is_readable(0)

    @property
    def is_over(self) -> bool:
        """Whether the answer has been taken, or the call cancelled."""
        return self._pid is None

    def result(self, timeout: float) -> Result:
        """What the function returned, or its exception raised here with the remote traceback as a note.

        Raises OperationFailed when it takes more than ``timeout`` seconds, or its process dies. The child has ended
        then.
        """
        if self.is_over:
            raise OperationFailed(f"{self._title}: the answer was taken before, or the call cancelled")
        try:
            message = self._read_all(timeout)
        finally:
            self.cancel()
        if not message:
            raise OperationFailed(f"{self._title}: its process died without an answer")
        returned, value = pickle.loads(message)  # noqa: S301  written by our own child
        if not returned:
            raise value
        result: Result = value
        return result

    def cancel(self) -> None:
        """End the child if it still runs."""
        if self._pid is None:
            return
        os.close(self._answer)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        reap(self._pid)
        self._pid = None

    def _read_all(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        chunks: list[bytes] = []
        while True:
            if not self._is_readable(max(0.0, deadline - time.monotonic())):
                raise OperationFailed(f"{self._title}: no answer within {timeout:g} s")
            chunk = os.read(self._answer, _READ_BYTES)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    def _is_readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._answer, select.POLLIN)
        return bool(poll.poll(timeout * 1000))


def _answer_call(place: Place, function: Callable[..., object], args: tuple[object, ...], answer: int) -> None:
    try:
        place.enter()
        message = pickle.dumps((True, function(*args)))
    except BaseException as error:  # noqa: BLE001  all of it is the caller's to see
        error.add_note(f"on host {place.host}:\n{traceback.format_exc()}")
        message = _pickled_error(error)
    with open(answer, "wb", closefd=False) as pipe:
        pipe.write(message)


def _pickled_error(error: BaseException) -> bytes:
    """``error`` pickled so that it surely can be loaded again: some exceptions cannot be made from their arguments."""
    try:
        message = pickle.dumps((False, error))
        pickle.loads(message)  # noqa: S301  our own bytes of the line above
    except Exception:  # noqa: BLE001  pickling runs code of the exception's class
        return pickle.dumps((False, OperationFailed(f"{type(error).__name__}: {error}")))
    return message
