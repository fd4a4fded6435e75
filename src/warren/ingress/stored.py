"""What Caddy has stored, looked through: it writes in place, and reads for ever after what a full disk cut off. Also
how long its certificates are valid.

::

    caddy / certificates / AUTHORITY / DOMAIN / DOMAIN.crt.key.json
    caddy / pki / authorities / local / root.crt.key, intermediate.crt.key
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Final

import msgspec

from warren import log

AUTHORITIES: Final = "caddy/pki"
"""What it reads when it takes up a configuration; the rest it reads when it starts, and writes whenever it likes."""
_OWN_AUTHORITY: Final = "local"
_FILES_MAX: Final = 100_000
"""Three for each domain; whoever has more than that waits for this look too long."""
_BYTES_MAX: Final = 1 << 20
_PEM_END: Final = b"-----END "

_log = log.get("caddy")


def valid_for_s(storage: Path, domain: str) -> float | None:
    """How long the best certificate for ``domain`` is still valid, in seconds (below 0: it has expired) and by the
    clock of this host; None: there is none.
    """
    from cryptography import x509

    found = []
    for file in storage.glob(f"certificates/*/{domain}/{domain}.crt"):
        with contextlib.suppress(OSError, ValueError):
            found.append(x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp())
    return max(found) - time.time() if found else None


def domains_served(storage: Path) -> frozenset[str]:
    """Those for which an authority has given certificates that are still valid."""
    found = {file.stem for file in storage.glob("certificates/*/*/*.crt") if file.parts[-3] != _OWN_AUTHORITY}
    return frozenset(domain for domain in found if (valid_for_s(storage, domain) or 0) > 0)


class Repairs:
    """Looks through what is stored, and remembers what was said of it: while the disk is full, it is so each time."""

    def __init__(self) -> None:
        self._removed: list[str] = []

    def look_through(self, directory: Path) -> bool:
        """Whether anything that Caddy had stored there had to be taken away."""
        removed = take_away_damaged(directory)
        if removed and removed != self._removed:
            _log.warning(
                "what Caddy had stored was cut off, on a full disk perhaps; it makes it again: %s", ", ".join(removed)
            )
        self._removed = removed or self._removed
        return bool(removed)


def take_away_damaged(directory: Path) -> list[str]:
    """Remove what was cut off, with what belongs to it, so that Caddy makes it again; returns the names of the files.

    A root certificate goes with the intermediate one that it has signed.
    """
    damaged: set[tuple[Path, str]] = set()
    for number, file in enumerate(directory.rglob("*")):
        if number >= _FILES_MAX:
            break
        if _is_cut_off(file):
            damaged.add((file.parent, file.stem))
            if file.stem == "root":
                damaged.add((file.parent, "intermediate"))
    removed = []
    for parent, stem in sorted(damaged):
        for suffix in (".crt", ".key", ".json"):
            file = parent / f"{stem}{suffix}"
            with contextlib.suppress(OSError):
                file.unlink()
                removed.append(file.name)
    return removed


def _is_cut_off(file: Path) -> bool:
    if file.suffix not in {".crt", ".key", ".json"}:
        return False
    try:
        with file.open("rb") as stored:
            data = stored.read(_BYTES_MAX)
    except OSError:
        return False
    if file.suffix != ".json":
        return _PEM_END not in data
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    return False
