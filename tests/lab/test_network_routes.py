"""A subnet behind a member, as the desired state gives it: reached through the member, by those whom a rule lets."""

from __future__ import annotations

from tests.support.overlay import Underlay, pinged, wait_pinged
from warren.lab import Lab

ALL = """
[[policy]]
action = "allow"
from = ["members"]
to = ["members"]
"""
WITH_ROUTES = f"""\
network = "home"

[members.gate]
routes = ["192.168.7.0/24", "fd77:7::/64"]

[[policy]]
action = "allow"
from = ["member:alice"]
to = ["192.168.7.0/24", "fd77:7::/64"]
protocol = "icmp"
{ALL}"""
WITHOUT = f"""\
network = "home"

[members.gate]
routes = []
{ALL}"""


def test_a_subnet_behind_a_member_is_reached_by_whom_the_policy_lets(lab: Lab) -> None:
    underlay = Underlay(lab)
    network = underlay.network()
    network.start()
    alice, bob, gate = (underlay.host(name) for name in ("alice", "bob", "gate"))
    printer = lab.host("printer")
    lab.link(
        printer,
        gate,
        ["192.168.7.2/24", "fd77:7::2/64"],
        ["192.168.7.1/24", "fd77:7::1/64"],
        interfaces=("eth0", "lan"),
    )
    printer.route("default", via="192.168.7.1")
    printer.route("default", via="fd77:7::1")
    ticket = network.ticket("--uses", "3")
    for host in (alice, bob, gate):
        network.join(host, ticket=ticket)
    state = underlay.server.directory / "home.toml"
    state.write_text(WITH_ROUTES)
    network.warren(underlay.server, "network", "apply", str(state), "--yes")

    def refused() -> list[str]:
        return [task["reason"] for task in network.status(gate)["tasks"] if task["state"] == "failed"]

    gate.wait_for(lambda: any("forward" in reason for reason in refused()), 60)
    gate.sysctl("net.ipv4.ip_forward", 1)
    gate.sysctl("net.ipv6.conf.all.forwarding", 1)
    wait_pinged(alice, "192.168.7.2")
    wait_pinged(alice, "fd77:7::2")
    gate.wait_for(lambda: not refused(), 90)
    assert pinged(bob, ["192.168.7.2", "fd77:7::2"], wait_s=2) == ["192.168.7.2", "fd77:7::2"]
    assert pinged(bob, [network.address(gate)], wait_s=20) == []
    state.write_text(WITHOUT)
    network.warren(underlay.server, "network", "apply", str(state), "--yes")
    alice.wait_for(lambda: "192.168.7.0" not in alice.run(["ip", "route"]).stdout, 60)
    assert pinged(alice, ["192.168.7.2"], wait_s=2) == ["192.168.7.2"]
