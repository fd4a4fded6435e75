"""Warren against Debian's wireguard-go, two hosts in the lab: every behaviour that the two must share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.pings import Answers, counted
from tests.support.tunnels import TunnelEnd, needs_wireguard_go, readdress, warren_end, wireguard_go_end
from warren.lab import Impairment, Lab, Link
from warren.lab.traffic import tcp_transfer

pytestmark = [needs_wireguard_go, pytest.mark.timeout(300)]

WARREN4, GO4, WARREN6, GO6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
OUTER = {"IPv4": ("10.9.0.1", "10.9.0.2"), "IPv6": ("fd09::1", "fd09::2")}
FAMILIES = pytest.mark.parametrize("family", ["IPv4", "IPv6"])
MEGABYTE = 1 << 20

Pair = tuple[TunnelEnd, TunnelEnd, Link]


@pytest.fixture
def make(lab: Lab) -> Callable[..., Pair]:
    """Two connected hosts; Warren on the first, wireguard-go on the second."""

    def pair(impairment: Impairment | None = None, mtu: int = 1420, clock_rate: float = 1.0) -> Pair:
        left, right = lab.host("warren"), lab.host("other")
        link = lab.link(
            left, right, ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"], impairment=impairment
        )
        warren = warren_end(left, f"{WARREN4}/24", f"{WARREN6}/64", mtu=mtu, clock_rate=clock_rate)
        other = wireguard_go_end(right, f"{GO4}/24", f"{GO6}/64", mtu=mtu)
        return warren, other, link

    return pair


def know_each_other(warren: TunnelEnd, other: TunnelEnd, family: str = "IPv4", *, psk: bool = False) -> None:
    """Only Warren knows where the other is."""
    address = OUTER[family][1]
    endpoint = f"[{address}]:51820" if family == "IPv6" else f"{address}:51820"
    warren.peer(other, "endpoint", endpoint, psk=psk)
    other.peer(warren, psk=psk)


@FAMILIES
@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
def test_warren_initiates(make: Callable[..., Pair], family: str, psk: bool) -> None:
    warren, other, _ = make()
    know_each_other(warren, other, family, psk=psk)
    assert warren.ping(GO4)
    assert warren.ping(GO6, size=1300)
    assert other.endpoint() == (f"[{OUTER[family][0]}]:51820" if family == "IPv6" else f"{OUTER[family][0]}:51820")


@FAMILIES
@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
def test_wireguard_go_initiates(make: Callable[..., Pair], family: str, psk: bool) -> None:
    warren, other, _ = make()
    address = OUTER[family][0]
    other.peer(warren, "endpoint", f"[{address}]:51820" if family == "IPv6" else f"{address}:51820", psk=psk)
    warren.peer(other, psk=psk)
    assert other.ping(WARREN4)
    assert other.ping(WARREN6, size=1300)
    assert warren.statistics()["handshakes_completed"] == 1


def test_a_wrong_preshared_key_lets_nothing_through(make: Callable[..., Pair]) -> None:
    warren, other, _ = make()
    know_each_other(warren, other)
    warren.peer(other, psk=True)
    assert not warren.ping(GO4, wait_s=1)
    assert other.handshake_time() == 0 or warren.handshake_time() == 0


@FAMILIES
@pytest.mark.parametrize("towards", ["other", "warren"])
@pytest.mark.parametrize("inner", ["IPv4", "IPv6"])
def test_a_transfer_arrives_whole(make: Callable[..., Pair], family: str, towards: str, inner: str) -> None:
    warren, other, _ = make()
    know_each_other(warren, other, family)
    address = {"warren": {"IPv4": WARREN4, "IPv6": WARREN6}, "other": {"IPv4": GO4, "IPv6": GO6}}[towards][inner]
    sender, receiver = (warren.host, other.host) if towards == "other" else (other.host, warren.host)
    assert warren.ping(GO4)
    assert tcp_transfer(sender, receiver, address, 32 * MEGABYTE).intact


def test_a_persistent_keepalive_opens_and_keeps_the_session(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(clock_rate=20)
    other.peer(warren)
    warren.peer(other, "endpoint", "10.9.0.2:51820", "persistent-keepalive", "25")
    # 25 s are 1.25 s here: several keepalives within the patience of this test
    warren.host.wait_for(lambda: warren.statistics()["keepalives_sent"] >= 3, timeout=60)
    assert int(other.dump()[0][5]) > 148 + 3 * 32 - 1
    assert other.ping(WARREN4)


def test_a_passive_keepalive_answers_one_way_traffic(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(clock_rate=20)
    know_each_other(warren, other)
    assert warren.ping(GO4)
    warren.host.run(
        ["nft", "-f", "-"], input="table inet t { chain i { type filter hook input priority 0; iifname wg0 drop; }; }"
    )
    other.host.run(["ping", "-c", "1", "-W", "1", WARREN4], check=False)
    warren.host.wait_for(lambda: warren.statistics()["keepalives_sent"] >= 1, timeout=60)


def test_hours_of_rekeying_under_traffic_lose_nothing(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(clock_rate=60)
    know_each_other(warren, other)
    # 12 s of pings, 20 a second, are 12 minutes of WireGuard's time on our side: a new session every two
    done = warren.host.run(["ping", "-n", "-i", "0.05", "-c", "240", "-W", "2", GO4], timeout=100)
    assert counted(done.stdout) == Answers(sent=240, lost=0)
    assert warren.statistics()["handshakes_completed"] >= 5


def test_a_transfer_survives_rekeying(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(Impairment(rate_bps=80_000_000, queue_packets=500), clock_rate=60)
    know_each_other(warren, other)
    assert tcp_transfer(warren.host, other.host, GO4, 48 * MEGABYTE, timeout=100).intact
    assert warren.statistics()["handshakes_completed"] >= 2


def test_our_port_roams(make: Callable[..., Pair]) -> None:
    warren, other, _ = make()
    know_each_other(warren, other)
    assert warren.ping(GO4)
    warren.set("listen-port", "40000")
    assert warren.ping(GO4)
    assert other.endpoint() == "10.9.0.1:40000"
    assert other.ping(WARREN4)


def test_our_address_roams(make: Callable[..., Pair]) -> None:
    warren, other, _ = make()
    know_each_other(warren, other)
    assert warren.ping(GO4)
    readdress(warren.host, "10.9.0.1", "10.9.0.7")
    assert warren.ping(GO4)
    assert other.endpoint() == "10.9.0.7:51820"


def test_the_other_roams_in_address_and_port(make: Callable[..., Pair]) -> None:
    warren, other, _ = make()
    know_each_other(warren, other)
    assert warren.ping(GO4)
    readdress(other.host, "10.9.0.2", "10.9.0.8")
    other.set("listen-port", "41000")
    assert other.ping(WARREN4)
    assert warren.endpoint() == "10.9.0.8:41000"
    assert warren.ping(GO4)


@pytest.mark.parametrize(
    "impairment",
    [
        Impairment(loss=0.2, delay_s=0.005),
        Impairment(reorder=0.3, delay_s=0.01),
        Impairment(loss=0.05, duplicate=0.2, delay_s=0.005, jitter_s=0.003),
        Impairment(corrupt=0.02, delay_s=0.005),
    ],
    ids=["20% loss", "30% reordering", "5% loss and 20% duplicates", "2% corruption"],
)
def test_a_bad_link_delays_but_never_damages(make: Callable[..., Pair], impairment: Impairment) -> None:
    warren, other, _ = make(impairment)
    know_each_other(warren, other)
    warren.host.wait_for(["ping", "-c1", "-W1", GO4], timeout=90)
    for sender, receiver, address in ((warren.host, other.host, GO4), (other.host, warren.host, WARREN4)):
        assert tcp_transfer(sender, receiver, address, MEGABYTE, timeout=90).intact


def test_a_small_mtu_crosses_a_black_hole(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(Impairment(mtu_drop=1400), mtu=1280)
    know_each_other(warren, other)
    for sender, receiver, address in ((warren.host, other.host, GO4), (other.host, warren.host, WARREN6)):
        assert tcp_transfer(sender, receiver, address, 4 * MEGABYTE, timeout=90).intact


def test_a_black_hole_below_the_mtu_stops_full_packets_and_nothing_else(make: Callable[..., Pair]) -> None:
    warren, other, _ = make(Impairment(mtu_drop=1400))
    know_each_other(warren, other)
    assert warren.ping(GO4, size=1200)
    assert not warren.ping(GO4, size=1392, wait_s=1)
    for host in (warren.host, other.host):  # what RFC 4821 probing by the host's TCP then recovers
        host.run(["sysctl", "-qw", "net.ipv4.tcp_mtu_probing=2", "net.ipv4.tcp_base_mss=1024"])
    assert tcp_transfer(warren.host, other.host, GO4, MEGABYTE, timeout=100).intact


def test_a_clock_that_once_stood_in_the_future_does_not_lock_the_key_out(lab: Lab) -> None:
    left, right = lab.host("warren"), lab.host("other")
    lab.link(left, right, "10.9.0.1/24", "10.9.0.2/24")
    other = wireguard_go_end(right, f"{GO4}/24")
    remembering, forgetful = left.directory / "state", left.directory / "fresh"
    remembering.mkdir()
    # What a data plane leaves behind that ran while the clock was ten years ahead.
    (remembering / "timestamp-floor").write_text(f"{time.time_ns() + 10 * 365 * 86400 * 10**9}\n")

    def start_and_ping(state: Path) -> bool:
        warren = warren_end(left, f"{WARREN4}/24", state=state)
        know_each_other(warren, other)
        answered = warren.ping(GO4, wait_s=4)
        warren.process.stop()
        return answered

    assert start_and_ping(remembering), "a timestamp from the future is accepted"
    assert not start_and_ping(forgetful), "the attack is real: from the present clock alone there is no way back in"
    assert start_and_ping(remembering), "the floor on disk leads above the last timestamp used"
