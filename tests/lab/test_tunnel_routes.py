"""Routes of ``warren tunnel``: the default-route method and its protection, tables, MTU, DNS and hooks."""

from __future__ import annotations

import pytest

from tests.support.tunnel_command import INTERFACE, PATIENCE_S, TunnelCommand, config, traces
from warren.lab import Host, Lab

A_VALUES = {"Address": "10.99.0.1/24, fd99::1/64"}
EXIT_VALUES = {"Address": "10.99.0.2/24, fd99::2/64", "ListenPort": "51820"}
EVERYWHERE = {"AllowedIPs": "0.0.0.0/0, ::/0", "Endpoint": "10.9.0.2:51820"}


@pytest.fixture
def exit_node(lab: Lab) -> tuple[Host, TunnelCommand, Host]:
    """Three hosts on one LAN: a; an exit with addresses of the world behind it, its tunnel up; and a neighbour."""
    lan = lab.bridge("lan")
    a, exit_host, neighbour = lab.host("a"), lab.host("exit"), lab.host("neighbour")
    for number, host in enumerate((a, exit_host, neighbour), 1):
        lab.attach(host, lan, f"10.9.0.{number}/24", f"fd09::{number}/64")
    exit_host.ip("address add 198.51.100.1/32 dev lo", "address add 2001:db8::1/128 dev lo")
    end = TunnelCommand.on(exit_host, config("exit", EXIT_VALUES, ("a", {"AllowedIPs": "10.99.0.1, fd99::1"})))
    end.start()
    return a, end, neighbour


def test_everything_goes_through_the_tunnel_but_the_tunnel_itself(
    exit_node: tuple[Host, TunnelCommand, Host],
) -> None:
    host, _, _ = exit_node
    before = traces(host)
    a = TunnelCommand.on(host, config("a", A_VALUES, ("exit", EVERYWHERE)))
    a.start()
    for address in ("198.51.100.1", "2001:db8::1", "10.99.0.2"):
        assert a.ping(address)
        assert f"dev {INTERFACE}" in host.run(["ip", "route", "get", address]).stdout
    assert "dev eth0" in host.run(["ip", "route", "get", "10.9.0.2", "mark", "51820"]).stdout
    assert "dev eth0" in host.run(["ip", "route", "get", "10.9.0.3"]).stdout, "the LAN is nearer than the tunnel"
    assert host.run(["wg", "show", INTERFACE, "fwmark"]).stdout.strip() == "0xca6c"
    for family in ("-4", "-6"):
        rules = host.run(["ip", family, "rule"]).stdout.splitlines()
        assert rules[1].split("\t")[1] == "from all lookup main suppress_prefixlength 0"
        assert rules[2].split("\t")[1] == "not from all fwmark 0xca6c lookup 51820"
        assert host.run(["ip", family, "route", "show", "table", "51820"]).stdout.startswith(f"default dev {INTERFACE}")
    assert host.run(["sysctl", "-n", "net.ipv4.conf.all.src_valid_mark"]).stdout == "1\n"
    ruleset = host.run(["nft", "-p", "list", "ruleset"]).stdout
    assert 'iifname != "home" ip daddr 10.99.0.1 fib saddr type != local drop' in ruleset
    assert 'iifname != "home" ip6 daddr fd99::1 fib saddr type != local drop' in ruleset
    assert ruleset.count("meta l4proto 17 meta mark set ct mark") == 2
    assert ruleset.count("meta l4proto 17 meta mark 0x0000ca6c ct mark set meta mark") == 2
    assert a.stop() == 0
    assert traces(host) == before


def test_a_strict_reverse_path_filter_lets_the_tunnel_answer(exit_node: tuple[Host, TunnelCommand, Host]) -> None:
    host, _, _ = exit_node
    host.sysctl("net.ipv4.conf.all.rp_filter", 1)
    host.sysctl("net.ipv4.conf.eth0.rp_filter", 1)
    a = TunnelCommand.on(host, config("a", A_VALUES, ("exit", EVERYWHERE)))
    a.start()
    assert a.ping("198.51.100.1")
    assert a.stop() == 0


def test_a_neighbour_does_not_reach_the_tunnel_address_past_the_tunnel(
    exit_node: tuple[Host, TunnelCommand, Host],
) -> None:
    host, _, neighbour = exit_node
    neighbour.ip("route add 10.99.0.1/32 via 10.9.0.1", "route add fd99::1/128 via fd09::1")
    a = TunnelCommand.on(host, config("a", A_VALUES, ("exit", EVERYWHERE)))
    a.start()
    for address in ("10.9.0.1", "fd09::1"):
        neighbour.wait_for(["ping", "-nq", "-c1", "-W1", address], PATIENCE_S)
    attempts = [["ping", "-nq", "-c2", "-i0.2", "-W1", address] for address in ("10.99.0.1", "fd99::1")]
    assert [neighbour.run(attempt, check=False).returncode for attempt in attempts] == [1, 1]
    host.run(["nft", "flush", "ruleset"])
    for attempt in attempts:  # it was the rules that kept them out
        neighbour.wait_for(attempt, PATIENCE_S)
    assert a.stop() == 0


def test_a_second_tunnel_takes_the_next_free_table(exit_node: tuple[Host, TunnelCommand, Host]) -> None:
    host, _, _ = exit_node
    before = traces(host)
    host.ip("route add blackhole default table 51820")
    host.ip("route add 203.0.113.0/24 dev eth0 table 51820")
    first = TunnelCommand.on(host, config("a", A_VALUES, ("exit", EVERYWHERE)))
    first.start()
    values = {"Address": "10.96.0.1/24", "FwMark": "0x123"}
    second = TunnelCommand.on(host, config("c", values, ("d", {"AllowedIPs": "0.0.0.0/0"})), "other")
    second.start()
    assert host.run(["wg", "show", INTERFACE, "fwmark"]).stdout.strip() == "0xca6d"
    assert host.run(["wg", "show", "other", "fwmark"]).stdout.strip() == "0x123"
    assert second.stop() == 0
    assert host.run(["sysctl", "-n", "net.ipv4.conf.all.src_valid_mark"]).stdout == "1\n", "the first needs it still"
    assert first.ping("198.51.100.1")
    assert first.stop() == 0
    host.ip("route flush table 51820")
    assert traces(host) == before


@pytest.mark.parametrize(("table", "routed"), [("1234", True), ("off", False)])
def test_a_table_of_ones_own_or_none(exit_node: tuple[Host, TunnelCommand, Host], table: str, routed: bool) -> None:
    host, _, _ = exit_node
    a = TunnelCommand.on(host, config("a", {**A_VALUES, "Table": table}, ("exit", EVERYWHERE)))
    rules = host.run(["ip", "rule"]).stdout
    a.start()
    assert ("default" in host.run(["ip", "route", "show", "table", "1234"], check=False).stdout) == routed
    assert host.run(["ip", "rule"]).stdout == rules
    assert host.run(["nft", "-p", "list", "ruleset"]).stdout == ""
    assert a.stop() == 0


def test_the_mtu_follows_the_way_to_the_peer(exit_node: tuple[Host, TunnelCommand, Host]) -> None:
    host, _, _ = exit_node
    host.ip("link set eth0 mtu 1400")
    a = TunnelCommand.on(host, config("a", A_VALUES, ("exit", EVERYWHERE)))
    a.start()
    assert "mtu 1320" in host.run(["ip", "link", "show", "dev", INTERFACE]).stdout
    assert a.stop() == 0


def test_name_servers_are_handed_to_resolvconf_and_taken_back(exit_node: tuple[Host, TunnelCommand, Host]) -> None:
    host, _, _ = exit_node
    programs = host.directory / "bin"
    programs.mkdir()
    said = host.directory / "said"
    program = programs / "resolvconf"
    program.write_text(f'#!/bin/sh\necho "$*" >> {said}\n[ "$1" = -d ] || cat >> {said}\n')
    program.chmod(0o755)
    a = TunnelCommand.on(host, config("a", {**A_VALUES, "DNS": "10.99.0.2, lan, fd99::2"}, ("exit", EVERYWHERE)))
    a.start({"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"})
    up = f"-a {INTERFACE} -m 0 -x\nnameserver 10.99.0.2\nnameserver fd99::2\nsearch lan\n"
    assert said.read_text() == up
    assert a.stop() == 0
    assert said.read_text() == f"{up}-d {INTERFACE} -f\n"


def test_hooks_run_with_the_interface_in_its_state(exit_node: tuple[Host, TunnelCommand, Host]) -> None:
    host, _, _ = exit_node
    said = host.directory / "said"
    state = "$(ip link show dev %i >/dev/null 2>&1 && echo %i)"
    hooks = {name: f"echo {name} {state} >> {said}" for name in ("PreUp", "PostUp", "PreDown", "PostDown")}
    a = TunnelCommand.on(host, config("a", {**A_VALUES, **hooks}, ("exit", EVERYWHERE)))
    a.start()
    assert a.stop() == 0
    assert said.read_text() == "PreUp\nPostUp home\nPreDown home\nPostDown\n"
