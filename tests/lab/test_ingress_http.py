"""Clients that take a gateway's time (slow heads, bodies, readers, many ranges; silence where TLS should begin): others
are served meanwhile.
"""

from __future__ import annotations

import asyncio
import shutil
import socket

import pytest

from tests.support.ingress import Gateway, eventually, gateway
from warren.l4 import peers, sni

pytestmark = pytest.mark.skipif(
    shutil.which("caddy") is None or shutil.which("slowhttptest") is None,
    reason="the Debian packages caddy and slowhttptest are not installed",
)

VISITOR = "127.0.0.9"
ATTACKS = {
    "heads": ["-H", "-i", "1"],
    "bodies": ["-B", "-i", "1", "-s", "8192"],
    "readers": ["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "1"],
    "ranges": ["-R"],
}
ATTACK_S = 4
CONNECTIONS = 300
"""Of each kind: together more than one source may have."""


async def visit(gate: Gateway) -> bool:
    reader, writer = await gate.connect("", tls=False, source=VISITOR)
    writer.write(b"GET /visit HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(30):
        answer = await reader.read()
    writer.transport.abort()
    return answer.startswith(b"HTTP/1.1 200 ")


def test_slow_clients_are_bounded_and_others_are_served() -> None:
    async def scene() -> None:
        async with gateway() as gate:
            await gate.keep([gate.site("localhost", certificate="none")])
            reader, writer = await gate.connect("", tls=False)
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            url = f"http://localhost:{gate.http}/"
            options = ["-c", str(CONNECTIONS), "-r", "300", "-l", str(ATTACK_S), "-u", url]
            attacks = [
                await asyncio.create_subprocess_exec(
                    "slowhttptest", *attack, *options, stdout=asyncio.subprocess.DEVNULL
                )
                for attack in ATTACKS.values()
            ]
            try:
                await eventually(lambda: gate.state("http").refused.get("streams", 0) > 0)
                assert all([await visit(gate) for _ in range(40)])
                others = 8  # the slow head above, the visitor, what has just been accepted
                assert 0 < gate.state("http").open <= peers.PEERS_OF_ONE_SOURCE + others
                for attack in attacks:
                    await attack.wait()
            finally:
                for attack in attacks:
                    if attack.returncode is None:
                        attack.kill()
                        await attack.wait()
            async with asyncio.timeout(40):
                await reader.read()  # a head that does not end is cut off
            writer.transport.abort()
            await eventually(lambda: gate.state("http").open == 0)
            assert len(peers.TABLE) == 0
            assert gate.caddy.problems() == {}

    asyncio.run(scene())


def test_silence_where_tls_should_begin_takes_no_place_of_others() -> None:
    async def scene() -> None:
        async with gateway("a.test") as gate:
            count = sni.WAITING_OF_ONE_SOURCE + 20
            silent = [socket.create_connection(("127.0.0.1", gate.https)) for _ in range(count)]
            try:
                await eventually(lambda: gate.state("https").refused.get("streams", 0) >= 20)
                reader, writer = await gate.connect("a.test", source=VISITOR)
                writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
                async with asyncio.timeout(30):
                    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
                writer.transport.abort()
            finally:
                for sock in silent:
                    sock.close()

    asyncio.run(scene())
