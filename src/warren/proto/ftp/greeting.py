"""What clients of other protocols begin with, so that they hear what is wrong."""

from __future__ import annotations

import re
from typing import Final

_TLS_HANDSHAKE: Final = b"\x16\x03"  # RFC 8446 §5.1
_HTTP: Final = re.compile(rb"[A-Z]{3,10} [!-~]{1,2048} HTTP/1\.")


def foreign(data: bytes) -> str | None:
    """Why the first bytes of a client are no FTP, if they obviously are not; what a browser was made to send to an FTP
    port must not be looked through for commands.
    """
    if data.startswith(_TLS_HANDSHAKE):
        return "the client begins with TLS (implicit FTPS), which hides where data goes: use FTP without TLS here"
    if _HTTP.match(data):
        return "the client speaks HTTP"
    return None
