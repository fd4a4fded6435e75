"""What a page of somebody else's can make a browser send to what listens on a host: HTTP, with anything in its body.

The functions run in a child of their own on the host (:meth:`warren.lab.host.Host.call`), as root: as the user whom
Unix sockets trust, though no browser can reach those.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import stat
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from warren.l4.control import Stop, pack

ATTACKER: Final = "evil.example"
_ANSWER_S: Final = 2.0
_SILENT_S: Final = 0.1
"""Where nothing was answered before."""
_READ_BYTES: Final = 1 << 16
_STOP: Final = b'\0{"method":"org.warren.Agent.Stop"}\0{"method":"org.warren.Agent.Stop","oneway":true}\0'
_CONNECT: Final = bytes.fromhex("050100") + bytes.fromhex("05010001 7f000001 0016")
_SET: Final = b"\nset=1\nreplace_peers=true\nprivate_key=" + b"0" * 64 + b"\n\n"
_BODIES: Final = (b'{"name":"stolen"}', _STOP + pack(Stop()) + _CONNECT + _SET)
_LINES: Final = (
    "POST / HTTP/1.1",
    "POST /load HTTP/1.1",
    "POST /stop HTTP/1.1",
    "DELETE /config/ HTTP/1.1",
    "PUT /config/apps HTTP/1.1",
    "POST /v1/networks HTTP/1.1",
    "GET /127.0.0.1/80/80 HTTP/1.0",
    "CONNECT 127.0.0.1:22 HTTP/1.1",
)


def requests() -> list[bytes]:
    """Each line with each body, from a page of the attacker's: by a name of his that leads to this host."""
    made = []
    for line in _LINES:
        for body in _BODIES:
            head = f"{line}\r\nHost: {ATTACKER}\r\nOrigin: https://{ATTACKER}\r\nContent-Type: text/plain\r\n"
            made.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return made


def listening() -> tuple[list[tuple[str, int]], list[str]]:
    """All places of TCP on this host, and all Unix sockets of ours that listen."""
    places = []
    for line in subprocess.run(["ss", "-Hltn"], capture_output=True, text=True, check=True).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = re.sub(r"%.*|[\[\]]", "", address)
        places.append(({"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), int(port)))  # noqa: S104
    found = []
    for line in subprocess.run(["ss", "-Hlxn"], capture_output=True, text=True, check=True).stdout.splitlines():
        path = line.split()[4]
        if path.startswith("/") and Path(path).exists() and stat.S_ISSOCK(Path(path).stat().st_mode):
            found.append(path)
    return sorted(set(places)), sorted(set(found))


def attacked(places: Sequence[tuple[str, int]], paths: Sequence[str]) -> dict[str, set[str]]:
    """Send all of it there, in plain and by TLS; by place the first lines of the answers that were no silence."""

    def all_sent(place: tuple[str, int] | str) -> set[str]:
        answers: set[str] = set()
        for tls in (False,) if isinstance(place, str) else (False, True):
            patience_s = _ANSWER_S
            for request in requests():
                answer = _sent(place, request, patience_s, tls=tls)
                if answer is None:
                    patience_s = _SILENT_S
                else:
                    answers.add(answer)
        return answers

    targets = [*places, *paths]
    with ThreadPoolExecutor(len(targets)) as pool:
        said = pool.map(all_sent, targets)
        return {
            place if isinstance(place, str) else f"{place[0]} {place[1]}": answers
            for place, answers in zip(targets, said, strict=True)
        }


def _sent(place: tuple[str, int] | str, request: bytes, patience_s: float, *, tls: bool) -> str | None:
    """The first line of the answer, if one comes."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if isinstance(place, str):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(patience_s)
            connection.connect(place)
        else:
            connection = stack.enter_context(socket.create_connection(place, patience_s))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # as a person who clicks the warning away
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=ATTACKER))
        connection.sendall(request)
        return connection.recv(_READ_BYTES).split(b"\r\n")[0].decode("latin-1")[:60] or None
    return None
