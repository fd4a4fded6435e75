"""One config, by Debian's wg-quick with wireguard-go and by ``warren tunnel``: the host ends up the same."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support.tunnel_command import TunnelCommand, config
from warren.lab import Host, Lab

pytestmark = pytest.mark.skipif(
    not shutil.which("wg-quick") or not shutil.which("wireguard-go"),
    reason="the Debian packages wireguard-tools and wireguard-go are not installed",
)

PEERS = [("b", {"AllowedIPs": "10.98.0.0/16, 10.99.0.2/32", "Endpoint": "10.9.0.2:51820", "PersistentKeepalive": "25"})]
EVERYWHERE = [("b", {"AllowedIPs": "0.0.0.0/0, ::/0", "Endpoint": "[fd09::2]:51820"})]
BASE = {"ListenPort": "51821"}
CASES = {
    "both families": (BASE | {"Address": "10.99.0.1/24, fd99::1/64"}, PEERS),
    "lone addresses": (
        BASE | {"Address": "10.99.0.1, fd99::1"},
        [("b", {"AllowedIPs": "10.99.0.1, fd99::1, fd99::2"})],
    ),
    "several peers": (
        BASE | {"Address": "10.99.0.1/32", "MTU": "1380"},
        [*PEERS, ("c", {"AllowedIPs": "10.97.0.7/16, fd97::/48"}), ("d", {"AllowedIPs": "10.97.1.0/24"})],
    ),
    "default route": (BASE | {"Address": "10.99.0.1/24, fd99::1/64"}, EVERYWHERE),
    "IPv4 default route": (BASE | {"Address": "10.99.0.1/24"}, [("b", {"AllowedIPs": "0.0.0.0/0, 10.1.0.0/16"})]),
    "default route with a mark": (BASE | {"Address": "10.99.0.1/24", "FwMark": "0x77"}, EVERYWHERE),
    "default route in halves": (BASE | {"Address": "10.99.0.1/24"}, [("b", {"AllowedIPs": "0.0.0.0/1, 128.0.0.0/1"})]),
    "table by number": (BASE | {"Address": "10.99.0.1/24, fd99::1/64", "Table": "1234"}, EVERYWHERE),
    "table off": (BASE | {"Address": "10.99.0.1/24, fd99::1/64", "Table": "off", "FwMark": "7"}, EVERYWHERE),
}


@pytest.mark.parametrize("case", CASES)
def test_the_host_ends_up_the_same(lab: Lab, case: str) -> None:
    values, peers = CASES[case]
    text = config("a", values, *peers)
    ours, theirs = lab.host("ours"), lab.host("theirs")
    for host in (ours, theirs):
        host.ip("link add eth0 mtu 1480 type veth peer name eth1", "link set eth0 up", "link set eth1 up")
        host.ip("address add 10.9.0.1/24 dev eth0", "address add fd09::1/64 dev eth0 nodad")
    a = TunnelCommand.on(ours, text)
    a.start()
    reference = TunnelCommand.on(theirs, text)
    theirs.run(["wg-quick", "up", str(reference.path)])
    assert _state(ours) == _state(theirs)
    theirs.run(["wg-quick", "down", str(reference.path)])
    assert a.stop() == 0
    settings = "net.ipv4.conf.all.src_valid_mark"
    theirs.sysctl(settings, 0)  # wg-quick leaves it behind
    assert _state(ours) == _state(theirs)


def _state(host: Host) -> dict[str, list[str]]:
    """What there is, without names and marks of origin."""
    commands = {
        "addresses": "ip -o address show dev home scope global | tr -s ' ' | cut -d' ' -f 3,4",
        "link": "ip -o link show dev home | grep -o 'mtu [0-9]*'",
        "rules": "ip -4 rule; ip -6 rule",
        "routes": "ip -4 route show table all; ip -6 route show table all",
        "nft": "nft -s list ruleset",
        "wg": "wg showconf home",
        "settings": "sysctl net.ipv4.conf.all.src_valid_mark",
    }
    state = {}
    for name, command in commands.items():
        lines = host.run(["sh", "-c", command], check=False).stdout.splitlines()
        state[name] = sorted(_normal(line) for line in lines if not _is_link_local(line))
    return state


def _normal(line: str) -> str:
    return re.sub(r"(wg-quick|warren)-| proto static", "", " ".join(line.split()))


def _is_link_local(line: str) -> bool:
    # wireguard-go's interface gets an address of its own choice, ours (like the kernel's WireGuard) has none.
    return "fe80::" in line or line.startswith("multicast")
