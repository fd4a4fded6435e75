"""The data plane as a process: its privileges, its socket, its ends, and what it does when the host is unwell."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest

from tests.support.tunnels import INTERFACE, TunnelEnd, warren_end
from warren.lab import Host, Lab
from warren.lab.traffic import tcp_transfer

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"),
]

LEFT, RIGHT = "10.77.0.1", "10.77.0.2"
COMMAND = [sys.executable, "-m", "warren.engine.userspace", INTERFACE]


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.0.1/24", "10.9.0.2/24")
    return one, two


def connect(left: TunnelEnd, right: TunnelEnd) -> None:
    left.peer(right, "endpoint", "10.9.0.2:51820")
    right.peer(left)


def refused(host: Host, *arguments: str) -> str:
    """Start a data plane that must not start; returns its one line."""
    done = host.run([*COMMAND, *arguments], check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    return line


def test_it_keeps_two_capabilities_and_writes_no_core(lab: Lab) -> None:
    end = warren_end(lab.host("one"), f"{LEFT}/24")
    process = Path(f"/proc/{end.process.pid}")
    fields = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    net_admin_and_bind = (1 << 12) | (1 << 10)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(fields[name], 16) & ~net_admin_and_bind == 0, name
    assert int(fields["CapInh"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"
    limits = (process / "limits").read_text()
    assert next(line for line in limits.splitlines() if "core file" in line).split()[4:6] == ["0", "0"]


def test_its_socket_is_for_the_owner_only(lab: Lab) -> None:
    end = warren_end(lab.host("one"), f"{LEFT}/24")
    root = Path(f"/proc/{end.host.pid}/root")
    assert stat.S_IMODE((root / f"run/wireguard/{INTERFACE}.sock").stat().st_mode) == 0o600


def test_a_second_one_for_the_same_interface_is_refused(lab: Lab) -> None:
    end = warren_end(lab.host("one"), f"{LEFT}/24")
    assert "run by another process already" in refused(end.host)
    assert end.wg("show", INTERFACE, "listen-port").strip() == "51820"


def test_a_name_or_an_mtu_that_the_kernel_refuses_is_one_line(lab: Lab) -> None:
    host = lab.host("one")
    host.ip("link add wg0 type veth peer name other")
    assert "interface wg0" in refused(host)
    host.ip("link del wg0")
    assert "MTU 3" in refused(host, "--mtu", "3")
    assert host.run(["ls", "/sys/class/net", "/run/wireguard"]).stdout.split() == [
        "/run/wireguard:",
        "/sys/class/net:",
        "lo",
    ]


def test_a_stale_socket_is_replaced(lab: Lab) -> None:
    host = lab.host("one")
    first = warren_end(host, f"{LEFT}/24")
    first.process.kill()
    assert host.run(["test", "-S", f"/run/wireguard/{INTERFACE}.sock"], check=False).returncode == 0
    host.wait_for(["sh", "-c", f"! test -e /sys/class/net/{INTERFACE}"])
    process = host.start(COMMAND, name="again")
    host.wait_for(["wg", "show", INTERFACE])
    assert process.stop(30) == 0


def test_it_lives_on_when_its_terminal_goes_away(hosts: tuple[Host, Host]) -> None:
    left, right = (warren_end(host, f"{address}/24") for host, address in zip(hosts, (LEFT, RIGHT), strict=True))
    connect(left, right)
    assert left.ping(RIGHT)
    left.host.run(["kill", "-HUP", str(left.process.pid)])
    assert left.ping(RIGHT, count=3)


def test_killed_and_restarted_it_is_heard_at_once_by_a_peer_that_remembers(hosts: tuple[Host, Host]) -> None:
    state = hosts[0].directory / "state"
    left, right = warren_end(hosts[0], f"{LEFT}/24", state=state), warren_end(hosts[1], f"{RIGHT}/24")
    connect(left, right)
    for _ in range(5):
        assert left.ping(RIGHT)
        left.process.kill()
        left.host.wait_for(["sh", "-c", f"! test -e /sys/class/net/{INTERFACE}"])
        left = warren_end(hosts[0], f"{LEFT}/24", state=state)
        connect(left, right)
    assert left.ping(RIGHT)
    assert right.statistics()["handshake_replayed"] == 0, "no timestamp went back"


def test_a_full_disk_holds_back_handshakes_and_nothing_else(hosts: tuple[Host, Host]) -> None:
    disk = hosts[0].directory / "disk"
    disk.mkdir()
    hosts[0].run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)])
    left = warren_end(hosts[0], f"{LEFT}/24", clock_rate=20, state=disk)
    right = warren_end(hosts[1], f"{RIGHT}/24")
    hosts[0].run(["sh", "-c", f"head -c 1M /dev/zero > {disk}/ballast; true"], check=False)
    connect(left, right)
    assert not left.ping(RIGHT, wait_s=1)
    assert left.statistics()["timestamp_not_durable"] >= 1
    assert right.statistics()["responses_sent"] == 0, "no initiation left whose timestamp was not on disk"
    assert right.ping(LEFT, wait_s=1) is False
    hosts[0].run(["rm", f"{disk}/ballast"])
    # A retransmission is due every five seconds of its clock, a quarter of a second of ours.
    left.host.wait_for(lambda: left.ping(RIGHT, wait_s=1), timeout=60)


def test_two_hundred_times_up_and_down_leave_nothing_behind(hosts: tuple[Host, Host]) -> None:
    left, right = (warren_end(host, f"{address}/24") for host, address in zip(hosts, (LEFT, RIGHT), strict=True))
    connect(left, right)
    assert left.ping(RIGHT)
    fds = Path(f"/proc/{left.process.pid}/fd")
    before = len(list(fds.iterdir()))
    for _ in range(200):
        left.host.ip(f"link set {INTERFACE} down", f"link set {INTERFACE} up")
    left.host.wait_for(["sh", "-c", "ss -uln | grep -q :51820"])
    assert left.ping(RIGHT, wait_s=30)
    left.host.wait_for(lambda: len(list(fds.iterdir())) <= before)  # a connection of wg's may just be closing
    assert len(list(Path(f"/proc/{left.process.pid}/task").iterdir())) == 1


def test_many_segments_and_odd_sizes_cross_whole_with_offloads_off_underneath(lab: Lab) -> None:
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.0.1/24", "10.9.0.2/24", offloads=False)
    left, right = warren_end(one, f"{LEFT}/24"), warren_end(two, f"{RIGHT}/24", mtu=1337)
    connect(left, right)
    for size in (1, 1337, 99_991, 4_000_037):
        assert tcp_transfer(one, two, RIGHT, size).intact
        assert tcp_transfer(two, one, LEFT, size).intact
