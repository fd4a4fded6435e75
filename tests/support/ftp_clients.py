"""curl and lftp, each made to do all that there is to do with files in one session, in one mode of FTP."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tests.support.ftp_servers import PASSWORD

Mode = Literal["PASV", "EPSV", "PORT", "EPRT"]

BIG = random.Random("big").randbytes(3_000_000)
"""More than the buffers on the way hold."""
HEAD, TAIL = b"the first half, ", b"the second half"
_SESSION_S = 60.0
_CURL = {
    "PASV": ["--disable-epsv"],
    "EPSV": [],
    "PORT": ["--disable-eprt", "--ftp-port", "-"],
    "EPRT": ["--ftp-port", "-"],
}
_LFTP = {
    "PASV": "set ftp:passive-mode yes; set ftp:prefer-epsv no",
    "EPSV": "set ftp:passive-mode yes; set ftp:prefer-epsv yes",
    "PORT": "set ftp:passive-mode no",
    "EPRT": "set ftp:passive-mode no",
}


class Place(NamedTuple):
    """Where clients go."""

    host: str
    port: int
    user: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ftp://{self.user}:{PASSWORD}@{host}:{self.port}"


class Files(NamedTuple):
    """What the session brought."""

    big: bytes
    resumed: bytes
    empty: bytes
    listing: str


def modes(client: str, host: str) -> list[Mode]:
    """What this client can do towards ``host``. On loopback lftp names no IPv6 address in EPRT but ``::``."""
    if ":" in host:
        return ["EPSV"] if client == "lftp" and host == "::1" else ["EPSV", "EPRT"]
    return ["PASV", "EPSV", "PORT", "EPRT"] if client == "curl" else ["PASV", "EPSV", "PORT"]


def files_of(directory: Path) -> None:
    """What sessions bring up, and what they go on with."""
    (directory / "big").write_bytes(BIG)
    (directory / "empty").write_bytes(b"")
    (directory / "head").write_bytes(HEAD)
    (directory / "tail").write_bytes(TAIL)
    (directory / "joined").write_bytes(HEAD + TAIL)


def _here(command: Sequence[str], directory: Path) -> None:
    ran = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | {"HOME": str(directory), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=_SESSION_S,
        check=False,
    )
    assert ran.returncode == 0, f"{command[0]} ended with {ran.returncode}: {ran.stderr[-2000:]}"


def session(
    client: str,
    mode: Mode,
    place: Place,
    name: str,
    directory: Path,
    run: Callable[[Sequence[str], Path], None] = _here,
) -> Files:
    """Bring up NAME.big, NAME.empty and NAME.joined (in two pieces), fetch the first two, the big one also from the
    middle on, and list. ``directory`` is the session's own, with :func:`files_of`; ``run`` runs a
    command in it.
    """
    (directory / "resumed").write_bytes(BIG[:1_000_000])
    run({"curl": _curl, "lftp": _lftp}[client](mode, place, name, directory), directory)
    fetched, resumed, nothing, listing = (
        (directory / file).read_bytes() for file in ("fetched", "resumed", "nothing", "listing")
    )
    return Files(fetched, resumed, nothing, listing.decode())


def _curl(mode: Mode, place: Place, name: str, directory: Path) -> list[str]:
    common = ["-sS", "--max-time", str(_SESSION_S), *_CURL[mode]]
    target = f"{place.url}/{name}"
    steps: list[Sequence[str]] = [
        ("-T", "big", f"{target}.big"),
        ("-T", "empty", f"{target}.empty"),
        ("-T", "head", f"{target}.joined"),
        ("--append", "-T", "tail", f"{target}.joined"),
        ("-o", "fetched", f"{target}.big"),
        ("-o", "resumed", "-C", "-", f"{target}.big"),
        ("-o", "nothing", f"{target}.empty"),
        ("-o", "listing", f"{place.url}/"),
    ]
    command = ["curl"]
    for step in steps:
        command += ["--next"] if len(command) > 1 else []
        command += [*common, *step]
    (directory / "nothing").write_bytes(b"")  # curl makes no file of nothing
    return command


def _lftp(mode: Mode, place: Place, name: str, _: Path) -> list[str]:
    script = f"""
        set cmd:fail-exit yes; set net:max-retries 1; set net:timeout 30; set xfer:clobber yes; set ftp:ssl-allow yes;
        set ftp:sync-mode no; {_LFTP[mode]};
        open {place.url};
        put big -o {name}.big;
        put empty -o {name}.empty;
        put head -o {name}.joined;
        put -c joined -o {name}.joined;
        get {name}.big -o fetched;
        get -c {name}.big -o resumed;
        get {name}.empty -o nothing;
        ls > listing;
        bye
    """
    return ["lftp", "--norc", "-c", " ".join(script.split())]
