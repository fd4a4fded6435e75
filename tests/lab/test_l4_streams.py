"""The stream process between hosts: a thousand streams, limits measured from outside, a real PROXY receiver."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.l4_crowd import crowd, echo_server, hold, never_read, try_often
from warren.l4.config import Backend, Config, Entry, EntryState, Limits, Listen, Way
from warren.l4.process import StreamProcess
from warren.lab import Host, Lab

ONE, TWO, SERVER = "10.9.1.2", "10.9.2.2", "10.9.3.2"
TARGET_PORT, NGINX_PORT = 9001, 9002
MEGABYTE = 1 << 20


class Scene:
    """Two clients, a host that forwards, a server that echoes."""

    def __init__(self, lab: Lab) -> None:
        self.one, self.two, self.server = lab.host("one"), lab.host("two"), lab.host("server")
        self.middle = lab.host("middle")
        for number, host in enumerate((self.one, self.two, self.server), 1):
            ends = (f"eth{number}", "eth0")
            lab.link(self.middle, host, f"10.9.{number}.1/24", f"10.9.{number}.2/24", interfaces=ends)
            host.route("default", via=f"10.9.{number}.1")
        self.serving = self.server.begin(echo_server, SERVER, TARGET_PORT)
        self.wait_listening(self.server, TARGET_PORT)
        self.run = Path(self.middle.directory)
        self.process = self.middle.start([sys.executable, "-m", "warren.l4", "--run", str(self.run)], name="streams")
        self.middle.wait_for((self.run / "streams.sock").exists)

    def wait_listening(self, host: Host, port: int) -> None:
        host.wait_for(["sh", "-c", f"ss -ltn | grep -q ':{port} '"])

    def configure(self, *entries: Entry) -> tuple[EntryState, ...]:
        return self.middle.call(configure, self.run, Config(entries=entries))

    def status(self) -> tuple[EntryState, ...]:
        return self.middle.call(configure, self.run, None)

    def memory_kib(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/status").read_text().split("VmRSS:")[1].split()[0])

    def wait_ended(self, count: int) -> EntryState:
        self.middle.wait_for(lambda: self.status()[0].opened >= count and self.status()[0].open == 0, 60)
        return self.status()[0]


def configure(run: Path, config: Config | None) -> tuple[EntryState, ...]:
    async def ask() -> tuple[EntryState, ...]:
        process = await StreamProcess.attach_or_start(run, nest=None)
        status = await (process.status() if config is None else process.configure(config))
        await process.detach()
        return status.entries

    return asyncio.run(ask())


def forward(port: int = TARGET_PORT, *, limits: Limits = Limits(), proxy_out: bool = False) -> Entry:  # noqa: B008
    backend = Backend(name="server", side="host", host=SERVER, port=port, proxy_out=proxy_out)
    return Entry(id="forward 9000", listen=(Listen(port=9000),), limits=limits, way=Way(backends=(backend,)))


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    made = Scene(lab)
    yield made
    made.serving.cancel()
    assert made.process.stop(60) == 0


def test_a_thousand_streams_at_once_from_two_clients_do_not_lose_or_mix_a_byte(scene: Scene) -> None:
    scene.configure(forward())
    before = scene.memory_kib()
    others = scene.two.begin(crowd, "10.9.2.1", 9000, 500, 30_000)
    assert scene.one.call(crowd, "10.9.1.1", 9000, 500, 30_000, timeout=90) == {"right": 500}
    assert others.result(90) == {"right": 500}
    state = scene.wait_ended(1000)
    assert (state.opened, state.refused) == (1000, {})
    assert state.bytes_in == state.bytes_out == 2 * sum(30_000 + seed for seed in range(500))
    assert (scene.memory_kib() - before) / 1000 < 20


def test_limits_are_as_measured_from_outside(scene: Scene) -> None:
    scene.configure(forward(limits=Limits(rate=2, sources=("10.9.1.0/24", "10.9.2.0/24"))))
    began = time.monotonic()
    first = scene.one.call(try_often, "10.9.1.1", 9000, 60)
    took = time.monotonic() - began
    assert 20 <= first <= 20 + 2 * took + 1, "a burst of ten seconds' worth, then two a second"
    assert scene.two.call(try_often, "10.9.2.1", 9000, 20) == 20, "another source has its own"
    assert scene.server.call(try_often, "10.9.3.1", 9000, 3) == 0, "it is not in the list"
    refused = scene.status()[0].refused
    assert refused == {"rate": 60 - first, "source": 3}


def test_one_host_cannot_take_all_streams_and_leaves_some_to_others(scene: Scene) -> None:
    scene.configure(forward(limits=Limits(streams_max=40)))
    held = scene.one.begin(hold, "10.9.1.1", 9000, 60)
    scene.middle.wait_for(lambda: scene.status()[0].refused.get("streams", 0) == 60 - 32)
    assert scene.status()[0].open == 32
    assert "10.9.1.2 has 32 of 40 places" in scene.status()[0].last_refusal
    assert scene.one.call(try_often, "10.9.1.1", 9000, 3) == 0
    assert scene.two.call(try_often, "10.9.2.1", 9000, 20) == 20
    others = scene.two.begin(hold, "10.9.2.1", 9000, 20)
    scene.middle.wait_for(lambda: scene.status()[0].open == 38)
    for one in (held, others):
        one.cancel()
    scene.middle.wait_for(lambda: scene.status()[0].open == 0)
    assert scene.one.call(try_often, "10.9.1.1", 9000, 3) == 3


def test_readers_that_never_read_cost_little_and_keep_nobody_waiting(scene: Scene) -> None:
    scene.configure(forward())
    before = scene.memory_kib()
    stuck = scene.two.begin(never_read, "10.9.2.1", 9000, 4, 0.3)
    assert scene.one.call(crowd, "10.9.1.1", 9000, 20, 100_000, timeout=90) == {"right": 20}
    assert stuck.result(90) > 0
    assert scene.memory_kib() - before < 20 * 1024
    scene.wait_ended(24)


NGINX = f"""
daemon off; master_process off; error_log stderr warn; pid nginx.pid;
events {{}}
http {{
  access_log off;
  server {{
    listen {SERVER}:{NGINX_PORT} proxy_protocol;
    return 200 "$proxy_protocol_addr $proxy_protocol_server_addr $proxy_protocol_server_port";
  }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="not installed: nginx")
def test_nginx_reads_who_the_client_is(scene: Scene) -> None:
    config = Path(scene.server.directory, "nginx.conf")
    config.write_text(NGINX)
    nginx = scene.server.start(["nginx", "-c", str(config), "-p", str(scene.server.directory)])
    scene.wait_listening(scene.server, NGINX_PORT)
    scene.configure(forward(NGINX_PORT, proxy_out=True))
    for host, place in ((scene.one, "10.9.1"), (scene.two, "10.9.2")):
        said = host.run(["curl", "-sS", "-m", "10", f"http://{place}.1:9000/"]).stdout
        assert said == f"{place}.2 {place}.1 9000"
    nginx.stop()
