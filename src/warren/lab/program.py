"""Programs that run on a lab host: how one is started inside the host's namespaces, and the handle of a running one."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import IO

from warren.errors import OperationFailed
from warren.lab.forked import forking_knowingly
from warren.linux import netns

Command = Sequence[str | os.PathLike[str]]

_STOP_GRACE_S = 2.0
_OUTPUT_SHOWN_CHARACTERS = 4000
_HOST_NAMESPACES = netns.CLONE_NEWNET | netns.CLONE_NEWUTS | netns.CLONE_NEWNS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program runs: a host's name for messages, and a pidfd of its holder, which the host owns."""

    host: str
    pidfd: int
    of_another: bool = False
    """The lab is in a user namespace, which a program that enters from outside has to enter, too."""

    def enter(self) -> None:
        """Move the calling thread into the host's namespaces; it shares its working directory with no other thread.
        The working directory stays what it is.
        """
        directory = Path.cwd()
        netns.join(self.pidfd, _HOST_NAMESPACES | (netns.CLONE_NEWUSER if self.of_another else 0))
        os.chdir(directory)


class Process:
    """A program running in the background on a host. Its output goes to the file ``log``.

    It leads a process group of its own: signals reach its children too, unless they left the group.
    """

    def __init__(self, popen: subprocess.Popen[bytes], title: str, log: Path) -> None:
        self._popen = popen
        self._title = title
        self.log = log

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self._popen.poll()

    def signal(self, number: Signals) -> None:
        """Send a signal to the program alone. No error when it has ended."""
        self._popen.send_signal(number)

    def stop(self, timeout: float = _STOP_GRACE_S) -> int:
        """SIGTERM to the group, SIGKILL after ``timeout`` seconds; returns the status. It may have ended before."""
        self._signal_group(SIGTERM)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL to the group; returns the exit status."""
        self._signal_group(SIGKILL)
        return self._popen.wait()

    def wait(self, timeout: float) -> int:
        """Wait for its end, return the status. Raises OperationFailed when that takes more than ``timeout`` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._failure(f"still runs after {timeout:g} s") from None

    def output(self) -> str:
        """What it has written so far to stdout and stderr."""
        return self.log.read_text(errors="replace")

    def _signal_group(self, number: Signals) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def _failure(self, what: str) -> OperationFailed:
        return failure(f"{self._title} {what}", self.output())


def run_program(
    place: Place,
    command: Command,
    *,
    input: str | None,  # noqa: A002  as subprocess.run has it
    timeout: float,
    check: bool,
    user: str | None,
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; see :meth:`Host.run`."""
    title = describe(place, command)
    source = subprocess.DEVNULL if input is None else subprocess.PIPE
    popen = _spawn(place, command, user=user, env=env, source=source, output=subprocess.PIPE, errors=subprocess.PIPE)
    with popen:
        try:
            out, err = popen.communicate(None if input is None else input.encode(), timeout)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, SIGKILL)
            out, err = popen.communicate()
            raise failure(f"{title} still ran after {timeout:g} s and was ended", _text(out), _text(err)) from None
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # an interrupted communicate() may have seen its end already
                os.killpg(popen.pid, SIGKILL)
            raise
    done = subprocess.CompletedProcess(_words(command), popen.returncode, _text(out), _text(err))
    if check and done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise failure(f"{title} ended with status {done.returncode}: {last}", done.stdout, done.stderr)
    return done


def start_program(
    place: Place, command: Command, log: Path, *, user: str | None, env: Mapping[str, str] | None
) -> Process:
    """Start a program in the background; see :meth:`Host.start`."""
    with log.open("ab") as output:
        popen = _spawn(
            place, command, user=user, env=env, source=subprocess.DEVNULL, output=output, errors=subprocess.STDOUT
        )
    return Process(popen, describe(place, command), log)


def describe(place: Place, command: Command) -> str:
    return f"host {place.host}: `{shlex.join(_words(command))}`"


def _words(command: Command) -> list[str]:
    return [os.fspath(word) for word in command]


def failure(sentence: str, *outputs: str) -> OperationFailed:
    """An error of one line, with the end of a program's output as a note for a traceback."""
    error = OperationFailed(sentence)
    for output in filter(None, outputs):
        error.add_note(output[-_OUTPUT_SHOWN_CHARACTERS:])
    return error


def _spawn(
    place: Place,
    command: Command,
    *,
    user: str | None,
    env: Mapping[str, str] | None,
    source: int,
    output: int | IO[bytes],
    errors: int,
) -> subprocess.Popen[bytes]:
    def begin(entrance: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            stdin=source,
            stdout=output,
            stderr=errors,
            env={**os.environ, "LANG": "C", "LC_ALL": "C", **(env or {})},
            start_new_session=True,
            preexec_fn=entrance,  # noqa: PLW1509  it takes no lock that a thread could hold
        )

    try:
        if user is None and not place.of_another:
            return _begun_inside(place, begin)
        with forking_knowingly():
            return begin(_entrance(place, user))
    except FileNotFoundError:
        raise OperationFailed(_no_program(place, command)) from None
    except PermissionError as error:
        if os.sep not in os.fspath(command[0]) and shutil.which(command[0]) is None:
            # One directory of PATH is closed to this user, and the program is in none of the others.
            raise OperationFailed(_no_program(place, command)) from None
        raise OperationFailed(
            f"{describe(place, command)} may not be run: {error.strerror}: {error.filename}"
        ) from None
    except subprocess.SubprocessError:
        raise OperationFailed(
            f"{describe(place, command)} cannot be started as {user or 'root'} in its namespaces"
        ) from None


def _begun_inside(place: Place, begin: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Start a program from a thread that is in the host's namespaces, which its child inherits.

    With a ``preexec_fn`` Python has to fork: it copies the page tables of the lab's program, which for a test runner
    takes ten times as long as all else; without one it does not. Raises SubprocessError when the host is gone.
    """
    outcome: list[subprocess.Popen[bytes] | BaseException] = []

    def work() -> None:
        try:
            try:
                netns.unshare(netns.CLONE_FS)
                place.enter()
            except OSError as error:
                raise subprocess.SubprocessError(str(error)) from error
            outcome.append(begin())
        except BaseException as error:  # noqa: BLE001  all of it is the caller's to see
            outcome.append(error)

    thread = threading.Thread(target=work, name=f"start on {place.host}")
    thread.start()
    thread.join()
    (found,) = outcome
    if isinstance(found, BaseException):
        raise found
    return found


def _no_program(place: Place, command: Command) -> str:
    return f"host {place.host}: there is no program {os.fspath(command[0])}: install the package that has it"


def _entrance(place: Place, user: str | None) -> Callable[[], None]:
    """What the new process does between fork and exec. Everything that can fail with a reason is looked up before."""
    if user is None:
        return place.enter
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise OperationFailed(f"host {place.host}: there is no user {user} on this machine") from None
    if not _is_mapped(entry.pw_uid):
        raise OperationFailed(
            f"host {place.host}: cannot run as {user} in a user namespace that has only root: run as root"
        )

    def enter_as_user() -> None:
        place.enter()
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return enter_as_user


def _is_mapped(uid: int) -> bool:
    """Whether the user namespace of this process has ``uid`` (user_namespaces(7), "uid_map")."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = (tuple(map(int, line.split())) for line in lines)
    return any(first <= uid < first + count for first, _, count in ranges)


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
