"""The commands of a client, and what a helper does with each."""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, NamedTuple

from warren.proto.ftp.lines import Line


class Kind(Enum):
    """What a command means to a helper."""

    PLAIN = "passed on; one reply comes back"
    DATA = "says where the next data connection goes: answered by the helper, after asking the server for a port"
    TRANSFER = "uses a data connection"
    ABORT = "is passed on while a transfer runs, urgently"
    ASK = "is passed on while a transfer runs, and may be answered before it"
    FEATURES = "passed on; the reply is corrected"
    REFUSED = "answered by the helper: not here"
    BROKEN = "answered by the helper: not a command"


class Command(NamedTuple):
    """One line of a client. ``refusal`` is the reply to REFUSED and BROKEN, without the end of line."""

    kind: Kind
    verb: str
    argument: bytes
    text: bytes
    refusal: bytes = b""


_TLS: Final = (
    b"No TLS here, the tunnel encrypts: log in without (else forward the port without the FTP helper, and do without "
    b"data connections)."
)
_NO_TLS: Final = b"534 " + _TLS
_NOT_WITHOUT_TLS: Final = b"503 " + _TLS
_NOT_HERE: Final = b"502 Not through this helper; PASV, EPSV, PORT and EPRT are."

_KINDS: Final = {
    **dict.fromkeys(("PASV", "EPSV", "PORT", "EPRT"), Kind.DATA),
    **dict.fromkeys(("RETR", "STOR", "STOU", "APPE", "LIST", "NLST", "MLSD"), Kind.TRANSFER),
    "ABOR": Kind.ABORT,
    "STAT": Kind.ASK,
    "FEAT": Kind.FEATURES,
}
REFUSALS: Final = {
    "AUTH": _NO_TLS,  # RFC 2228 §3, RFC 4217: after it the helper would see nothing any more
    **dict.fromkeys(("ADAT", "PBSZ", "PROT", "CCC", "MIC", "CONF", "ENC"), _NOT_WITHOUT_TLS),
    # Data connections in words that no helper knows: RFC 1639, and two for transfers between servers.
    **dict.fromkeys(("LPRT", "LPSV", "SPSV", "CPSV", "SSCN"), _NOT_HERE),
}

# RFC 959 §5.3.1: four letters or fewer; later ones are not much longer.
_COMMAND: Final = re.compile(rb"([A-Za-z][A-Za-z0-9]{0,11})(?: (.*))?", re.DOTALL)


def command_of(line: Line) -> Command:
    """Every line is some command, if only a BROKEN one."""
    if line.broken:
        return _broken(b"500 A line with CR or NUL in it, or far too long.")
    match = _COMMAND.fullmatch(line.text)
    if match is None:
        return _broken(b"500 Not a command.")
    verb = match[1].decode("ascii").upper()
    argument = match[2] or b""
    if verb in REFUSALS:
        return Command(Kind.REFUSED, verb, argument, line.text, REFUSALS[verb])
    return Command(_KINDS.get(verb, Kind.PLAIN), verb, argument, line.text)


def _broken(refusal: bytes) -> Command:
    return Command(Kind.BROKEN, "", b"", b"", refusal)
