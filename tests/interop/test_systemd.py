"""The service that ``warren install`` makes, under a systemd that runs: the system's, and that of an ordinary user."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.support.overlay import Underlay, pinged
from tests.support.rootless import USER
from tests.support.systemd import PATIENCE_S, SystemdMachine, skip_without_systemd
from warren.lab import Lab
from warren.lab.network import Network

pytestmark = pytest.mark.lab

INTERFACE = "w-home"
UNIT = "/etc/systemd/system/warren.service"
KEPT = "/etc/resolv.conf.before-warren"
PAGE = Path(__file__).parents[2] / "docs" / "coordinator.md"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What the unit of that page hides from the coordinator (systemd.exec(5): ProtectHome, PrivateTmp)."""


@pytest.fixture(scope="module", autouse=True)
def _systemd(lab_privilege: None) -> None:
    skip_without_systemd()


@pytest.mark.timeout(600)
def test_the_agent_is_a_service_of_the_system_and_of_a_user(lab: Lab) -> None:
    underlay = Underlay(lab)
    network, (other,) = underlay.started("other")
    machine = SystemdMachine(underlay.host("machine"))
    try:
        _is_a_service(machine, network, network.address(other))
    finally:
        machine.end()


def _is_a_service(machine: SystemdMachine, network: Network, address: str) -> None:
    _is_refused_while_it_has_nothing_to_do(machine)
    _runs_and_is_healed(machine, network, address)
    _carries_streams_and_leaves_nothing(machine)
    _does_not_repeat_a_mistake_and_goes_away(machine)
    _serves_an_ordinary_user(machine, network)
    _runs_a_coordinator_as_the_page_has_it(machine)


def _is_refused_while_it_has_nothing_to_do(machine: SystemdMachine) -> None:
    refused = machine.run("warren", "install", "--now", check=False)
    assert refused.returncode == 2
    assert "in no network yet" in refused.stderr


def _runs_and_is_healed(machine: SystemdMachine, network: Network, other: str) -> None:
    machine.join(network)
    machine.run("warren", "install", "--now")
    assert machine.run("warren", "status").stdout, "it answers as soon as systemd says that it runs"
    assert pinged(machine.host, [other], wait_s=20) == []
    machine.run("warren", "forward", "127.0.0.1:81", f"[{other}]:22", "--keep")
    first, plane = machine.main(), _data_plane(machine)
    machine.run("kill", "-9", first)
    machine.wait_active(besides=first)
    assert _data_plane(machine) == plane, "packets have gone on all the time"
    machine.run("systemctl", "reload", "warren")
    again = machine.run("warren", "install", "--now").stdout
    assert "is up to date" in again
    assert "it runs already" in again


def _carries_streams_and_leaves_nothing(machine: SystemdMachine) -> None:
    before = machine.main()
    machine.run("systemctl", "restart", "warren")
    assert machine.main() not in {before, "0"}
    machine.host.wait_for(lambda: ":81 " in machine.run("ss", "-Hltn").stdout, PATIENCE_S, what="a low port")
    machine.host.wait_for(lambda: _is_there(machine, KEPT), PATIENCE_S, what="names")
    machine.run("systemctl", "stop", "warren")
    assert INTERFACE not in machine.run("ip", "-brief", "link").stdout
    assert machine.run("pgrep", "-f", "warren[.](engine|l4)", check=False).stdout == ""
    assert not _is_there(machine, KEPT)


def _does_not_repeat_a_mistake_and_goes_away(machine: SystemdMachine) -> None:
    machine.run("sh", "-c", "echo 'engine = 1' >/var/lib/warren/agent.toml")
    assert machine.run("systemctl", "start", "warren", check=False).returncode != 0
    assert (machine.property("ActiveState"), machine.property("NRestarts")) == ("failed", "0")
    machine.run("warren", "install", "--remove")
    assert not _is_there(machine, UNIT)


def _serves_an_ordinary_user(machine: SystemdMachine, network: Network) -> None:
    user = machine.log_in(USER)
    user.join(network)
    assert "enable-linger" in user.run("warren", "install", "--now").stdout
    assert "rootless engine" in user.run("warren", "status").stdout
    first = user.main()
    user.run("kill", "-9", first)
    user.wait_active(besides=first)
    user.run("warren", "install", "--remove")
    assert user.run("pgrep", "-u", USER, "-f", "warren", check=False).stdout == "", "nothing is left"


def _data_plane(machine: SystemdMachine) -> str:
    return machine.run("pgrep", "-f", "warren[.]engine").stdout


def _is_there(machine: SystemdMachine, path: str) -> bool:
    return machine.run("test", "-e", path, check=False).returncode == 0


def _runs_a_coordinator_as_the_page_has_it(machine: SystemdMachine) -> None:
    program = Path(sys.executable).with_name("warren")
    if any(program.is_relative_to(place) for place in HIDDEN):
        return  # a checkout in somebody's home is not where services are started from
    (unit,) = re.findall(r"^```ini\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    unit = unit.replace("/opt/warren/bin/warren", str(program))
    machine.run("sh", "-c", f"printf %s '{unit}' >/etc/systemd/system/warren-coordinator.service")
    machine.run("systemctl", "start", "warren-coordinator")
    machine.host.wait_for(lambda: ":8443 " in machine.run("ss", "-Hltn").stdout, PATIENCE_S, what="a coordinator")
    machine.host.wait_for(lambda: ":443 " in machine.run("ss", "-Hltn").stdout, PATIENCE_S, what="its relay")
    assert "warren login " in machine.run("warren", "coordinator", "token", "create").stdout
    machine.run("systemctl", "stop", "warren-coordinator")
    assert machine.run("systemctl", "is-failed", "warren-coordinator", check=False).stdout.strip() == "inactive"
