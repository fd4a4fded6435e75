"""Files of the agent's state: written whole, checksummed, and put aside when damaged.

::

    warren 1 SHA-256 of the rest in hexadecimal LF
    the rest
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from pathlib import Path
from typing import Final

from warren.errors import OperationFailed
from warren.files import write_atomically

_MAGIC: Final = b"warren 1 "
_HEAD_BYTES: Final = len(_MAGIC) + 64 + 1
KEPT_BYTES_MAX: Final = 256 << 20
"""A map of 65,000 members with all its documents is some 80 MB."""
_CORRUPT_MAX: Final = 8
"""Copies of damaged files that are kept for whoever wants to know; then the last one is replaced."""


class Damaged(Exception):
    """The file is not what was written. It has been put aside; the text says so in a sentence."""


def write(path: Path, content: bytes) -> None:
    """Raises OperationFailed; the old file is then untouched."""
    write_atomically(path, _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)


def read(path: Path) -> bytes | None:
    """What :func:`write` was given; None when there is no such file.

    Raises Damaged, after the file was renamed, and OperationFailed when it cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            data = file.read(KEPT_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperationFailed(
            f"{path} cannot be read: {error.strerror}; run as its owner, or mend what is wrong with it"
        ) from None
    content = data[_HEAD_BYTES:]
    head = _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n"
    if not hmac.compare_digest(data[:_HEAD_BYTES], head):
        raise put_aside(path)
    return content


def put_aside(path: Path) -> Damaged:
    """Rename a file that cannot be used, so that it is neither used nor lost; returns the error to raise."""
    for number in range(1, _CORRUPT_MAX + 1):
        aside = path.with_name(f"{path.name}.corrupt-{number}")
        if not aside.exists() or number == _CORRUPT_MAX:
            break
    with contextlib.suppress(OSError):  # a read-only disk: it is then found damaged again, which does no harm
        path.rename(aside)
    return Damaged(f"{path} was damaged; it is kept as {aside.name}, and what it held is made or fetched again")
