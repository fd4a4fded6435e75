"""FTP through the stream process: servers and clients of Debian, all modes, IPv4 and IPv6 on either side."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import combinations, product
from pathlib import Path

import pytest

from tests.support.ftp_clients import BIG, HEAD, TAIL, Mode, Place, files_of, modes, session
from tests.support.ftp_servers import NAMES, PASSWORD, FtpServer, ftp_server, missing
from warren.l4.config import Backend, Config, Entry, Listen, Way
from warren.l4.process import StreamProcess
from warren.model.services import CONNECTOR_PORT

LOOPBACKS = ("127.0.0.1", "::1")
CLIENTS = ("curl", "lftp")
WITHOUT_EPSV = "vsftpd without EPSV"
ALL = (*NAMES, WITHOUT_EPSV)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, CLIENTS)), reason="the Debian packages curl and lftp are not both installed"
)

Key = tuple[str, str, str, int]
"""Server, client's address, server's, helpers."""
Ways = dict[Key, tuple[Place, FtpServer]]

Case = tuple[str, str, Mode, str, str, int]
"""Server, client, mode, the client's loopback address, the server's, and how many helpers there are between them."""


def cases() -> list[Case]:
    """Every server with every client in every mode; the families on the server's side and the numbers of helpers such
    that every two of all these meet.
    """
    first = [
        (server, client, mode, near)
        for server in NAMES
        for client in CLIENTS
        for near in LOOPBACKS
        for mode in modes(client, near)
    ]
    first += [(WITHOUT_EPSV, "curl", mode, "127.0.0.1") for mode in modes("curl", "127.0.0.1")]
    met: set[object] = set()
    found: list[Case] = []
    for one in first:
        candidates: list[Case] = [(*one, far, helpers) for far, helpers in product(LOOPBACKS, (1, 2))]
        found.append(max(candidates, key=lambda case: len(_pairs(case) - met)))
        met |= _pairs(found[-1])
    return found


def _pairs(case: Case) -> set[object]:
    return set(combinations(enumerate(case), 2))


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """All servers, and a stream process with all ways to them."""
    directory = tmp_path_factory.mktemp("ftp")
    run = directory / "run"
    run.mkdir(mode=0o700)
    # So that two test runs on one machine do not listen at one place.
    ours = sha256(str(run).encode()).digest()[0]
    entries: list[Entry] = []
    found: dict[str, tuple[Key, FtpServer]] = {}
    with ExitStack() as stack:
        for number, (name, far) in enumerate(product(ALL, LOOPBACKS), start=1):
            base = name.partition(" ")[0]
            if missing(base) is not None:
                continue
            own = directory / f"server{number}"
            server = stack.enter_context(ftp_server(base, far, own, without_epsv=name == WITHOUT_EPSV))
            service = f"127.{number}.{ours}.1"
            entries.append(_service(f"service {number}", service, server))
            for near, helpers in product(LOOPBACKS, (1, 2)):
                backend = _straight(server) if helpers == 1 else _through(service)
                entries.append(_connector(f"connector {number} {near} {helpers}", near, backend))
                found[entries[-1].id] = (name, near, far, helpers), server
        runner = stack.enter_context(asyncio.Runner())
        process, places = runner.run(_start(run, Config(entries=tuple(entries))))
        try:
            yield {
                key: (Place(key[1], places[entry_id], server.user), server) for entry_id, (key, server) in found.items()
            }
        finally:
            runner.run(_stop(process))


def _service(entry_id: str, address: str, server: FtpServer) -> Entry:
    """As a serving member has it."""
    return Entry(
        id=entry_id,
        kind="ftp",
        listen=tuple(Listen(side="overlay", address=address, port=port) for port in (2121, CONNECTOR_PORT)),
        proxy_in_from=("127.0.0.0/8",),
        way=Way(backends=(_straight(server),)),
    )


def _connector(entry_id: str, near: str, backend: Backend) -> Entry:
    return Entry(id=entry_id, kind="ftp", listen=(Listen(address=near),), way=Way(backends=(backend,)))


def _straight(server: FtpServer) -> Backend:
    return Backend(name=server.name, side="host", host=server.host, port=server.port)


def _through(service: str) -> Backend:
    return Backend(name="service", side="overlay", host=service, port=2121, connector_port=CONNECTOR_PORT)


GONE_S = 40.0


async def _start(run: Path, config: Config) -> tuple[StreamProcess, dict[str, int]]:
    """And the ports that the entries listen at."""
    process = await StreamProcess.attach_or_start(run, nest=None)
    status = await process.configure(config)
    assert [one for one in status.entries if one.state != "listening"] == []
    return process, {one.id: int(one.places[0].rpartition(":")[2]) for one in status.entries}


async def _stop(process: StreamProcess) -> None:
    try:
        async with asyncio.timeout(GONE_S):  # servers take their time to hang up
            while any(one.open for one in (await process.status()).entries):
                await asyncio.sleep(0.05)
        status = await process.status()
    finally:
        await process.close()
        await process.wait_closed()
    refused = sum((Counter(one.refused) for one in status.entries), Counter())
    assert refused in ({}, {"protocol": 1}), [
        one.last_refusal for one in status.entries
    ]  # a client that began with TLS


def test_every_two_of_server_client_mode_families_and_helpers_meet() -> None:
    met = {pair for case in cases() for pair in combinations(enumerate(case), 2)}
    values = [sorted({case[place] for case in cases()}, key=str) for place in range(6)]
    never = {
        ((first, a), (second, b))
        for (first, one), (second, other) in combinations(enumerate(values), 2)
        for a, b in product(one, other)
    } - met
    without_epsv = {pair for pair in never if pair[0] == (0, WITHOUT_EPSV)}
    assert never - without_epsv == {
        ((1, "lftp"), (2, "EPRT")),  # with IPv6 alone, and not on loopback
        ((2, "PASV"), (3, "::1")),
        ((2, "PORT"), (3, "::1")),
    }


@pytest.mark.parametrize(("server", "client", "mode", "near", "far", "helpers"), cases())
def test_files_go_up_and_down_whole(
    ways: Ways, tmp_path: Path, server: str, client: str, mode: Mode, near: str, far: str, helpers: int
) -> None:
    if (server, near, far, helpers) not in ways:
        pytest.skip(missing(server) or "")
    place, running = ways[server, near, far, helpers]
    name = "-".join((client, mode, near.replace(":", "_"), str(helpers)))
    files_of(tmp_path)
    files = session(client, mode, place, name, tmp_path)
    assert (running.root / f"{name}.big").read_bytes() == files.big == files.resumed == BIG
    assert (running.root / f"{name}.empty").read_bytes() == files.empty == b""
    assert (running.root / f"{name}.joined").read_bytes() == HEAD + TAIL
    for line in (f"{len(BIG)}", f"{name}.big", f"{name}.empty", f"{name}.joined"):
        assert line in files.listing


@pytest.mark.parametrize("how", ["closes", "says ABOR", "says ABOR urgently"])
@pytest.mark.parametrize("server", NAMES)
def test_a_client_that_gives_a_transfer_up_can_go_on(ways: Ways, server: str, how: str) -> None:
    key = (server, "127.0.0.1", "127.0.0.1", 2)
    if key not in ways:
        pytest.skip(missing(server) or "")
    place, running = ways[key]
    (running.root / "long").write_bytes(bytes(20_000_000))
    with socket.create_connection((place.host, place.port), timeout=40) as sock, sock.makefile("rb") as lines:

        def hear() -> bytes:
            while (line := lines.readline())[3:4] != b" " or not line[:3].isdigit():
                assert line
            return line

        def say(line: str) -> bytes:
            sock.sendall(line.encode() + b"\r\n")
            return hear()

        hear()
        if say(f"USER {place.user}").startswith(b"331"):
            say(f"PASS {PASSWORD}")
        say("TYPE I")
        with socket.create_connection((place.host, int(say("EPSV").split(b"|")[3]))) as data:
            assert say("RETR long").startswith(b"150")
            data.recv(1000)
            if how != "closes":
                sock.send(b"ABOR\r\n", socket.MSG_OOB if how.endswith("urgently") else 0)
        said = [hear() for _ in range(1 if how == "closes" else 2)]
        assert said[-1][:3] in {b"150", b"225", b"226", b"426"}, said
        assert say("SIZE long") == b"213 20000000\r\n"
        assert say("EPSV").startswith(b"229 ")


@pytest.mark.parametrize(("scheme", "options", "said"), [("ftp", ["--ssl-reqd"], "534"), ("ftps", [], "SSL")])
def test_tls_is_refused_in_words_and_at_once(ways: Ways, scheme: str, options: list[str], said: str) -> None:
    key = ("vsftpd", "127.0.0.1", "127.0.0.1", 1)
    if key not in ways:
        pytest.skip(missing("vsftpd") or "")
    place, _ = ways[key]
    command = ["curl", "-sSv", "--max-time", "40", *options, f"{scheme}://{place.host}:{place.port}/"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode in {35, 64}
    assert said in ran.stderr
