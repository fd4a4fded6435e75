"""What stands in the way of ``warren tunnel`` is one line with the remedy, its exit status, and nothing left behind."""

from __future__ import annotations

import json
import re
import stat

import pytest

from tests.support.tunnel_command import INTERFACE, TunnelCommand, config, traces
from warren.lab import Host, Lab

VALUES = {"Address": "10.99.0.1/24", "ListenPort": "51820"}
PEER = ("b", {"AllowedIPs": "10.99.0.2/32"})


@pytest.fixture
def host(lab: Lab) -> Host:
    host = lab.host("h")
    host.ip("link add eth0 type veth peer name eth1", "link set eth0 up", "address add 192.0.2.1/24 dev eth0")
    return host


def _refused(command: TunnelCommand, status: int, message: str, *more: str, prefix: tuple[str, ...] = ()) -> None:
    before = traces(command.host)
    ended, output = command.run(*more, prefix=prefix)
    lines = [line for line in output.splitlines() if line.startswith("warren: ")]
    assert ended == status, output
    assert len(lines) == 1, output
    assert re.fullmatch(f"warren: {message}", lines[0]), output
    assert "Traceback" not in output
    assert traces(command.host) == before


@pytest.mark.parametrize(
    ("values", "status", "message"),
    [
        (
            {"Address": "10.9.0.1/33"},
            2,
            r'.*home\.conf:3: Address: "10\.9\.0\.1/33" is not an address; write it .*',
        ),
        ({"Address": "192.0.2.1/32"}, 1, r"address 192\.0\.2\.1 is in use on eth0; choose another Address or .*"),
        ({"Table": "nowhere"}, 1, 'Table: no routing table is named "nowhere"; give its number, or add a line .*'),
        (
            {"PreUp": "false"},
            1,
            r"PreUp: `false` ended with status 1; correct the command or remove it from .*",
        ),
        ({"PostUp": "kill -9 $$"}, 1, r"PostUp: `kill -9 \$\$` was ended by SIGKILL; correct the command .*"),
    ],
    ids=["malformed", "address in use", "unknown table", "PreUp", "PostUp"],
)
def test_a_config_that_does_not_fit_the_host(host: Host, values: dict[str, str], status: int, message: str) -> None:
    _refused(TunnelCommand.on(host, config("a", {**VALUES, **values}, PEER)), status, message)


def test_dns_without_anything_that_takes_it(host: Host) -> None:
    command = TunnelCommand.on(host, config("a", {**VALUES, "DNS": "10.99.0.2"}, PEER))
    bare = ("env", "PATH=/nonexistent")
    _refused(command, 1, "DNS is in the config, but neither resolvconf nor systemd-resolved is here .*", prefix=bare)


def test_a_missing_config_and_a_directory(host: Host) -> None:
    command = TunnelCommand.on(host, "")
    command.path.unlink()
    _refused(command, 1, r".*home\.conf does not exist; give the path of a wg-quick config, or NAME for .*")
    command.path.mkdir()
    _refused(command, 1, r".*home\.conf is a directory; give the path of a wg-quick config")


def test_a_taken_name(host: Host) -> None:
    host.ip("link add home type bridge")
    remedy = r"remove it \(`ip link del home`\) or choose another --name"
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    _refused(command, 1, rf"interface home \(bridge\) exists already and is not ours; {remedy}")


def test_a_taken_port(host: Host) -> None:
    other = host.start(["python3", "-c", _TAKE_PORT])
    host.wait_for(["sh", "-c", "ss -lun | grep -q :51820"])
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    _refused(command, 1, r"UDP port 51820 is taken; choose another ListenPort, or see `ss -lunp sport = 51820` for .*")
    other.stop()


_TAKE_PORT = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 51820)); time.sleep(100)"


def test_no_privilege(host: Host) -> None:
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    message = r"a tunnel needs the right to configure networks \(CAP_NET_ADMIN\); run as root, e.g. with sudo"
    _refused(command, 1, message, prefix=without)


def test_no_tun_device(host: Host) -> None:
    host.run(["mount", "-t", "tmpfs", "none", "/dev/net"])
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    _refused(command, 1, "/dev/net/tun is missing; run `modprobe tun`, or give the container that device")


def test_ipv6_that_is_switched_off(host: Host) -> None:
    for which in ("all", "default"):
        host.sysctl(f"net.ipv6.conf.{which}.disable_ipv6", 1)
    command = TunnelCommand.on(host, config("a", {**VALUES, "Address": "fd99::1/64"}, PEER))
    _refused(command, 1, "adding the address fd99::1/64 on home is refused: IPv6 is switched off here; .*")


def test_a_second_controller_and_another_program(host: Host) -> None:
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    command.start()
    pid = command.running.pid
    _refused(command, 1, f"home is run by process {pid} already; stop it, or send it SIGHUP to reload")
    assert command.stop() == 0


def test_another_wireguard_program(host: Host) -> None:
    if host.run(["sh", "-c", "command -v wireguard-go"], check=False).returncode:
        pytest.skip("the Debian package wireguard-go is not installed")
    other = host.start(["wireguard-go", "-f", INTERFACE])
    host.wait_for(["test", "-S", f"/run/wireguard/{INTERFACE}.sock"])
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    _refused(command, 1, "interface home is run by another WireGuard program; stop it, or choose another --name")
    other.stop()


def test_loose_permissions_are_a_warning(host: Host) -> None:
    command = TunnelCommand.on(host, config("a", VALUES, PEER))
    command.path.chmod(0o644)
    command.start()
    assert command.said("warning .*home.conf holds a private key and is open to other users; run `chmod 600 ") == 1
    assert command.stop() == 0
    assert stat.S_IMODE(command.path.stat().st_mode) == 0o644


def test_log_lines_as_json(host: Host) -> None:
    command = TunnelCommand.on(host, config("a", {**VALUES, "PostUp": "exit 7"}, PEER))
    status, output = command.run("--json")
    entries = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert status == 1
    assert entries[-1]["level"] == "error"
    assert entries[-1]["message"].startswith("PostUp: `exit 7` ended with status 7")
    assert {"time", "level", "part", "message"} == set(entries[0])
