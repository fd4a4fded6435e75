"""The doors to the kernel that need an interface: TUN, link watch, capabilities. Each test runs inside one lab host."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Callable

import pytest

from warren.errors import OperationFailed
from warren.lab import Lab
from warren.linux import capabilities
from warren.linux.link import LinkState, LinkWatch
from warren.linux.nft import LibNft
from warren.linux.tun import FRAME_BYTES_MAX, VIRTIO_HEADER_BYTES, Tun


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _packet_leaves_and_enters() -> None:
    tun = Tun.create("tun0")
    ip("address", "add", "10.1.1.1/24", "dev", "tun0")
    ip("link", "set", "tun0", "up")
    ping = subprocess.Popen(["ping", "-c1", "-W30", "10.1.1.2"], stdout=subprocess.PIPE, text=True)
    frame = bytearray(FRAME_BYTES_MAX)
    while True:
        assert select.select([tun], [], [], 30)[0]
        length = tun.read_into(memoryview(frame))
        packet = frame[VIRTIO_HEADER_BYTES:length]
        if packet[0] >> 4 == 4 and packet[9] == 1:
            break
    packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
    packet[20] = 0  # echo reply
    checksum = int.from_bytes(packet[22:24], "big") + 0x0800
    packet[22:24] = ((checksum & 0xFFFF) + (checksum >> 16)).to_bytes(2, "big")
    assert tun.write(memoryview(bytes(VIRTIO_HEADER_BYTES) + packet))
    assert "1 received" in ping.communicate(timeout=40)[0]
    assert not tun.write(memoryview(b"\0" * 12)), "a malformed packet is refused"
    tun.close()
    assert "tun0" not in ip("link")


def _name_is_taken() -> None:
    first = Tun.create("tun0")
    with pytest.raises(OperationFailed, match="interface tun0 exists already"):
        Tun.create("tun0")
    first.close()
    ip("link", "add", "tun0", "type", "veth")
    with pytest.raises(OperationFailed, match="interface tun0"):
        Tun.create("tun0")


def _privilege_is_missing() -> None:
    capabilities.keep_only(frozenset())
    assert capabilities.effective() == frozenset()
    with pytest.raises(OperationFailed, match="run as root or with CAP_NET_ADMIN"):
        Tun.create("tun0")


def _kept_capabilities_stay_across_exec() -> None:
    kept = frozenset({capabilities.CAP_NET_ADMIN, capabilities.CAP_NET_BIND_SERVICE})
    capabilities.keep_only(kept)
    assert capabilities.effective() == kept
    with pytest.raises(PermissionError):
        os.chroot("/")
    status = subprocess.run(["cat", "/proc/self/status"], check=True, capture_output=True, text=True).stdout
    bounds = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd"))
    assert int(bounds, 16) == sum(1 << number for number in kept)
    assert "NoNewPrivs:\t1" in status


def _link_is_followed() -> None:
    tun = Tun.create("tun0")
    watch = LinkWatch("tun0")
    watch.set_mtu(1380)
    assert watch.state() == LinkState(up=False, mtu=1380)
    watch.drain()
    ip("link", "set", "tun0", "up", "mtu", "1300")
    assert select.select([watch], [], [], 30)[0]
    assert watch.state() == LinkState(up=True, mtu=1300)
    watch.drain()
    assert not select.select([watch], [], [], 0)[0]
    ip("address", "add", "10.1.1.1/24", "dev", "tun0")
    assert select.select([watch], [], [], 30)[0], "a new address is noticed"
    watch.limit_segments(45)
    assert "gso_max_segs 45" in ip("-d", "link", "show", "tun0")
    with pytest.raises(OSError, match="Invalid argument"):
        watch.set_mtu(10)
    tun.close()
    assert watch.state() is None
    watch.close()


def _rules_are_put_by_a_process_of_many_descriptors() -> None:
    nft = LibNft()
    many = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]  # more than select(2) knows
    try:
        for number in range(3):
            nft.run([{"add": {"table": {"family": "inet", "name": f"t{number}"}}}])
            assert len(nft.tables()) == number + 1
        with pytest.raises(OperationFailed, match="descriptors are all in use"):
            LibNft().tables()
    finally:
        for descriptor in many:
            os.close(descriptor)


@pytest.mark.parametrize(
    "check",
    [
        _packet_leaves_and_enters,
        _name_is_taken,
        _privilege_is_missing,
        _kept_capabilities_stay_across_exec,
        _link_is_followed,
        _rules_are_put_by_a_process_of_many_descriptors,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_a_door_to_the_kernel(lab: Lab, check: Callable[[], None]) -> None:
    lab.host("host").call(check)


def test_a_name_that_is_too_long_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(OperationFailed, match="1 to 15 bytes"):
        Tun.create("x" * 16)
