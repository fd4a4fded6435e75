"""FTP across hosts: a client, a gateway with a connector, a home with the service, and a stranger beside the client."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.ftp_clients import BIG, Mode, Place, files_of, session
from tests.support.ftp_servers import missing, prepared
from warren.l4.config import Backend, Config, Entry, EntryState, Listen, Way
from warren.l4.process import StreamProcess
from warren.lab import Host, Lab
from warren.model.services import CONNECTOR_PORT, DATA_PORTS

pytestmark = [
    pytest.mark.skipif(missing("vsftpd") is not None, reason="the Debian package vsftpd is not there"),
    pytest.mark.skipif(
        shutil.which("lftp") is None or shutil.which("curl") is None,
        reason="the Debian packages curl and lftp are not both installed",
    ),
]

GATEWAY4, GATEWAY6, SERVICE = "10.1.0.1", "fd01::1", "fd77::2"
CLIENT4, STRANGER4 = "10.1.0.2", "10.1.0.3"
PORT, SERVER_PORT = 2121, 2100
PATIENCE_S = 40.0
# What a policy for the service lets through, and nothing in the other direction.
HOME_FILTER = f"""
table inet rules {{
    chain input {{
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iif lo accept
        icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
        tcp dport {{ {PORT}, {DATA_PORTS[0]}-{CONNECTOR_PORT} }} accept
    }}
    chain output {{
        type filter hook output priority 0; policy accept;
        oif eth0 ct state new meta l4proto tcp drop
    }}
}}
"""


class Scene(NamedTuple):
    lab: Lab
    client: Host
    stranger: Host
    gateway: Host
    directory: Path
    root: Path
    runner: asyncio.Runner
    processes: list[StreamProcess]

    def refused(self) -> list[EntryState]:
        """How the gateway's entry and the home's stand."""
        return [self.runner.run(process.status()).entries[0] for process in self.processes]


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    client, stranger, gateway, home = map(lab.host, ("client", "stranger", "gateway", "home"))
    lan = lab.bridge("lan")
    lab.attach(client, lan, f"{CLIENT4}/24", "fd01::2/64")
    lab.attach(stranger, lan, f"{STRANGER4}/24", "fd01::3/64")
    lab.attach(gateway, lan, f"{GATEWAY4}/24", f"{GATEWAY6}/64")
    lab.link(gateway, home, "fd77::1/64", f"{SERVICE}/64", interfaces=("eth1", "eth0"))
    home.nft(HOME_FILTER)
    server, (command,) = prepared("vsftpd", "127.0.0.1", SERVER_PORT, tmp_path / "server")
    home.start(command)
    connector = Entry(
        id="connector",
        kind="ftp",
        listen=(Listen(port=PORT),),
        way=Way(
            backends=(Backend(name="home", side="overlay", host=SERVICE, port=PORT, connector_port=CONNECTOR_PORT),)
        ),
    )
    service = Entry(
        id="service",
        kind="ftp",
        listen=tuple(Listen(side="overlay", address=SERVICE, port=port) for port in (PORT, CONNECTOR_PORT)),
        proxy_in_from=("fd77::/64",),
        way=Way(backends=(Backend(name="vsftpd", side="host", host="127.0.0.1", port=SERVER_PORT),)),
    )
    with asyncio.Runner() as runner:
        processes = []
        for host, entry in ((gateway, connector), (home, service)):
            run = tmp_path / host.name
            run.mkdir(mode=0o700)
            started = host.start([sys.executable, "-m", "warren.l4", "--run", str(run)], name="streams")
            host.wait_for((run / "streams.sock").exists)
            process = runner.run(StreamProcess.attach_or_start(run, nest=None))
            assert process.pid == started.pid
            assert runner.run(process.configure(Config(entries=(entry,)))).entries[0].state == "listening"
            processes.append(process)
        home.wait_for(lambda: home.run(["curl", "-s", f"ftp://127.0.0.1:{SERVER_PORT}"], check=False).returncode == 0)
        yield Scene(lab, client, stranger, gateway, tmp_path, server.root, runner, processes)
        for process in processes:
            runner.run(process.close())


@contextmanager
def control(host: Host, to: str = GATEWAY4) -> Iterator[Callable[[str], str]]:
    """A control connection of somebody logged in, as a function that says a line and gives the reply to it."""
    with connected(host, to, PORT) as sock, sock.makefile("rb") as lines:

        def hear() -> str:
            line = lines.readline().decode()
            return line if line[3:4] != "-" else hear()

        def say(line: str) -> str:
            sock.sendall(line.encode() + b"\r\n")
            return hear()

        assert hear().startswith("220 ")
        assert say("USER anonymous").startswith("230 ")
        yield say


def connected(host: Host, to: str, port: int) -> socket.socket:
    sock = host.socket(socket.AF_INET6 if ":" in to else socket.AF_INET)
    sock.settimeout(PATIENCE_S)
    try:
        sock.connect((to, port))
    except OSError:
        sock.close()
        raise
    return sock


def listening(host: Host) -> socket.socket:
    sock = host.socket()
    sock.setblocking(False)
    sock.bind((STRANGER4, 0))
    sock.listen()
    return sock


def test_files_go_up_and_down_through_connector_and_service(scene: Scene) -> None:
    def run(command: Sequence[str], directory: Path) -> None:
        inside = ["env", "--chdir", str(directory), f"HOME={directory}", *command]
        scene.client.run(inside)

    rounds: list[tuple[str, Mode, str]] = [
        ("lftp", "EPRT", GATEWAY6),
        ("lftp", "PASV", GATEWAY4),
        ("curl", "PORT", GATEWAY4),
        ("curl", "EPSV", GATEWAY6),
    ]
    for client, mode, host in rounds:
        directory = scene.directory / f"{client}-{mode}"
        directory.mkdir()
        files_of(directory)
        files = session(client, mode, Place(host, PORT, "anonymous"), mode, directory, run)
        assert (scene.root / f"{mode}.big").read_bytes() == files.big == files.resumed == BIG
    assert [state.refused for state in scene.refused()] == [{}, {}]


def test_who_else_is_there_can_neither_take_a_data_connection_nor_be_made_to_get_one(scene: Scene) -> None:
    with control(scene.client) as say:
        port = int(say("EPSV").split("|")[3])
        with pytest.raises(ConnectionResetError), connected(scene.stranger, GATEWAY4, port) as stranger:
            stranger.recv(1)
        with listening(scene.stranger) as victim:
            numbers = ",".join(map(str, (*map(int, STRANGER4.split(".")), *divmod(victim.getsockname()[1], 256))))
            assert say(f"PORT {numbers}").startswith("504 ")
            assert say(f"EPRT |1|{STRANGER4}|{victim.getsockname()[1]}|").startswith("504 ")
            with connected(scene.client, GATEWAY4, port) as data:
                assert say("LIST").startswith("150 ")
                assert data.recv(4096) == b""  # of an empty directory
            with pytest.raises(BlockingIOError):
                victim.accept()
    gateway, home = scene.refused()
    assert gateway.refused == {"source": 1, "protocol": 2}
    assert home.refused == {}


def test_the_service_has_data_ports_only_while_one_is_wanted(scene: Scene) -> None:
    """Whoever may use the service may connect to them, but nobody is there."""

    def is_open(port: int) -> bool:
        with scene.gateway.socket(socket.AF_INET6) as sock:
            return sock.connect_ex((SERVICE, port)) == 0

    with control(scene.gateway, SERVICE) as say:
        first = int(say("EPSV").split("|")[3])
        second = int(say("EPSV").split("|")[3])
        assert all(DATA_PORTS[0] <= port <= DATA_PORTS[1] for port in (first, second))
        assert not is_open(first)
        with connected(scene.gateway, SERVICE, second) as data:
            assert say("LIST").startswith("150 ")
            assert data.recv(4096) == b""
        assert not is_open(second)
