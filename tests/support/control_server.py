"""A coordinator of the tests' own: real TLS on loopback, the real sessions, and answers that a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Self

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.support.waiting import until
from warren.errors import MalformedPacket
from warren.identity.signing import SigningKey, VerifyKey
from warren.model.documents import Coordinator, NodeRecord
from warren.model.verified import verify
from warren.proto.control import messages
from warren.proto.control.server import ServerSession, State
from warren.proto.control.server_events import (
    AuthenticateWanted,
    Ended,
    EnrolWanted,
    Event,
    LeaveWanted,
    PublishWanted,
    SignalWanted,
)


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, as PEM, and the leaf's DER."""

    pem: bytes
    key_pem: bytes
    der: bytes

    @property
    def sha256(self) -> bytes:
        return hashlib.sha256(self.der).digest()

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_bytes(self.key_pem + self.pem)
            context.load_cert_chain(file.name)
        return context


@functools.cache
def certificate(number: int = 0, *, valid_from: int = -1, ca: bool = False) -> Certificate:
    """Self-made and valid for one day that begins ``valid_from`` days from now; the same again for the same number."""
    return _make(ec.generate_private_key(ec.SECP256R1()), f"number {number}", None, valid_from, ca=ca)


@functools.cache
def certificate_issued_by(issuer: Certificate) -> Certificate:
    return _make(ec.generate_private_key(ec.SECP256R1()), "issued", issuer, -1, ca=False)


def _make(
    key: ec.EllipticCurvePrivateKey, name: str, issuer: Certificate | None, valid_from: int, *, ca: bool
) -> Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer, issuer_name = key, subject
    if issuer is not None:
        loaded = serialization.load_pem_private_key(issuer.key_pem, None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer, issuer_name = loaded, x509.load_der_x509_certificate(issuer.der).subject
    begin = datetime.now(UTC) + timedelta(days=valid_from)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    der = made.public_bytes(serialization.Encoding.DER)
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Certificate(made.public_bytes(pem), key.private_bytes(pem, private, serialization.NoEncryption()), der)


def yes(_event: AuthenticateWanted | EnrolWanted) -> messages.Refused | None:
    """Everybody may come in."""
    return None


@dataclass
class TestCoordinator:
    """Serves while entered. What tests set: how it answers; what tests read: what it was told."""

    __test__ = False

    identity: SigningKey = field(default_factory=lambda: SigningKey(bytes([9]) * 32))
    certificate: Certificate = field(default_factory=certificate)
    statement: bytes | None = None
    """Instead of the right one."""
    stated: bytes | None = None
    """The certificate's SHA-256 in the answer, instead of the right one."""
    decide: Callable[[AuthenticateWanted | EnrolWanted], messages.Refused | None] = yes
    updates: list[messages.Update] = field(default_factory=list)
    """Sent to everybody who is taken."""
    offset_s: float = 0.0
    """Its clock minus the host's."""
    identity_answer: tuple[int, bytes] | None = None
    node_answer: tuple[int, dict[str, str], bytes] | None = None
    """Instead of a WebSocket."""
    subprotocol: str | None = messages.SUBPROTOCOL
    leaves: bool = True
    """Whether Leave is carried out; otherwise it is refused."""
    events: list[Event] = field(default_factory=list)
    sessions: list[tuple[ServerSession, ServerConnection]] = field(default_factory=list)
    identity_requests: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def coordinator(self) -> Coordinator:
        return Coordinator(url=self.url, key=self.identity.verify_key.raw)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, served: Certificate | None = None) -> None:
        """Listen, at the port of before if there was one. ``served``: the certificate, if it is not the own one."""
        self._server: Server = await serve(
            self._node,
            "127.0.0.1",
            self.port,
            ssl=(served or self.certificate).context(),
            process_request=self._request,
            subprotocols=None if self.subprotocol is None else [Subprotocol(self.subprotocol)],
            compression=None,
            max_size=messages.NODE_MESSAGE_BYTES_MAX,
            close_timeout=1,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def kill(self) -> None:
        """What a killed process looks like: connections are reset, nobody listens."""
        for _, connection in self.sessions:
            connection.transport.abort()
        self._server.server.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds."""
        await until(condition)

    def open_sessions(self) -> list[ServerSession]:
        return [session for session, _ in self.sessions if session.state is State.OPEN]

    async def say(self) -> None:
        """Send what tests have put into sessions."""
        for session, connection in self.sessions:
            await _flush(session, connection)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == messages.PATH:
            if self.node_answer is None:
                return None
            status, more, body = self.node_answer
            return Response(status, "", Headers({**more, "Content-Length": str(len(body))}), body)
        self.identity_requests += 1
        if self.identity_answer is not None:
            status, body = self.identity_answer
            return Response(status, "", Headers({"Content-Length": str(len(body))}), body)
        digest = self.certificate.sha256
        statement = self.statement or messages.certificate_statement(self.identity, digest)
        body = msgspec.json.encode(
            {
                "key": str(self.identity.verify_key),
                "certificate_sha256": (self.stated or digest).hex(),
                "statement": statement.hex(),
                "time": datetime.fromtimestamp(time.time() + self.offset_s, UTC),
                "version": "test",
            }
        )
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
        return Response(HTTPStatus.OK, "OK", headers, body)

    async def _node(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        session = ServerSession(
            nonce=bytes([len(self.sessions)]) * 32,
            certificate_sha256=self.certificate.sha256,
            time_s=time.time() + self.offset_s,
            now=loop.time(),
        )
        self.sessions.append((session, connection))
        with contextlib.suppress(ConnectionClosed):
            await _flush(session, connection)
            async for message in connection:
                session.receive(message if isinstance(message, bytes) else message.encode(), loop.time())
                ended = self._answer(session)
                await _flush(session, connection)
                if ended:
                    return
        session.end("the connection was lost")

    def _answer(self, session: ServerSession) -> bool:
        for event in session.take_events():
            self.events.append(event)
            match event:
                case AuthenticateWanted() | EnrolWanted():
                    self._let_in(session, event)
                case PublishWanted(record):
                    with contextlib.suppress(MalformedPacket):
                        document = verify(record, VerifyKey(session.network)).document
                        assert isinstance(document, NodeRecord)
                        session.published(document.version)
                case SignalWanted(to, _):
                    session.undeliverable(to)
                case LeaveWanted() if self.leaves:
                    session.end("left")
                case LeaveWanted():
                    session.refuse("unavailable", "not now", "the database is away", "try again", 1.0)
                case Ended():
                    return True
                case _:
                    pass
        return session.state is State.ENDED

    def _let_in(self, session: ServerSession, event: AuthenticateWanted | EnrolWanted) -> None:
        refused = self.decide(event)
        if refused is not None:
            session.refuse(refused.kind, refused.title, refused.detail, refused.remedy, refused.retry_after_s)
            return
        session.accept(observed="127.0.0.1", time_s=time.time() + self.offset_s)
        for update in self.updates:
            session.update(update)


async def _flush(session: ServerSession, connection: ServerConnection) -> None:
    for message in session.take_transmits():
        await connection.send(message)
