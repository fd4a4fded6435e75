"""Knowing a coordinator by its key, over real TLS on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.support.control_server import TestCoordinator, certificate, certificate_issued_by
from warren.api import trust
from warren.api.node_connection import Doors
from warren.api.trust import Trusted, clock_sentence, establish_trust, pinned_context
from warren.errors import OperationFailed, Unreachable
from warren.identity.signing import SigningKey
from warren.model.documents import Coordinator
from warren.proto.control.messages import certificate_statement

OTHER = SigningKey(bytes([8]) * 32)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(coordinator: TestCoordinator) -> Trusted:
    return await establish_trust([coordinator.url], coordinator.identity.verify_key)


@contextlib.asynccontextmanager
async def somebody(handler: Handler) -> AsyncIterator[str]:
    """Who listens on a TCP port and does as ``handler`` does; gives its URL."""
    running: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handler(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.append(asyncio.ensure_future(handle(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with server:
        try:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            await asyncio.gather(*running)


async def ask_socket(handler: Handler) -> Trusted:
    """Ask somebody on a TCP port who does as ``handler`` does."""
    async with somebody(handler) as url:
        return await establish_trust([url], OTHER.verify_key)


def test_the_right_coordinator_is_trusted_and_its_clock_known() -> None:
    async def run() -> None:
        async with TestCoordinator(offset_s=3600) as coordinator:
            trusted = await ask(coordinator)
            assert (trusted.url, trusted.certificate_sha256) == (coordinator.url, coordinator.certificate.sha256)
            assert trusted.offset_s == pytest.approx(3600, abs=15)
            assert "hours" not in clock_sentence(trusted.offset_s)
            assert "60 minutes behind" in clock_sentence(trusted.offset_s)

    asyncio.run(run())


@pytest.mark.parametrize("valid_from", [-10, 10])
def test_the_certificate_may_have_ended_or_not_begun(valid_from: int) -> None:
    """A host's clock may stand anywhere, and the identity key is what counts."""

    async def run() -> None:
        async with TestCoordinator(certificate=certificate(valid_from=valid_from)) as coordinator:
            trusted = await ask(coordinator)
            await connect(coordinator.port, trusted.context)

    asyncio.run(run())


async def connect(port: int, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="any.example")
    writer.close()
    await writer.wait_closed()


def test_a_pinned_context_takes_one_certificate_and_no_other() -> None:
    async def run() -> None:
        async with TestCoordinator(certificate=certificate(1)) as coordinator:
            await connect(coordinator.port, pinned_context([certificate(1).der]))
            await connect(coordinator.port, pinned_context([certificate(2).der, certificate(1).der]))
            for context in (pinned_context([certificate(2).der]), pinned_context([])):
                with pytest.raises(ssl.SSLCertVerificationError):
                    await connect(coordinator.port, context)

    asyncio.run(run())


def test_a_coordinator_with_another_key_is_another_coordinator() -> None:
    async def run() -> None:
        async with TestCoordinator() as coordinator:
            with pytest.raises(OperationFailed, match="is another coordinator: its identity key is") as caught:
                await establish_trust([coordinator.url], OTHER.verify_key)
            assert OTHER.verify_key.short in str(caught.value)

    asyncio.run(run())


def test_a_proxy_that_opens_tls_is_named_as_such() -> None:
    """It passes the coordinator's true answer on, but shows a certificate of its own."""

    async def run() -> None:
        coordinator = TestCoordinator(certificate=certificate(1))
        await coordinator.start(served=certificate(2))
        try:
            with pytest.raises(OperationFailed, match="an intercepting proxy"):
                await ask(coordinator)
        finally:
            await coordinator.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    "statement",
    [
        bytes(64),
        certificate_statement(OTHER, certificate().sha256),
        certificate_statement(SigningKey(bytes([9]) * 32), bytes(32)),
    ],
    ids=["zeros", "another coordinator's", "another certificate's"],
)
def test_a_statement_that_does_not_hold_is_no_proof(statement: bytes) -> None:
    async def run() -> None:
        async with TestCoordinator(statement=statement) as coordinator:
            with pytest.raises(OperationFailed, match="does not prove"):
                await ask(coordinator)

    asyncio.run(run())


def test_a_proxy_cannot_state_its_own_certificate() -> None:
    """Neither by naming it beside the coordinator's true statement, nor by the coordinator's name for its own key."""

    async def run() -> None:
        true = certificate_statement(SigningKey(bytes([9]) * 32), certificate(1).sha256)
        coordinator = TestCoordinator(certificate=certificate(1), stated=certificate(2).sha256, statement=true)
        await coordinator.start(served=certificate(2))
        try:
            with pytest.raises(OperationFailed, match="does not prove"):
                await ask(coordinator)
        finally:
            await coordinator.stop()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, b"", "is not a Warren coordinator: it answers HTTP status 404"),
        (200, b"<html>", "its answer is not a coordinator's"),
        (200, b"{}", "its answer is not a coordinator's"),
        (200, b"[" * 10_000, "its answer is not a coordinator's"),
        (200, b'{"key": 1}', "its answer is not a coordinator's"),
        (200, b"x" * 100_000, "its answer is too long"),
    ],
)
def test_other_answers_are_no_coordinator_s(status: int, body: bytes, sentence: str) -> None:
    async def run() -> None:
        async with TestCoordinator(identity_answer=(status, body)) as coordinator:
            with pytest.raises(OperationFailed, match=re.escape(sentence)):
                await ask(coordinator)

    asyncio.run(run())


def test_a_coordinator_that_is_not_ready_is_unreachable() -> None:
    async def run() -> None:
        async with TestCoordinator(identity_answer=(503, b"")) as coordinator:
            with pytest.raises(Unreachable, match="not available now"):
                await ask(coordinator)

    asyncio.run(run())


def test_plain_http_is_named_as_such() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(OperationFailed, match="answers without TLS"):
        asyncio.run(ask_socket(plain))


def test_who_hangs_up_is_unreachable() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)

    with pytest.raises((Unreachable, OperationFailed), match=r"cannot be reached|handshake"):
        asyncio.run(ask_socket(hang_up))


def test_who_says_nothing_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    monkeypatch.setattr(trust, "ANSWER_WITHIN_S", 0.2)
    with pytest.raises(Unreachable, match="does not answer within"):
        asyncio.run(ask_socket(silent))


def test_a_port_where_nobody_listens_is_unreachable() -> None:
    async def run() -> None:
        coordinator = TestCoordinator()
        await coordinator.start()
        await coordinator.stop()
        with pytest.raises(Unreachable, match=r"cannot be reached \(.*refused"):
            await ask(coordinator)

    asyncio.run(run())


def test_what_to_do_is_said_once_for_several_addresses() -> None:
    with pytest.raises(Unreachable) as caught:
        asyncio.run(establish_trust(["https://a.invalid", "https://b.invalid"], OTHER.verify_key))
    assert str(caught.value).count("is the coordinator running") == 1
    assert re.match(r"https://a\.invalid .* and https://b\.invalid ", str(caught.value))


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(Unreachable, match=r"nowhere\.invalid"):
        asyncio.run(establish_trust(["https://nowhere.invalid"], OTHER.verify_key))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "127.0.0.1:8443",
        "",
        "https://",
        "https://:8443",
        "https://127.0.0.1:99999",
        "https://127.0.0.1:abc",
        "https://[::1",
        "https://[::zz]",
        "https://a..b",
        "https://\0",
        "https://a\x1b[31m",
        "https://" + "a" * 64,
    ],
)
def test_what_is_no_address_is_refused_untouched(url: str) -> None:
    """Also in a link, which outlives a document with such an address in it."""
    with pytest.raises(OperationFailed, match="is no coordinator's address") as caught:
        asyncio.run(establish_trust([url], OTHER.verify_key))
    assert str(caught.value).isprintable()
    with pytest.raises(OperationFailed, match="is no coordinator's address"):
        asyncio.run(Doors(time.time).open(Coordinator(url=url, key=bytes(32))))


def test_without_any_address_nothing_can_be_reached() -> None:
    with pytest.raises(Unreachable, match="no coordinator's address"):
        asyncio.run(establish_trust([], OTHER.verify_key))


def test_one_right_address_among_wrong_ones_is_enough() -> None:
    async def run() -> None:
        async with TestCoordinator() as right, TestCoordinator(identity=OTHER) as wrong:
            trusted = await establish_trust(["https://127.0.0.1:1", wrong.url, right.url], right.identity.verify_key)
            assert trusted.url == right.url

    asyncio.run(run())


def test_when_all_fail_each_is_named() -> None:
    async def run() -> None:
        async with TestCoordinator(identity=OTHER) as wrong:
            with pytest.raises(OperationFailed, match=r"another coordinator.*cannot be reached"):
                await establish_trust([wrong.url, "https://127.0.0.1:1"], TestCoordinator().identity.verify_key)

    asyncio.run(run())


def test_an_address_that_hangs_costs_half_a_second_only() -> None:
    async def run() -> float:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)

        async with somebody(silent) as hanging, TestCoordinator() as right:
            began = time.monotonic()
            trusted = await establish_trust([hanging, right.url], right.identity.verify_key)
            assert trusted.url == right.url
            return time.monotonic() - began

    assert asyncio.run(run()) < trust.ANSWER_WITHIN_S


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [
        (0, None),
        (119, None),
        (-119, None),
        (150, "2 minutes behind"),
        (-4 * 3600, "4 hours ahead of"),
        (3 * 86_400, "3 days behind"),
        (56 * 365 * 86_400, "56 years behind"),
    ],
)
def test_a_clock_far_off_is_named(offset_s: float, words: str | None) -> None:
    sentence = clock_sentence(offset_s)
    assert sentence == "" if words is None else words in sentence


def test_an_issued_certificate_is_not_the_pinned_one() -> None:
    """Pinning one that may issue others (CA:TRUE) lets OpenSSL take those too: connections compare the leaf itself."""

    async def run() -> None:
        issuer = certificate(3, ca=True)
        coordinator = TestCoordinator(certificate=issuer)
        await coordinator.start(served=certificate_issued_by(issuer))
        try:
            await connect(coordinator.port, pinned_context([issuer.der]))
        finally:
            await coordinator.stop()

    asyncio.run(run())
