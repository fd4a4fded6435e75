"""/etc/resolv.conf as a file that is borrowed: what was there is kept beside it, and comes back.

Ours begins with a line that holds a digest of the rest, so that it is known again by a later process, and so that an
edit by somebody else shows::

    state       the file                              what becomes of it when it is taken, or given back
    intact      is as we wrote it                     replaced; given back, the kept one takes its place
    edited      begins as ours, and was changed       what was changed counts as theirs, our lines taken out
    foreign     is somebody else's                    theirs is kept from now on; given back, it is left alone
    missing     is not there, or says nothing         kept, if there is something; given back, the kept one comes

Where the file itself is mounted, as in containers, it cannot be replaced: it is rewritten in place, and what was there
is kept in the run directory, since what is beside it may be other hosts' too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from warren.dns.upstream import SERVERS_MAX, Server
from warren.errors import OperationFailed
from warren.model.tunnel import IPAddress

_MARK: Final = re.compile(r"# warren ([0-9a-f]{64})((?: [0-9a-f.:]+)*)")
_NAME_SERVER: Final = re.compile(r"\s*nameserver\s+(\S+)")
_OPTIONS: Final = re.compile(r"\s*options\s")
_NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
_MOUNTED: Final = frozenset({errno.EBUSY, errno.EXDEV})
_READABLE_BY_ALL: Final = 0o644
_LOCAL: Final = Server.parse("127.0.0.1")


class State(Enum):
    INTACT = "intact"
    EDITED = "edited"
    FOREIGN = "foreign"
    MISSING = "missing"


class Former(NamedTuple):
    """What the file that is kept says."""

    servers: tuple[Server, ...]
    other_lines: tuple[str, ...]
    """``search`` and ``options`` and the like, as they were."""


class ResolvConf:
    """The file in a directory (/etc). Nothing is remembered in memory: any process can go on with it.

    ``run`` is the agent's run directory, the same for all processes that follow one another. Errors: OperationFailed,
    with the file as it was.
    """

    def __init__(self, directory: Path = Path("/etc"), run: Path = Path("/run/warren")) -> None:
        self.path = directory / "resolv.conf"
        """What the host's programs read."""
        self._is_mounted = _is_mounted(self.path)
        self.kept = (run if self._is_mounted else directory) / "resolv.conf.before-warren"

    def state(self) -> State:
        text = _read(self.path)
        if not text.strip():
            return State.MISSING
        mark, _, rest = text.partition("\n")
        match = _MARK.fullmatch(mark)
        if match is None:
            return State.FOREIGN
        return State.INTACT if match[1] == _digest(match[2], rest) else State.EDITED

    def has_traces(self) -> bool:
        """Whether there is something to give back."""
        return self.state() in {State.INTACT, State.EDITED} or _is_there(self.kept)

    def former(self) -> Former:
        """What is, or is to be, kept."""
        match self.state():
            case State.INTACT | State.MISSING:
                return _parse(_read(self.kept).splitlines())
            case State.EDITED:
                return _parse(_without_ours(_read(self.path)))
            case State.FOREIGN:
                return _parse(_read(self.path).splitlines())

    def is_taken(self, servers: Sequence[IPAddress]) -> bool:
        """Whether the file is as :meth:`take` would write it now."""
        return self.state() is State.INTACT and _read(self.path) == _ours(servers, self.former())

    def take(self, servers: Sequence[IPAddress]) -> None:
        """Let the host ask ``servers`` first, and those of before when they do not answer."""
        former, state = self.former(), self.state()
        text = _ours(servers, former)
        try:
            if state is State.EDITED:
                _replace(self.kept, "".join(f"{line}\n" for line in _without_ours(_read(self.path))))
            elif state is State.FOREIGN or (state is State.MISSING and self._has_nothing_kept()):
                self._keep()
            self._write(text)
        except OSError as error:
            raise OperationFailed(
                f"{self.path} cannot be changed: {error.strerror}; let {servers[0]} be asked by other means"
            ) from None

    def give_back(self) -> State:
        """Undo :meth:`take`, by whichever process; harmless when there is nothing to undo. Returns what was found."""
        state = self.state()
        try:
            if state is State.EDITED:
                self._write("".join(f"{line}\n" for line in _without_ours(_read(self.path))))
                self.kept.unlink(missing_ok=True)
            elif state is State.FOREIGN:
                self.kept.unlink(missing_ok=True)
            elif _is_there(self.kept):
                self._put_back()
            elif state is State.INTACT:
                self._remove()
        except OSError as error:
            raise OperationFailed(
                f"{self.path} cannot be restored: {error.strerror}; the file of before is {self.kept}"
            ) from None
        return state

    def _write(self, text: str) -> None:
        if self._is_mounted:  # and the directory may be somebody else's
            _rewrite(self.path, text)
        else:
            _replace(self.path, text)

    def _has_nothing_kept(self) -> bool:
        """Though there is something to keep: an empty file, a symbolic link to nothing."""
        return _is_there(self.path) and not _is_there(self.kept)

    def _keep(self) -> None:
        """Keep what is there, a symbolic link as one, with no moment at which there is nothing."""
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        fresh = _fresh(self.kept)
        fresh.unlink(missing_ok=True)
        try:
            os.link(self.path, fresh, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copy2(self.path, fresh, follow_symlinks=False)
        fresh.rename(self.kept)

    def _put_back(self) -> None:
        try:
            self.kept.rename(self.path)
        except OSError as error:
            if error.errno not in _MOUNTED:
                raise
            _rewrite(self.path, _read(self.kept))
            self.kept.unlink()

    def _remove(self) -> None:
        try:
            self.path.unlink()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _rewrite(self.path, "")


def _ours(servers: Sequence[IPAddress], former: Former) -> str:
    names = [*map(str, servers), *(str(server.address) for server in former.servers if server != _LOCAL)]
    rest = [
        "# Warren answers for its networks here, and asks the name servers of before for all else. What was here is",
        "# kept as resolv.conf.before-warren and comes back when Warren ends; changes made here are taken over.",
        *(f"nameserver {name}" for name in names[:SERVERS_MAX]),
        *former.other_lines,
    ]
    text = "".join(f"{line}\n" for line in rest)
    ours = "".join(f" {server}" for server in servers)
    return f"# warren {_digest(ours, text)}{ours}\n{text}"


def _digest(ours: str, rest: str) -> str:
    return hashlib.sha256(f"{ours}\n{rest}".encode(errors="surrogateescape")).hexdigest()


def _without_ours(text: str) -> list[str]:
    """The lines of an edited file that are not ours."""
    mark, *lines = text.splitlines()
    match = _MARK.fullmatch(mark)
    ours = match[2].split() if match else []
    return [
        line
        for line in lines
        if not ((server := _NAME_SERVER.match(line)) and server[1] in ours)
        and not line.startswith(("# Warren answers for", "# kept as resolv.conf.before-warren"))
    ]


def _parse(lines: Iterable[str]) -> Former:
    servers: list[Server] = []
    others: list[str] = []
    for line in lines:
        if match := _NAME_SERVER.match(line):
            server = Server.parse(match[1])
            servers += [server] if server is not None else []
        elif _OPTIONS.match(line):
            # With `rotate` our resolver would be asked by turns.
            words = [word for word in line.split() if word != "rotate"]
            others += [" ".join(words)] if len(words) > 1 else []
        elif line.strip() and line.lstrip()[0] not in "#;":
            others.append(line)
    if not servers and _LOCAL is not None:  # resolv.conf(5): then it is the name server of this machine
        servers = [_LOCAL]
    return Former(tuple(servers[:SERVERS_MAX]), tuple(others))


def _is_mounted(path: Path) -> bool:
    """Whether something is mounted on the file itself (proc(5), mountinfo)."""
    places = (line.split()[4] for line in _read(Path("/proc/self/mountinfo")).splitlines())
    return str(path.absolute()) in places


def _is_there(path: Path) -> bool:
    """Also as a symbolic link to nothing."""
    return os.path.lexists(path)


def _read(path: Path) -> str:
    """The file's text; empty when it is missing, or a symbolic link to nothing."""
    try:
        return path.read_text(errors="surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise OperationFailed(
            f"{path} cannot be read: {error.strerror}; put a file there that this user may read"
        ) from None


def _replace(path: Path, text: str) -> None:
    """Put a file with that text at ``path``, in place of whatever is there (a symbolic link: of the link)."""
    fresh = _fresh(path)
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _READABLE_BY_ALL)
    try:
        with os.fdopen(fd, "w", errors="surrogateescape") as file:
            os.fchmod(fd, _READABLE_BY_ALL)
            file.write(text)
            file.flush()
            os.fsync(fd)
        try:
            fresh.rename(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _rewrite(path, text)
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def _rewrite(path: Path, text: str) -> None:
    """For a file that is mounted. Who dies in the middle leaves it empty, which counts as missing."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(text.encode(errors="surrogateescape"))
        file.flush()
        os.fsync(fd)


def _fresh(path: Path) -> Path:
    # Of this process alone: hosts of a lab share the directory.
    return path.with_name(f".{path.name}.{os.getpid()}.new")
