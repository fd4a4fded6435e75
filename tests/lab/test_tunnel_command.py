"""``warren tunnel`` on two lab hosts: up, adopted, reloaded, restarted, down, and nothing left."""

from __future__ import annotations

import os
import signal
from signal import Signals

import pytest

from tests.support.pings import Answers, counted
from tests.support.tunnel_command import INTERFACE, PATIENCE_S, TunnelCommand, config, private_key, traces
from warren.lab import Host, Lab

A_VALUES = {"Address": "10.99.0.1/24, fd99::1/64", "ListenPort": "51820"}
B_VALUES = {"Address": "10.99.0.2/24, fd99::2/64", "ListenPort": "51820"}
TO_B = {"AllowedIPs": "10.99.0.2/32, fd99::2/128, 10.98.0.0/16", "Endpoint": "[fd09::2]:51820"}
TO_A = {"AllowedIPs": "10.99.0.1, fd99::1"}


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, Host]:
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"])
    return a, b


@pytest.fixture
def ends(hosts: tuple[Host, Host]) -> tuple[TunnelCommand, TunnelCommand]:
    """Two ends whose configs name each other; b runs already, a does not."""
    a = TunnelCommand.on(hosts[0], config("a", A_VALUES, ("b", TO_B)))
    b = TunnelCommand.on(hosts[1], config("b", B_VALUES, ("a", TO_A)))
    b.start()
    return a, b


@pytest.mark.parametrize("stop", [Signals.SIGTERM, Signals.SIGINT])
def test_a_tunnel_carries_both_families_and_leaves_nothing(
    ends: tuple[TunnelCommand, TunnelCommand], stop: Signals
) -> None:
    a, b = ends
    before = traces(a.host)
    a.start()
    for address in ("10.99.0.2", "fd99::2"):
        assert a.ping(address)
    assert b.ping("10.99.0.1", count=20, interval_s=0.01)
    shown = a.host.run(["wg", "show", INTERFACE]).stdout
    assert f"public key: {private_key('a').public_key().base64}" in shown
    assert "endpoint: [fd09::2]:51820" in shown
    links = a.host.run(["ip", "-d", "address", "show", "dev", INTERFACE]).stdout
    assert "inet 10.99.0.1/24 scope global" in links
    assert "inet6 fd99::1/64 scope global" in links
    assert "mtu 1420" in links
    assert "fe80" not in links, "no link-local address, as with the kernel's WireGuard"
    routes = a.host.run(["ip", "route", "show", "dev", INTERFACE]).stdout
    assert "10.98.0.0/16" in routes
    assert "10.99.0.2 " not in routes, "the network of our own address leads there already"
    assert a.stop(stop) == 0
    assert traces(a.host) == before
    assert private_key("a").base64 not in a.running.output()


def test_killing_the_controller_loses_no_packet_and_the_next_one_adopts(
    ends: tuple[TunnelCommand, TunnelCommand],
) -> None:
    a, b = ends
    before = traces(a.host)
    a.start()
    assert a.ping("10.99.0.2")
    pid = a.data_plane_pid()
    pings = b.host.start(["ping", "-n", "-i", "0.02", "-c", "200", "10.99.0.1"], name="pings")
    a.kill()
    a.start(until="took over its data plane, nothing had to be changed")
    assert pings.wait(PATIENCE_S) == 0
    assert counted(pings.output()) == Answers(sent=200, lost=0)
    assert a.data_plane_pid() == pid
    assert a.stop() == 0
    assert traces(a.host) == before


def test_when_both_were_killed_the_next_start_cleans_up(ends: tuple[TunnelCommand, TunnelCommand]) -> None:
    a, b = ends
    a.write(config("a", A_VALUES, ("b", {**TO_B, "AllowedIPs": "0.0.0.0/0, ::/0"})))
    before = traces(a.host)
    a.start()
    pid = a.data_plane_pid()
    a.kill()
    os.kill(pid, signal.SIGKILL)
    a.host.wait_for(lambda: INTERFACE not in a.host.run(["ip", "-br", "link"]).stdout, PATIENCE_S)
    a.start()
    assert a.said("an earlier run ended without cleaning up") == 1
    assert a.ping("10.99.0.2")
    assert a.stop() == 0
    assert traces(a.host) == before
    assert b.stop() == 0


@pytest.mark.logs_errors
def test_a_reload_changes_what_differs_and_sessions_live_on(ends: tuple[TunnelCommand, TunnelCommand]) -> None:
    a, _ = ends
    a.start()
    assert a.ping("10.99.0.2")
    handshake = a.host.run(["wg", "show", INTERFACE, "latest-handshakes"]).stdout
    values = {**A_VALUES, "Address": "10.99.0.1/24, fd99::1/64, 10.97.0.1/32", "MTU": "1400"}
    a.write(config("a", values, ("b", TO_B), ("c", {"AllowedIPs": "10.96.0.0/16"})))
    a.running.signal(Signals.SIGHUP)
    a.wait_said("read again: 4 differences settled")
    assert "10.97.0.1" in a.host.run(["ip", "address", "show", "dev", INTERFACE]).stdout
    assert "mtu 1400" in a.host.run(["ip", "link", "show", "dev", INTERFACE]).stdout
    assert "10.96.0.0/16" in a.host.run(["ip", "route", "show", "dev", INTERFACE]).stdout
    assert handshake.strip() in a.host.run(["wg", "show", INTERFACE, "latest-handshakes"]).stdout
    a.write(config("a", A_VALUES, ("b", TO_B)))
    a.running.signal(Signals.SIGHUP)
    a.wait_said("read again: 3 differences settled")
    assert "10.97.0.1" not in a.host.run(["ip", "address", "show", "dev", INTERFACE]).stdout
    assert "10.96.0.0" not in a.host.run(["ip", "route", "show", "table", "all"]).stdout
    assert a.host.run(["wg", "show", INTERFACE, "latest-handshakes"]).stdout == handshake
    a.path.write_text("[Interface]\nMTU = many\n")
    a.running.signal(Signals.SIGHUP)
    a.wait_said(r'home.conf:2: MTU: "many" is not a number from 68 to 65535; going on with the config as it was')
    assert a.ping("10.99.0.2")
    assert a.host.run(["wg", "show", INTERFACE, "latest-handshakes"]).stdout == handshake
    assert a.stop() == 0


@pytest.mark.logs_errors
def test_a_dead_data_plane_is_replaced(ends: tuple[TunnelCommand, TunnelCommand]) -> None:
    a, _ = ends
    before = traces(a.host)
    a.start()
    assert a.ping("10.99.0.2")
    os.kill(a.data_plane_pid(), signal.SIGKILL)
    a.wait_said("the data plane of home has ended; starting another in 1 s")
    a.wait_said("home is up again")
    a.host.wait_for(lambda: a.ping("10.99.0.2", wait_s=1), PATIENCE_S)
    assert a.stop() == 0
    assert traces(a.host) == before


def test_save_config_writes_what_wg_changed(ends: tuple[TunnelCommand, TunnelCommand]) -> None:
    a, _ = ends
    a.write(config("a", {**A_VALUES, "SaveConfig": "true", "PostUp": "true"}, ("b", TO_B)))
    a.start()
    c = private_key("c").public_key().base64
    a.host.run(["wg", "set", INTERFACE, "listen-port", "1234", "peer", c, "allowed-ips", "10.96.0.0/16"])
    assert a.stop() == 0
    text = a.path.read_text()
    assert "ListenPort = 1234" in text
    assert f"PublicKey = {c}\nAllowedIPs = 10.96.0.0/16" in text
    assert "PostUp = true" in text
    assert a.path.stat().st_mode & 0o777 == 0o600
    a.start()
    assert a.host.run(["wg", "show", INTERFACE, "listen-port"]).stdout.strip() == "1234"


def test_a_name_is_resolved_when_it_can_be_and_its_addresses_are_tried_in_turn(hosts: tuple[Host, Host]) -> None:
    names = hosts[0].directory / "hosts"
    names.write_text("127.0.0.1 localhost\n")
    hosts[0].run(["mount", "--bind", str(names), "/etc/hosts"])
    b = TunnelCommand.on(hosts[1], config("b", B_VALUES, ("a", TO_A)))
    b.start()
    wanted = {**TO_B, "Endpoint": "b.example:51820", "PersistentKeepalive": "1"}
    a = TunnelCommand.on(hosts[0], config("a", {**A_VALUES, "MTU": "1420"}, ("b", wanted)))
    a.start()
    assert a.said(r"b\.example cannot be resolved \(.*\); trying again in 1 s, and on") == 1
    names.write_text("127.0.0.1 localhost\n10.9.0.2 b.example\nfd09::bad b.example\n")
    a.wait_said(r"b\.example can be resolved again")
    a.wait_said(r"trying \[fd09::bad\]:51820")
    a.wait_said(r"trying 10\.9\.0\.2:51820")
    a.host.wait_for(lambda: a.ping("10.99.0.2", wait_s=1), PATIENCE_S)
    assert a.stop() == 0
