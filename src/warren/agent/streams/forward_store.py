"""The forwards that were asked for with ``--keep``: a file of the state directory."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from warren.agent import kept
from warren.agent.streams.forward_text import Forward, Socks, parse_forward, parse_socks
from warren.errors import OperationFailed

FILE_NAME: Final = "forwards"


class _Kept(msgspec.Struct, frozen=True):
    listen: str
    target: str = ""
    """Empty: a SOCKS5 server."""


class ForwardStore:
    """Single owner."""

    def __init__(self, state: Path) -> None:
        self._path = state / FILE_NAME

    def load(self) -> tuple[tuple[Forward | Socks, ...], str]:
        """What was saved, and what is wrong with the file, if anything: a sentence for the log."""
        try:
            content = kept.read(self._path)
        except (kept.Damaged, OperationFailed) as error:
            return (), str(error)
        if content is None:
            return (), ""
        try:
            found = msgspec.msgpack.decode(content, type=tuple[_Kept, ...])
            return tuple(_wish(one) for one in found), ""
        except (msgspec.DecodeError, ValueError) as error:
            kept.put_aside(self._path)
            return (), f"{self._path} cannot be used ({error}): the forwards in it have to be made again"

    def save(self, wishes: Iterable[Forward | Socks]) -> None:
        """Raises OperationFailed; what was saved before is then untouched."""
        kept.write(self._path, msgspec.msgpack.encode([_text(wish) for wish in wishes]))


def _wish(one: _Kept) -> Forward | Socks:
    return parse_forward(one.listen, one.target) if one.target else parse_socks(one.listen)


def _text(wish: Forward | Socks) -> _Kept:
    if isinstance(wish, Socks):
        return _Kept(wish.place)
    slash = "/udp" if wish.protocol == "udp" else ""
    return _Kept(wish.place.removesuffix("/udp"), f"{wish.aim}{slash}")
