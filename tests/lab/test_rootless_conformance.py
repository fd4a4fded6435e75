"""The rootless engine passes the conformance suite: TUN in a nest, UDP in the host's network, sockets by the helper."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_bench import run_scenario
from tests.support.engine_conformance import SCENARIOS
from tests.support.engine_listening import LISTENING_SCENARIOS
from warren.engine.rootless.nest import Nest
from warren.lab import Host, Lab
from warren.linux.netlink_values import Link


def start(run: Path) -> int:
    async def leave_running() -> int:
        nest = await Nest.start(run)
        await nest.let_go()
        return nest.pid

    return asyncio.run(leave_running())


def links(run: Path) -> tuple[Link, ...]:
    async def ask() -> tuple[Link, ...]:
        nest = await Nest.attach(run)
        try:
            return await nest.netlink.links()
        finally:
            await nest.let_go()

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def host(lab_privilege: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host, one nest, for all scenarios: each leaves nothing behind."""
    with Lab(name="test", seed=1, artifacts=tmp_path_factory.mktemp("rootless")) as lab:
        host = lab.host("host")
        pid = host.call(start, host.directory / "run")
        yield host
        os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("name", [scenario.__name__ for scenario in SCENARIOS + LISTENING_SCENARIOS])
def test_the_rootless_engine_conforms(host: Host, name: str) -> None:
    run = host.directory / "run"
    host.call(run_scenario, name, run)
    # The kernel takes an interface away a moment after its process has ended.
    host.wait_for(lambda: [link.name for link in host.call(links, run)] == ["lo"])
    assert host.run(["sh", "-c", f"ls {run}/wireguard /run/wireguard /sys/class/net"]).stdout.split() == [
        "/run/wireguard:",
        "/sys/class/net:",
        "lo",
        f"{run}/wireguard:",
    ]
