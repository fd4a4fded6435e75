"""The checks of WireGuard's own network test, as properties of Warren between two lab hosts.

After the kernel's ``tools/testing/selftests/wireguard/netns.sh``: roaming, cryptokey routing, more specific allowed
IPs, sticky source addresses, a NAT that forgets after two seconds. Warren runs on both ends.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from tests.support.tunnels import INTERFACE, TunnelEnd, private_key, readdress, warren_end
from warren.lab import Host, Lab

pytestmark = pytest.mark.skipif(
    shutil.which("wg") is None, reason="the Debian package wireguard-tools is not installed"
)

LEFT, RIGHT = "10.77.0.1", "10.77.0.2"


@pytest.fixture
def pair(lab: Lab) -> tuple[TunnelEnd, TunnelEnd]:
    """Two hosts with a cable between them; each knows the other's endpoint."""
    one, two = lab.host("one"), lab.host("two")
    lab.link(one, two, ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"])
    left, right = warren_end(one, f"{LEFT}/24"), warren_end(two, f"{RIGHT}/24")
    left.peer(right, "endpoint", "10.9.0.2:51820")
    right.peer(left, "endpoint", "10.9.0.1:51820")
    assert left.ping(RIGHT)
    return left, right


def test_a_new_source_address_is_used_when_the_old_one_is_gone(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    assert right.endpoint() == "10.9.0.1:51820"
    readdress(left.host, "10.9.0.1", "10.9.0.10")
    assert left.ping(RIGHT)
    assert right.endpoint() == "10.9.0.10:51820"


def test_answers_leave_from_the_address_that_was_asked(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    left.host.run(["ip", "address", "add", "10.9.0.5/24", "dev", "eth0"])
    for address in ("10.9.0.5", "10.9.0.1", "10.9.0.5"):
        right.set("peer", left.key.public_key().base64, "endpoint", f"{address}:51820")
        assert right.ping(LEFT)
        assert right.endpoint() == f"{address}:51820"


def test_an_address_of_another_interface_is_answered_from_too(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    left.host.run(["ip", "address", "add", "10.50.0.1/32", "dev", "lo"])
    right.host.run(["ip", "route", "add", "10.50.0.0/24", "dev", "eth0"])
    right.set("peer", left.key.public_key().base64, "endpoint", "10.50.0.1:51820")
    assert right.ping(LEFT)
    assert right.endpoint() == "10.50.0.1:51820"


def test_the_outer_family_can_change_during_a_session(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    left.set("peer", right.key.public_key().base64, "endpoint", "[fd09::2]:51820")
    assert left.ping(RIGHT)
    assert right.endpoint() == "[fd09::1]:51820"
    assert right.ping(LEFT)
    assert right.statistics()["handshakes_completed"] == 1, "roaming needs no new handshake"


def test_a_more_specific_allowed_ip_takes_the_address_away(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    stranger = private_key("stranger").public_key().base64
    left.set("peer", right.key.public_key().base64, "allowed-ips", "10.77.0.0/24")
    assert right.ping(LEFT)
    left.set("peer", stranger, "allowed-ips", f"{RIGHT}/32")
    assert not right.ping(LEFT, wait_s=1), "the source belongs to the stranger now"
    assert left.statistics()["inner_spoofed"] >= 1
    left.set("peer", stranger, "remove")
    assert right.ping(LEFT)


def test_a_source_outside_the_allowed_ips_is_dropped(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    right.host.run(["ip", "address", "add", "10.77.0.99/24", "dev", INTERFACE])
    done = right.host.run(["ping", "-c1", "-W1", "-I", "10.77.0.99", LEFT], check=False)
    assert done.returncode == 1
    assert left.statistics()["inner_spoofed"] >= 1
    assert right.ping(LEFT)


def test_a_destination_without_a_peer_goes_nowhere(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, _ = pair
    assert not left.ping("10.77.0.77", wait_s=1)
    assert left.ping(RIGHT)


def test_a_removed_private_key_silences_the_interface(pair: tuple[TunnelEnd, TunnelEnd]) -> None:
    left, right = pair
    left.set("private-key", "/dev/null")
    assert not right.ping(LEFT, wait_s=1)
    assert not left.ping(RIGHT, wait_s=1)


def test_an_interface_that_is_down_answers_nothing_and_comes_back_on_its_port(
    pair: tuple[TunnelEnd, TunnelEnd],
) -> None:
    left, right = pair
    left.host.run(["ip", "link", "set", INTERFACE, "down"])
    left.host.wait_for(["sh", "-c", "! ss -uln | grep -q :51820"], timeout=40)
    assert not right.ping(LEFT, wait_s=1)
    left.host.run(["ip", "link", "set", INTERFACE, "up"])
    left.host.wait_for(["sh", "-c", "ss -uln | grep -q :51820"], timeout=40)
    assert left.ping(RIGHT, wait_s=30)


def forgetful_nat(lab: Lab) -> tuple[Host, Host, Host]:
    """A private host behind a NAT whose mappings last two seconds, and a public one."""
    inside, router, outside = lab.host("inside"), lab.router("router"), lab.host("outside")
    lab.link(inside, router, ["192.168.1.100/24"], ["192.168.1.1/24"], interfaces=("eth0", "lan0"))
    lab.link(router, outside, ["10.0.0.1/24"], ["10.0.0.100/24"], interfaces=("wan0", "eth0"))
    inside.run(["ip", "route", "add", "default", "via", "192.168.1.1"])
    router.masquerade("wan0", udp_timeout_s=2)
    return inside, router, outside


def mapping_expired(router: Host) -> Callable[[], bool]:
    return lambda: "sport=51820" not in router.run(["cat", "/proc/net/nf_conntrack"], check=False).stdout


def test_a_keepalive_holds_a_nat_mapping_of_two_seconds_open(lab: Lab) -> None:
    inside, _, outside = forgetful_nat(lab)
    left, right = warren_end(inside, f"{LEFT}/24"), warren_end(outside, f"{RIGHT}/24")
    right.peer(left)
    left.peer(right, "endpoint", "10.0.0.100:51820", "persistent-keepalive", "1")
    assert left.ping(RIGHT)
    assert right.endpoint().startswith("10.0.0.1:")
    before = left.statistics()["keepalives_sent"]
    inside.wait_for(lambda: left.statistics()["keepalives_sent"] >= before + 4, timeout=90)
    assert right.ping(LEFT), "four seconds later the public end still gets in"
