"""Web sites behind a gateway: the real Caddy, asked by curl and by hand, through the real streams."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import ssl
import stat
import sys
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate
from tests.support.ingress import CLIENT, PATIENCE_S, eventually, gateway, read_all
from warren.errors import OperationFailed, Unreachable
from warren.ingress import process
from warren.ingress.caddy import Caddy
from warren.ingress.sites import door
from warren.l4.config import Name
from warren.linux import processes

pytestmark = pytest.mark.skipif(shutil.which("caddy") is None, reason="the Debian package caddy is not installed")


def test_the_site_is_told_its_clients_address_and_not_caddys() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            said = await gate.curl("https://a.test/x?y=1")
            assert json.loads(said) == {"method": "GET", "target": "/x?y=1", "bytes": 0}
            await gate.curl("https://a.test/other", source="127.0.0.3")
            plain = await gate.say("", b"GET /p HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n", tls=False)
            assert b"200 OK" in plain
            told = [(seen.target, seen.all("x-forwarded-for"), seen.all("x-real-ip")) for seen in gate.web.seen]
            assert told == [
                ("/x?y=1", [CLIENT], [CLIENT]),
                ("/other", ["127.0.0.3"], ["127.0.0.3"]),
                ("/p", [CLIENT], [CLIENT]),
            ]
            assert [seen.all("x-forwarded-proto") for seen in gate.web.seen] == [["https"], ["https"], ["http"]]
            assert gate.web.seen[0].all("x-forwarded-host") == ["a.test"]

    asyncio.run(scene())


def test_clients_of_both_ip_versions_are_told_as_they_are_written() -> None:
    async def scene() -> None:
        async with gateway() as gate:
            gate.address = ""
            await gate.keep([gate.site("plain.test", certificate="none")])
            for address in ("127.0.0.1", "::1"):
                reader, writer = await asyncio.open_connection(address, gate.http)
                writer.write(b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
                await reader.read()
                writer.transport.abort()
            assert [seen.all("x-forwarded-for") for seen in gate.web.seen] == [["127.0.0.1"], ["::1"]]

    asyncio.run(scene())


def test_http_1_1_and_http_2_and_plain_http_leads_to_https() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            shown = "%{http_version} %{http_code}"
            for option, version in (("--http1.1", "1.1"), ("--http2", "2")):
                assert await gate.curl(option, "-o", "/dev/null", "-w", shown, "https://a.test/") == f"{version} 200"
            lead = await gate.say("", b"GET /x?y HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n", tls=False)
            assert lead.startswith(b"HTTP/1.1 308 ")
            assert b"\r\nLocation: https://a.test/x?y\r\n" in lead
            nobody = await gate.say("", b"GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n", tls=False)
            assert nobody.startswith(b"HTTP/1.1 404 ")

    asyncio.run(scene())


def test_large_bodies_arrive_whole_and_unknown_lengths_too() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            body = gate.settings.state / "body"
            body.write_bytes(bytes(range(256)) * (16 << 12))
            for option in ([], ["-H", "Transfer-Encoding: chunked"], ["--http1.1", "-H", "Transfer-Encoding: chunked"]):
                said = await gate.curl(*option, "--data-binary", f"@{body}", "https://a.test/up")
                assert json.loads(said)["bytes"] == 16 << 20
            assert {seen.body == body.read_bytes() for seen in gate.web.seen} == {True}

    asyncio.run(scene())


def test_what_a_site_says_bit_by_bit_comes_bit_by_bit() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            reader, writer = await gate.connect("a.test")
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a.test\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 0\n")
            gate.web.more.set()
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 1\n")
            writer.transport.abort()

    asyncio.run(scene())


@pytest.mark.parametrize("tls", [True, False])
def test_a_websocket_goes_through_both_ways(tls: bool) -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            host = b"a.test" if tls else b"plain.test"
            reader, writer = await gate.connect("a.test", tls=tls)
            writer.write(
                b"GET /upgrade HTTP/1.1\r\nHost: " + host + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
                writer.write(b"\x81\x82frames")
                assert await reader.readexactly(8) == b"\x81\x82frames"
            assert gate.web.seen[0].all("x-forwarded-for") == [CLIENT]
            writer.transport.abort()

    asyncio.run(scene())


def test_a_site_that_does_not_answer_is_a_502_and_others_go_on() -> None:
    async def scene() -> None:
        async with gateway("a.test", "b.test") as gate:
            away = gate.site("b.test")
            away = type(away)("b", away.domains, "internal", gate.settings.state / "nobody.sock")
            await gate.keep([gate.site("a.test"), away])
            assert (await gate.curl("-w", "%{http_code}", "https://b.test/")).endswith("502")
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"

    asyncio.run(scene())


def test_a_program_of_this_host_that_goes_to_caddys_port_is_nobody() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", gate.ports.http)
            writer.write(b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
            assert (await read_all(reader)).startswith(b"HTTP/1.1 403 ")
            writer.close()
            # Nor is who comes in by Caddy's other door, as root could, without a name of ours.
            reader, writer = await asyncio.open_unix_connection(door(gate.lookup.parent, gate.ports.http))
            writer.write(b"GET / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n")
            assert (await read_all(reader)).startswith(b"HTTP/1.1 403 ")
            writer.close()
            assert gate.web.seen == []
            assert stat.S_IMODE(door(gate.lookup.parent, gate.ports.http).stat().st_mode) & 0o077 == 0

    asyncio.run(scene())


def test_a_change_of_the_sites_leaves_downloads_alone() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            reader, writer = await gate.connect("a.test")
            writer.write(b"GET /stream HTTP/1.1\r\nHost: a.test\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 0\n")
            before = gate.ports
            async with asyncio.timeout(PATIENCE_S):
                await gate.keep([gate.site("a.test"), gate.site("b.test")])
            assert gate.ports == before
            await gate.wait_for_certificates("b.test")
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://b.test/")) == "200"
            gate.web.more.set()
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"line 1\n")
            writer.transport.abort()

    asyncio.run(scene())


def test_a_caddy_that_is_killed_comes_back_at_the_same_ports() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            before = gate.ports
            gate.caddy.changed.clear()
            os.kill(gate.caddy.pid or 0, signal.SIGKILL)
            await eventually(lambda: bool(gate.caddy.problems()))
            await eventually(lambda: not gate.caddy.problems())
            assert gate.caddy.ports == before
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"

    asyncio.run(scene())


KEEPER = """
import asyncio, sys
from pathlib import Path
from warren.ingress.caddy import Caddy, Settings, Site

async def main(directory):
    caddy = Caddy(Settings(directory / "s", directory / "r"), directory / "peers.sock")
    site = Site("a", ("a.test",), "internal", directory / "web.sock")
    ports = await caddy.keep([site, Site("plain", ("plain.test",), "none", directory / "web.sock")])
    print(caddy.pid, ports.http, ports.https, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_caddy_and_its_connections_outlive_who_started_it_and_the_next_takes_it_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "warren.caddy")

    async def scene() -> None:
        async with gateway() as gate:
            keeper = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KEEPER, str(gate.web.path.parent), stdout=asyncio.subprocess.PIPE
            )
            assert keeper.stdout is not None
            pid, *ports = map(int, (await keeper.stdout.readline()).split())
            keeper.kill()
            await keeper.wait()
            await gate.keep([gate.site("a.test"), gate.site("plain.test", certificate="none")])
            assert gate.caddy.pid == pid
            assert [gate.ports.http, gate.ports.https] == ports
            await gate.wait_for_certificates("a.test")
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"
            await gate.keep([gate.site("b.test")])
            await eventually(lambda: any("b.test: certificate obtained" in line for line in caplog.messages))
            os.kill(pid, signal.SIGKILL)
            await eventually(lambda: gate.caddy.pid not in {None, pid})

    asyncio.run(scene())


def test_caddy_has_no_capabilities_and_little_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARREN_SECRET", "hunter2")

    async def scene() -> None:
        async with gateway("a.test") as gate:
            process = Path(f"/proc/{gate.caddy.pid}")
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
            assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
            assert status["NoNewPrivs"].strip() == "1"
            assert b"hunter2" not in (process / "environ").read_bytes()
            assert os.getsid(gate.caddy.pid or 0) == gate.caddy.pid

    asyncio.run(scene())


def test_a_first_configuration_that_caddy_does_not_take_leaves_no_caddy() -> None:
    async def scene() -> None:
        async with gateway(acme_ca=Path("/nowhere/root.pem")) as gate:
            with pytest.raises(OperationFailed):
                await gate.caddy.keep([gate.site("b.test", certificate="acme")])
            assert gate.caddy.pid is None
            assert gate.caddy.problems() == {}
            assert list(gate.settings.sockets.glob("*.sock")) == []

    asyncio.run(scene())


def test_who_lets_go_of_caddy_leaves_it_running_with_its_sites() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            pid, caddy = gate.caddy.pid, gate.caddy
            await caddy.let_go()
            await caddy.wait_closed()
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"
            gate.caddy = Caddy(gate.settings, gate.lookup)
            await gate.keep([gate.site("a.test")])
            assert gate.caddy.pid == pid
            await gate.caddy.let_go()
            gate.caddy = Caddy(gate.settings, gate.lookup)
            assert await gate.caddy.keep([]) is None
            assert os.waitpid(pid or 0, os.WNOHANG)[0] == pid, "one that is left from before is ended"

    asyncio.run(scene())


def test_a_caddy_that_hangs_is_replaced() -> None:
    async def scene(patch: pytest.MonkeyPatch) -> None:
        async with gateway("a.test") as gate:
            pid = gate.caddy.pid or 0
            patch.setattr(process, "ANSWER_WITHIN_S", 0.2)
            patch.setattr(processes, "STOP_S", 0.2)
            os.kill(pid, signal.SIGSTOP)
            with pytest.raises(Unreachable, match="Caddy does not answer"):
                await gate.caddy.keep([gate.site("a.test"), gate.site("b.test")])
            patch.undo()
            await eventually(lambda: gate.caddy.pid not in {None, pid} and not gate.caddy.problems())
            await gate.keep([gate.site("a.test"), gate.site("b.test")])
            await gate.wait_for_certificates("b.test")

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(scene(patch))


def test_names_whose_service_ends_tls_itself_share_the_port() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            certificate = make_certificate("pass.test", names=("pass.test",))
            there: list[bytes] = []

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                there.append(await reader.readline())
                writer.write(b"passed\n")
                writer.close()

            context = certificate.server_context(gate.settings.state)
            server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
            port = server.sockets[0].getsockname()[1]
            gate.names = (Name(domain="pass.test", connector="pass", way=gate.way(port)),)
            await gate.keep([gate.site("a.test")])
            trusted = ssl.create_default_context(cadata=certificate.pem)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", gate.https, ssl=trusted, server_hostname="pass.test"
            )
            writer.write(b"hello\n")
            assert await reader.read() == b"passed\n"
            writer.close()
            assert there == [b"hello\n"]
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"
            said = await gate.curl("-k", "https://nobody.test/")
            assert "unrecognized name" in said
            assert gate.state("https").refused["no-backend"] == 1
            server.close()
            await server.wait_closed()

    asyncio.run(scene())


def test_a_configuration_that_caddy_does_not_take_leaves_the_earlier_one() -> None:
    async def scene() -> None:
        async with gateway("a.test", acme_ca=Path("/nowhere/root.pem")) as gate:
            with pytest.raises(OperationFailed, match=r"^Caddy refuses its configuration: .*/nowhere/root\.pem"):
                await gate.caddy.keep([gate.site("a.test"), gate.site("b.test", certificate="acme")])
            assert (await gate.curl("-o", "/dev/null", "-w", "%{http_code}", "https://a.test/")) == "200"
            assert gate.caddy.ports == gate.ports
            await gate.caddy.keep([])
            assert gate.caddy.pid is None
            assert list(gate.settings.sockets.glob("*.sock")) == []

    asyncio.run(scene())
