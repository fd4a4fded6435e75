"""Clients of a web site, over TLS without resumption, and the server behind it."""

from __future__ import annotations

import datetime as dt
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.streams.ends import NAME, connected, rate, trusting
from warren.errors import OperationFailed
from warren.lab import Host, Process

ANSWER_BYTES = 1024
BODY_BYTES = 1 << 26
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Requests:
    per_s: float
    seconds: list[float]
    """Of each request."""


def kept(address: str, port: int, seconds: float, connections: int) -> Requests:
    """One request after the other on each of some connections."""
    context = trusting()
    ready = [connected(address, port, context) for _ in range(connections)]
    found: list[float] = []

    def one() -> None:
        sock = ready.pop()
        began = time.perf_counter()
        _request(sock)
        found.append(time.perf_counter() - began)
        ready.append(sock)

    try:
        return Requests(rate(one, seconds, connections), found)
    finally:
        for sock in ready:
            sock.close()


def new(address: str, port: int, seconds: float, at_once: int) -> Requests:
    """A connection for each request."""
    context = trusting()
    found: list[float] = []

    def one() -> None:
        began = time.perf_counter()
        with connected(address, port, context) as sock:
            _request(sock)
        found.append(time.perf_counter() - began)

    return Requests(rate(one, seconds, at_once), found)


def body(address: str, port: int, seconds: float) -> float:
    """Mbit/s of a large body, again and again on one connection."""
    buffer = bytearray(_BLOCK)
    with connected(address, port, trusting()) as sock:
        began = time.monotonic()
        total = 0
        while time.monotonic() - began < seconds:
            sock.sendall(f"GET /body HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
            left = -1
            while left:
                count = sock.recv_into(buffer, _BLOCK)
                if not count:
                    raise OperationFailed("the body broke off")
                if left < 0:
                    head, _, first = bytes(buffer[:count]).partition(b"\r\n\r\n")
                    if not head.startswith(b"HTTP/1.1 200 "):
                        raise OperationFailed(f"the answer is {head[:100]!r}")
                    left, count = BODY_BYTES, len(first)
                left -= count
                total += count
        return total * 8 / (time.monotonic() - began) / 1e6


def answers(address: str, port: int) -> bool:
    """Whether the site is there, with its certificate."""
    try:
        with connected(address, port, trusting()) as sock:
            _request(sock)
    except (OSError, OperationFailed):
        return False
    return True


def _request(sock: socket.socket) -> None:
    sock.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    data = b""
    while (at := data.find(b"\r\n\r\n")) < 0 or len(data) < at + 4 + ANSWER_BYTES:
        more = sock.recv(8192)
        if not more:
            raise OperationFailed("the site closed the connection")
        data += more
    if not data.startswith(b"HTTP/1.1 200 "):
        raise OperationFailed(f"the answer is {data[:100]!r}")


def serve(host: Host, address: str, port: int) -> Process:
    """A web server without TLS."""
    directory = Path(host.directory)
    with (directory / "body").open("wb") as file:
        file.truncate(BODY_BYTES)
    config = directory / "web.conf"
    config.write_text(
        f"user root;\ndaemon off;\npid {directory}/web.pid;\nerror_log stderr warn;\nworker_processes 1;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; sendfile on; keepalive_requests 100000000;\n"
        f" server {{ listen {address}:{port} backlog=4096; root {directory};\n"
        f'  location = / {{ return 200 "{"x" * ANSWER_BYTES}"; }} }} }}\n'
    )
    return host.start(["nginx", "-c", str(config)], name="web")


def make_certificate(path: Path) -> Path:
    """Of the same kind as Caddy's own: ECDSA with P-256. The key is in the file, too."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
