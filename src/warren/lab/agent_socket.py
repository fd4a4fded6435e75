"""What the agent of a lab host says of itself, asked on its control socket as ``warren status --json`` asks it.

That command is a program that takes a few tenths of a second of a processor to start, and a lab asks often.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Final

from warren.errors import OperationFailed
from warren.proto.control.local import VARLINK_INTERFACE

_CALL: Final = json.dumps({"method": f"{VARLINK_INTERFACE}.Status"}).encode() + b"\0"
_READ_BYTES: Final = 1 << 16


def agent_status(pid: int, path: str, *, within_s: float) -> dict[str, Any]:
    """All that the agent with the control socket ``path`` knows, as ``warren status --json`` prints it.

    ``path`` is looked up in the mounts of process ``pid``. Raises OperationFailed when nobody answers within
    ``within_s`` seconds.
    """
    place = Path(f"/proc/{pid}/root") / path.lstrip("/")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(within_s)
        try:
            connection.connect(str(place))
            connection.sendall(_CALL)
            received = _answer(connection, time.monotonic() + within_s)
        except OSError as error:
            raise OperationFailed(f"the agent does not answer at {path}: {error.strerror or error}") from error
    if not received.endswith(b"\0"):
        raise OperationFailed(f"the agent at {path} closed the connection without an answer")
    answer = json.loads(received[:-1])
    if "error" in answer:
        raise OperationFailed(str(answer.get("parameters", {}).get("message", answer["error"])))
    return dict(answer["parameters"]["status"])


def _answer(connection: socket.socket, deadline: float) -> bytes:
    """What is received until the NUL byte that ends an answer, or until the connection is closed."""
    received = bytearray()
    while not received.endswith(b"\0"):
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = connection.recv(_READ_BYTES)
        if not chunk:
            break
        received += chunk
    return bytes(received)
