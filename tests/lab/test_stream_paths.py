"""Streams while the packets below them find another way: relays, a new address, links that lose and delay."""

from __future__ import annotations

import ftplib
import hashlib
import io
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.ftp_servers import FtpServer, missing, prepared
from tests.support.paced import EVERY_S, PacedStream, serve_back
from tests.support.stream_traffic import many_streams, serve_hashes
from tests.support.stream_world import StreamWorld, agent_status, wait
from warren.lab import ImpairedLink, Impairment, Lab
from warren.lab.faults import drop

pytestmark = pytest.mark.timeout(300)
BACK, HASHES, FILES = 7001, 7000, 2121
BAD = Impairment(loss=0.05, delay_s=0.05, jitter_s=0.02)


class PathWorld:
    """A hidden member with services of its own, and with a forward to the gateway; its uplink can be made bad."""

    def __init__(self, lab: Lab) -> None:
        self.world = world = StreamWorld(lab, home=Impairment())
        world.start()
        self.gateway, self.hidden = world.gateways[0], world.hidden
        self.overlay = world.network.address(self.gateway)
        for host, address in ((self.hidden, "127.0.0.1"), (self.gateway, self.overlay)):
            host.begin(serve_back, address, BACK)
            host.begin(serve_hashes, address, HASHES)
        for name, port in (("back", BACK), ("hashes", HASHES)):
            world.service(name, "--at", "member:hidden", "--target", f"127.0.0.1:{port}")
            world.connector(name, "--service", name, "--at", "member:gw1", "--listen", f"*:{port + 200}")
            world.network.warren(self.hidden, "forward", str(port + 100), f"gw1:{port}", "--keep")
        names = ["back", "hashes"]
        self.ftp = self._serve_files(names) if missing("vsftpd") is None else None
        for name in names:
            world.wait_done(self.gateway, f"connector {name}")
            world.wait_done(self.hidden, f"service {name}")

    def _serve_files(self, names: list[str]) -> FtpServer:
        server, commands = prepared("vsftpd", "127.0.0.1", FILES, self.hidden.directory / "ftp")
        for command in commands:
            self.hidden.start(command, name="vsftpd")
        self.world.service("files", "--at", "member:hidden", "--target", f"127.0.0.1:{FILES}", "--helper", "ftp")
        self.world.connector("files", "--service", "files", "--at", "member:gw1", "--listen", f"*:{FILES}")
        names.append("files")
        return server

    def path(self) -> tuple[str, str]:
        """Between the two, and the endpoint."""
        peer = self.world.network.peer(self.gateway, self.hidden)
        return peer["path"], peer["endpoint"]

    def wait_path(self, path: str, address: str = "") -> None:
        def found() -> bool:
            now = self.path()
            return now[0] == path and now[1].startswith(address)

        wait(self.gateway, found, lambda: f"{path} {address}: {self.path()}")

    def carried(self) -> list[tuple[str, int, int]]:
        """Of the entries with the two paced streams: how many there ever were, and how many are open."""
        entries = [*agent_status(self.gateway)["streams"], *agent_status(self.hidden)["streams"]]
        found = {one["id"]: one for one in entries}
        ids = ("home: connector back", "home: service back", f"forward 127.0.0.1:{BACK + 100}")
        return [(name, found[name]["opened"], found[name]["open"]) for name in ids]


def test_streams_go_on_whatever_becomes_of_the_path(lab: Lab) -> None:
    """Two streams that go on from the first to the last."""
    made = PathWorld(lab)
    world, core = made.world, made.world.internet.core
    home, away = world.internet.address("home"), world.internet.address("gw1")
    times: list[float] = []

    def direct_ways_blocked() -> ExitStack:
        blocked = ExitStack()
        for one, other in ((home, away), (away, home)):
            blocked.enter_context(drop(core, source=one, destination=other))
        return blocked

    def see(path: str, address: str = "") -> None:
        """They are carried that way."""
        made.wait_path(path, address)
        for stream in streams:
            stream.wait_flows()
        times.append(time.monotonic())

    with direct_ways_blocked():
        streams = [
            PacedStream(world.visitor, away, BACK + 200, "inwards"),
            PacedStream(made.hidden, "127.0.0.1", BACK + 100, "outwards"),
        ]
        enough = world.visitor.directory / "enough"
        uploading = world.visitor.begin(uploaded, away, FILES, enough) if made.ftp else None
        before = made.carried()
        see("relayed")
    see("direct")
    hundreds_of_streams_arrive_intact_over_a_link_that_loses_and_delays(made)
    times.append(time.monotonic())
    home = world.internet.sites["home"].change_address(5)
    see("direct", home)
    thousands_of_streams_fit_into_one_tunnel(made)
    times.append(time.monotonic())
    with direct_ways_blocked():
        see("relayed")
        assert made.carried() == before == [(name, 1, 1) for name, _, _ in before]
        for stream in streams:
            found = stream.end()
            assert found.error == ""
            assert found.intact
        enough.touch()
        if made.ftp and uploading:
            assert uploading.result(40) == hashlib.sha256((made.ftp.root / "long").read_bytes()).hexdigest()


def uploaded(address: str, port: int, enough: Path) -> str:
    """Store a file by FTP, a little at a time, until ``enough`` is there; its hash. The control connection then still
    answers.
    """
    sent = hashlib.sha256()

    class Blocks(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            time.sleep(EVERY_S)
            block = b"" if enough.exists() else sent.digest() * 50
            sent.update(block)
            return block

    with ftplib.FTP() as ftp:  # noqa: S321
        ftp.connect(address, port, timeout=40)
        ftp.login()
        ftp.storbinary("STOR long", Blocks())
        ftp.voidcmd("NOOP")
    return sent.hexdigest()


def hundreds_of_streams_arrive_intact_over_a_link_that_loses_and_delays(made: PathWorld) -> None:
    world = made.world
    link = world.internet.links["home"]
    assert isinstance(link, ImpairedLink)
    link.set(BAD)
    inwards = world.visitor.begin(many_streams, world.address(made.gateway), HASHES + 200, 100, 5_000, 3)
    outwards = made.hidden.begin(many_streams, "127.0.0.1", HASHES + 100, 100, 5_000, 4)
    for crowd in (inwards.result(90), outwards.result(90)):
        assert crowd.failed == ()
        assert crowd.intact == 100
    link.set(Impairment())


def thousands_of_streams_fit_into_one_tunnel(made: PathWorld) -> None:
    world = made.world
    inwards = world.visitor.begin(many_streams, world.address(made.gateway), HASHES + 200, 2_500, 1_000, 5)
    outwards = made.hidden.begin(many_streams, "127.0.0.1", HASHES + 100, 2_500, 1_000, 6)
    for crowd in (inwards.result(120), outwards.result(120)):
        assert crowd.failed == ()
        assert crowd.intact == 2_500
