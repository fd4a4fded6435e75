"""The stock ``wg`` shows, sets and synchronises a Warren interface."""

from __future__ import annotations

import shutil

import pytest

from tests.support.tunnels import INTERFACE, PSK, TunnelEnd, private_key, secret_file, warren_end
from warren.lab import Lab

pytestmark = pytest.mark.skipif(
    shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"
)

BOB, CAROL = private_key("bob").public_key().base64, private_key("carol").public_key().base64


@pytest.fixture
def end(lab: Lab) -> TunnelEnd:
    return warren_end(lab.host("alice"), "10.77.0.1/24")


def test_show_names_the_key_the_port_and_the_peers(end: TunnelEnd) -> None:
    end.set(
        "peer", BOB, "allowed-ips", "10.77.0.2/32,fd77::/64", "endpoint", "192.0.2.7:1234", "persistent-keepalive", "25"
    )
    shown = end.wg("show", INTERFACE)
    for text in (
        f"public key: {end.key.public_key().base64}",
        "listening port: 51820",
        f"peer: {BOB}",
        "endpoint: 192.0.2.7:1234",
        "allowed ips: 10.77.0.2/32, fd77::/64",
        "persistent keepalive: every 25 seconds",
    ):
        assert text in shown
    assert end.key.base64 not in shown
    assert "interface: wg0" in end.wg("show")
    assert end.wg("show", "interfaces").split() == ["wg0"]


def test_every_setting_is_set_and_read_back(end: TunnelEnd) -> None:
    psk = secret_file(end.host, "psk", PSK.base64)
    end.set(
        "fwmark",
        "0x1234",
        "listen-port",
        "40001",
        "peer",
        BOB,
        "preshared-key",
        str(psk),
        "allowed-ips",
        "0.0.0.0/0,::/0",
    )
    assert end.wg("show", INTERFACE, "fwmark").strip() == "0x1234"
    assert end.wg("show", INTERFACE, "listen-port").strip() == "40001"
    assert end.dump() == [[BOB, PSK.base64, "(none)", "0.0.0.0/0,::/0", "0", "0", "0", "off"]]
    end.set("fwmark", "off", "peer", BOB, "preshared-key", "/dev/null", "allowed-ips", "", "persistent-keepalive", "9")
    assert end.wg("show", INTERFACE, "fwmark").strip() == "off"
    assert end.dump() == [[BOB, "(none)", "(none)", "(none)", "0", "0", "0", "9"]]
    end.set("peer", BOB, "remove")
    assert end.dump() == []


def test_syncconf_changes_only_what_differs(end: TunnelEnd) -> None:
    end.set("peer", BOB, "allowed-ips", "10.77.0.2/32", "endpoint", "192.0.2.7:1234")
    end.set("peer", CAROL, "allowed-ips", "10.77.0.3/32")
    wanted = (
        f"[Interface]\nPrivateKey = {end.key.base64}\nListenPort = 51820\n"
        f"[Peer]\nPublicKey = {BOB}\nAllowedIPs = 10.77.0.0/25\nPersistentKeepalive = 5\n"
    )
    end.wg("syncconf", INTERFACE, str(secret_file(end.host, "sync.conf", wanted)))
    ((*settings, _, _, _, keepalive),) = end.dump()
    assert settings == [BOB, "(none)", "192.0.2.7:1234", "10.77.0.0/25"]
    assert keepalive == "5"


def test_showconf_is_a_config_that_setconf_takes(end: TunnelEnd) -> None:
    end.set("peer", BOB, "allowed-ips", "10.77.0.2/32", "endpoint", "[fd09::2]:1234", "persistent-keepalive", "5")
    text = end.wg("showconf", INTERFACE)
    end.set("peer", BOB, "remove")
    end.wg("setconf", INTERFACE, str(secret_file(end.host, "set.conf", text)))
    assert end.wg("showconf", INTERFACE) == text


def test_keys_of_our_own_are_passed_over(lab: Lab) -> None:
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, "10.9.0.1/24", "10.9.0.2/24")
    left, right = warren_end(one, "10.77.0.1/24"), warren_end(two, "10.77.0.2/24")
    left.peer(right, "endpoint", "10.9.0.2:51820")
    right.peer(left)
    before = left.wg("showconf", INTERFACE)
    assert left.ping("10.77.0.2")
    assert "handshake_rtt_nsec=" in left.host.run(["python3", "-c", _GET]).stdout
    assert left.wg("showconf", INTERFACE) == before
    shown = left.wg("show", INTERFACE)
    assert "latest handshake: " in shown
    assert "transfer: " in shown
    assert "rtt" not in shown
    ((*_, rx, tx, _),) = left.dump()
    assert int(rx) > 0
    assert int(tx) > 0


_GET = (
    "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/wireguard/wg0.sock');"
    "s.sendall(b'get=1\\n\\n'); print(s.recv(65536).decode())"
)


@pytest.mark.logs_errors
def test_a_taken_port_is_an_error_and_changes_nothing(end: TunnelEnd) -> None:
    holder = end.host.start(
        ["python3", "-c", "import socket,signal;s=socket.socket(2,2);s.bind(('',40009));signal.pause()"], name="holder"
    )
    end.host.wait_for(["sh", "-c", "ss -uln | grep -q :40009"], timeout=60)
    done = end.host.run(["wg", "set", INTERFACE, "listen-port", "40009", "peer", BOB], check=False)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert end.wg("show", INTERFACE, "listen-port").strip() == "51820"
    assert end.dump() == []
    holder.stop()


def test_deleting_the_interface_or_the_socket_ends_the_data_plane(lab: Lab) -> None:
    first, second = warren_end(lab.host("one"), "10.77.0.1/24"), warren_end(lab.host("two"), "10.77.0.2/24")
    first.host.run(["ip", "link", "del", INTERFACE])
    assert first.process.wait(timeout=60) == 0
    second.host.run(["rm", f"/run/wireguard/{INTERFACE}.sock"])
    assert second.process.wait(timeout=60) == 0
    for end in (first, second):
        assert end.host.run(["ls", "/sys/class/net", "/run/wireguard"]).stdout.split() == [
            "/run/wireguard:",
            "/sys/class/net:",
            "lo",
        ]


def test_a_malformed_request_is_answered_with_an_errno_and_the_data_plane_lives(end: TunnelEnd) -> None:
    script = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/wireguard/wg0.sock');"
        "s.sendall(b'set=1\\nprivate_key=zz\\n\\nget=1\\n\\n'); print(s.recv(65536).decode())"
    )
    done = end.host.run(["python3", "-c", script])
    assert done.stdout.startswith("errno=-22\n\n")
    assert end.wg("show", INTERFACE, "listen-port").strip() == "51820"


def test_a_request_without_an_end_and_too_many_connections_are_cut_off(end: TunnelEnd) -> None:
    script = (
        "import socket\n"
        "def connect():\n"
        "    s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect('/run/wireguard/wg0.sock'); return s\n"
        "endless = connect()\n"
        "try:\n"
        "    sent = sum(endless.send(b'x' * 65536) for _ in range(1000))\n"
        "except OSError: print('cut off')\n"
        "endless.close()\n"
        "kept, refused = [], 0\n"
        "for _ in range(40):\n"
        "    s = connect(); kept.append(s)\n"
        "    try: s.sendall(b'get=1\\n\\n'); refused += not s.recv(1)\n"
        "    except OSError: refused += 1\n"
        "print(refused)\n"
    )
    assert end.host.run(["python3", "-c", script], timeout=60).stdout.split() == ["cut", "off", "8"]
    assert end.wg("show", INTERFACE, "listen-port").strip() == "51820"
