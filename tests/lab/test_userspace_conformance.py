"""The userspace engine passes the conformance suite with its real process, TUN and sockets, inside one lab host."""

from __future__ import annotations

import pytest

from tests.support.engine_bench import run_scenario
from tests.support.engine_conformance import SCENARIOS
from tests.support.engine_listening import LISTENING_SCENARIOS
from warren.lab import Lab


@pytest.mark.parametrize("name", [scenario.__name__ for scenario in SCENARIOS + LISTENING_SCENARIOS])
def test_the_userspace_engine_conforms(lab: Lab, name: str) -> None:
    host = lab.host("host")
    host.call(run_scenario, name)
    host.wait_for(lambda: host.run(["sh", "-c", "ls /run/wireguard; ls /sys/class/net"]).stdout.split() == ["lo"])
