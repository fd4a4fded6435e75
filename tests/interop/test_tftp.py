"""TFTP through two helpers in a row, as a connector and a service are: tftpd-hpa, its client, and curl."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from warren.l4.config import Backend, Config, Entry, Listen, Way
from warren.l4.process import StreamProcess

PROGRAMS = ("in.tftpd", "tftp", "curl")
MISSING = [program for program in PROGRAMS if shutil.which(program) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.getuid() != 0, reason="tftpd-hpa runs as root only"),
]
VERSIONS = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
PATIENCE_S = 30.0


class Through(NamedTuple):
    """Client, connector, service, server: where the client speaks to, and where the server has its files."""

    host: str
    port: int
    files: Path

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tftp://{host}:{self.port}/"


async def run(*command: str, cwd: Path | None = None) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode or 0, said.decode(errors="replace")


@asynccontextmanager
async def tftpd(address: str, files: Path) -> AsyncIterator[int]:
    """The real server; its port."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as chosen:
        chosen.bind((address, 0))
        port = chosen.getsockname()[1]
    version, place = ("-6", f"[{address}]:{port}") if ":" in address else ("-4", f"{address}:{port}")
    process = await asyncio.create_subprocess_exec(
        "in.tftpd", "-L", version, "-a", place, "-u", "root", "-c", "-s", str(files), start_new_session=True
    )
    try:
        await listening(address, port)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # with those that serve a transfer
        await process.wait()


async def listening(address: str, port: int) -> None:
    """Wait until somebody has the port: until then the kernel says that nobody has."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with socket.socket(family, socket.SOCK_DGRAM) as asking:
                asking.connect((address, port))
                asking.send(b"\0\5\0\0\0")  # an error, which nobody answers
                try:
                    asking.send(b"\0\5\0\0\0")
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    return


@asynccontextmanager
async def two_helpers(address: str, files: Path) -> AsyncIterator[Through]:
    async with tftpd(address, files) as port:
        processes: list[StreamProcess] = []  # two, as on two nodes: what one listens on is no target of its own
        try:
            for name in ("service", "connector"):
                backend = Backend(name=name, side="host", host=address, port=port)
                listen = Listen(protocol="udp", address=address)
                entry = Entry(id=name, kind="tftp", listen=(listen,), way=Way(backends=(backend,)))
                run = files / f"{name}.run"
                run.mkdir(mode=0o700)
                processes.append(await StreamProcess.attach_or_start(run, nest=None))
                status = await processes[-1].configure(Config(entries=(entry,)))
                port = int(status.entries[-1].places[0].rpartition(":")[2])
            yield Through(address, port, files)
            for process in processes:
                assert [entry.refused for entry in (await process.status()).entries] == [{}]
        finally:
            for process in processes:
                await process.close()


def carried(address: str, files: Path, test: Callable[[Through], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with two_helpers(address, files) as through:
            await test(through)

    files.chmod(0o777)
    asyncio.run(whole())


@VERSIONS
@pytest.mark.parametrize("block", [512, 1428, 16_384])
def test_curl_gets_and_puts(tmp_path: Path, address: str, block: int) -> None:
    content = random.Random(block).randbytes(300_000)

    async def test(through: Through) -> None:
        (through.files / "boot.img").write_bytes(content)
        options = ("-sS", "--tftp-blksize", str(block))
        got = tmp_path / "got"
        assert await run("curl", *options, "-o", str(got), through.url + "boot.img") == (0, "")
        assert got.read_bytes() == content
        assert await run("curl", *options, "-T", str(got), through.url + "put.img") == (0, "")
        assert (through.files / "put.img").read_bytes() == content

    carried(address, tmp_path, test)


@VERSIONS
def test_a_client_that_keeps_its_port_gets_file_after_file(tmp_path: Path, address: str) -> None:
    contents = {name: random.Random(name).randbytes(50_000) for name in ("a", "b", "c")}
    here = tmp_path / "here"
    here.mkdir()

    async def test(through: Through) -> None:
        for name, content in contents.items():
            (through.files / name).write_bytes(content)
        status, said = await run(
            "tftp", through.host, str(through.port), "-m", "binary", "-c", "get", *contents, cwd=here
        )
        assert status == 0, said
        assert {name: (here / name).read_bytes() for name in contents} == contents
        status, said = await run(
            "tftp", through.host, str(through.port), "-m", "binary", "-c", "put", "a", "d", cwd=here
        )
        assert status == 0, said
        assert (through.files / "d").read_bytes() == contents["a"]

    carried(address, tmp_path, test)


def test_what_the_server_refuses_is_told(tmp_path: Path) -> None:
    async def test(through: Through) -> None:
        status, said = await run("curl", "-sS", through.url + "nothing")
        assert status == 68, said  # curl(1): file not found on the TFTP server

    carried("127.0.0.1", tmp_path, test)
