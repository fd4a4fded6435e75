"""Certificates from an ACME authority (RFC 8555): Pebble, which validates through the gateway's own front doors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.support.acme import ENVIRONMENT, MISSING, WITH_US, names_command, pebble_command
from tests.support.ingress import Gateway, eventually, gateway
from tests.support.l4_ends import free_port
from warren.ingress import generation
from warren.ingress.config import Json, configuration

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

CHALLENGE = "/.well-known/acme-challenge/token"


@dataclass
class Authority:
    directory: str
    root: Path
    management: str


def free_ports(count: int) -> list[int]:
    return [free_port() for _ in range(count)]


@contextlib.asynccontextmanager
async def pebble(
    directory: Path, ports: list[int], *, http: int, https: int, valid_s: int | None = None
) -> AsyncIterator[Authority]:
    """An authority that finds every name at 127.0.0.1, and there web servers at these two ports."""
    api, management, dns, unused = ports
    names = f"127.0.0.1:{dns}"
    command, certificate = pebble_command(
        directory, "127.0.0.1", api=api, management=management, dns=names, http=http, https=https, valid_s=valid_s
    )
    commands = [names_command(names, f"127.0.0.1:{unused}", everything="127.0.0.1"), command]
    environment = os.environ | ENVIRONMENT
    with (directory / "pebble.log").open("wb") as log:
        running = [
            await asyncio.create_subprocess_exec(*WITH_US, *command, env=environment, stdout=log, stderr=log)
            for command in commands
        ]
    try:
        await eventually(lambda: listens(api) and listens(management))
        yield Authority(f"https://127.0.0.1:{api}/dir", certificate, f"https://127.0.0.1:{management}")
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                process.kill()
            await process.wait()


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def issuer_of(gate: Gateway, domain: str) -> str:
    """Who made the certificate that clients see; empty when there is none."""
    found = await certificate_of(gate, domain)
    return "" if found is None else found.issuer.rfc4514_string()


async def certificate_of(gate: Gateway, domain: str) -> x509.Certificate | None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", gate.https, ssl=context, server_hostname=domain)
    except OSError:
        return None
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(der)


async def obtain(challenge: str, *, following: bool = False) -> str:
    """The issuer, when only one of the two front doors is where the authority looks. ``following``: another Caddy than
    the doors lead to asks for the certificate, because of a WebSocket.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        api, *more, nowhere = free_ports(5)
        settings = {"acme_directory": f"https://127.0.0.1:{api}/dir", "acme_ca": directory / "api.crt"}
        async with gateway(acme_email="admin@example.org", **settings) as gate:
            plain = gate.site("plain.test", certificate="none")
            await gate.keep([plain])
            http, https = (gate.http, nowhere) if challenge == "http-01" else (nowhere, gate.https)
            async with pebble(directory, [api, *more], http=http, https=https):
                wanted = [plain, gate.site("acme.test", certificate="acme")]
                if following:
                    await websocket(gate, "plain.test")
                    await gate.open_doors(wanted)
                    assert await gate.caddy.keep(wanted) != gate.ports
                    await eventually(lambda: any(gate.settings.storage.glob("certificates/*/acme.test/*.crt")), 60)
                await gate.keep(wanted)
                async with asyncio.timeout(60):
                    while not (issuer := await issuer_of(gate, "acme.test")):
                        await asyncio.sleep(0.05)
                assert gate.caddy.problems() == {}
                return issuer


async def websocket(gate: Gateway, host: str) -> asyncio.StreamWriter:
    """One that stays open."""
    reader, writer = await gate.connect(host, tls=False)
    upgrade = f"GET /upgrade HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    writer.write(f"{upgrade}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return writer


def test_an_earlier_caddy_answers_for_what_the_following_one_asks() -> None:
    async def scene() -> None:
        issuers = await asyncio.gather(obtain("http-01", following=True), obtain("tls-alpn-01", following=True))
        assert ["Pebble" in issuer for issuer in issuers] == [True, True]

    asyncio.run(scene())


def test_a_certificate_comes_by_either_front_door() -> None:
    async def scene() -> None:
        issuers = await asyncio.gather(obtain("http-01"), obtain("tls-alpn-01"))
        assert ["Pebble" in issuer for issuer in issuers] == [True, True]

    asyncio.run(scene())


def test_a_certificate_that_is_not_to_be_had_is_a_problem_of_its_connector() -> None:
    async def scene(directory: Path) -> None:
        api, *more, nowhere = free_ports(5)
        settings = {"acme_directory": f"https://127.0.0.1:{api}/dir", "acme_ca": directory / "api.crt"}
        async with (
            gateway("a.test", **settings) as gate,
            pebble(directory, [api, *more], http=nowhere, https=nowhere),
        ):
            await gate.keep([gate.site("a.test"), gate.site("acme.test", certificate="acme", connector="shop")])
            await eventually(lambda: bool(gate.caddy.problems()))
            assert gate.caddy.problems().keys() == {"shop"}
            said = gate.caddy.problems()["shop"]
            assert said.startswith("no certificate for acme.test: the authority's ")
            assert said.endswith("whose ports 80 and 443 have to be open to everybody")

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory)))


def test_a_certificate_is_renewed_in_time_and_the_old_one_served_on_while_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def often(*arguments: Any) -> Json:
        made = configuration(*arguments)
        automation = made["apps"]["tls"]["automation"]
        automation["renew_interval"] = "500ms"
        for policy in automation["policies"]:
            policy["renewal_window_ratio"] = 0.6
        return made

    monkeypatch.setattr(generation, "configuration", often)

    async def scene(directory: Path) -> None:
        api, *more = free_ports(4)
        settings = {"acme_directory": f"https://127.0.0.1:{api}/dir", "acme_ca": directory / "api.crt"}
        async with gateway(**settings) as gate:
            plain = gate.site("plain.test", certificate="none")
            await gate.keep([plain])
            async with pebble(directory, [api, *more], http=gate.http, https=gate.https, valid_s=5):
                await gate.keep([plain, gate.site("acme.test", certificate="acme")])
                web = await websocket(gate, "plain.test")
                first = await until_other(gate, None)
                second = await until_other(gate, first)
                assert second.not_valid_after_utc > first.not_valid_after_utc
            await eventually(lambda: "acme" in gate.caddy.problems(), 60)
            said = gate.caddy.problems()["acme"]
            assert said.startswith("the certificate for acme.test ")
            assert ", and cannot be renewed: " in said
            assert await certificate_of(gate, "acme.test") is not None
            assert not web.is_closing()
            web.transport.abort()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory)))


async def until_other(gate: Gateway, before: x509.Certificate | None) -> x509.Certificate:
    async with asyncio.timeout(60):
        while (found := await certificate_of(gate, "acme.test")) is None or found == before:
            await asyncio.sleep(0.1)
    return found


def test_what_other_gateways_are_asked_ends_there_and_opens_nothing_else() -> None:
    """The other gateways are this one itself, and one that is gone."""

    async def scene(directory: Path) -> None:
        asked: list[bytes] = []
        async with gateway("a.test", acme_directory="https://127.0.0.1:1/dir") as gate:

            async def lead_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                back, forth = await asyncio.open_connection("127.0.0.1", gate.ports.http)
                forth.write(asked[-1].replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                writer.write(await back.read())
                for one in (forth, writer):
                    one.close()
                    await one.wait_closed()

            others = [directory / name for name in ("gone", "one", "two")]
            servers = [await asyncio.start_unix_server(lead_back, path) for path in others[1:]]
            shared = replace(gate.site("shop.test", certificate="acme"), others=tuple(others))
            await gate.keep([gate.site("a.test"), gate.site("plain.test", certificate="none"), shared])

            async def status(host: str, path: str, *, way: Path | None = None) -> bytes:
                request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
                if way is None:
                    return (await gate.say(host, request, tls=False))[9:12]
                reader, writer = await asyncio.open_unix_connection(way)
                writer.write(request)
                said = await reader.read()
                writer.close()
                await writer.wait_closed()
                return said[9:12]

            assert await status("shop.test", CHALLENGE) == b"404"
            assert [b"X-Warren-Challenge: 1" in one for one in asked] == [True, True]
            assert await status("a.test", CHALLENGE) == await status("shop.test", "/other") == b"308"
            assert await status("plain.test", "/") == b"200"
            assert await status("plain.test", "/", way=others[1]) == b"403"
            for server in servers:
                server.close()
                await server.wait_closed()

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(scene(Path(directory)))
