"""Files that hold state: replaced as a whole or not at all, whenever the power goes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from warren.errors import OperationFailed


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, mode 0600, owner kept: after a crash the old or the new file is there, whole.

    Follows symbolic links to the file that is meant. Raises OperationFailed; the old file is then untouched.
    """
    target = Path(os.path.realpath(path))
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)  # of a process that was killed here and had our number
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                with contextlib.suppress(OSError):  # no old file, or not ours to give away
                    old = target.stat()
                    os.fchown(fd, old.st_uid, old.st_gid)
                file.write(data)
                file.flush()
                os.fsync(fd)
            fresh.rename(target)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync_directory(target.parent)
    except OSError as error:
        raise OperationFailed(f"{path} cannot be written: {error.strerror}; the old file is unchanged") from None


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
