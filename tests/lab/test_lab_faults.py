"""Faults on routers: they do what they say, in the direction they say, until they are mended."""

from __future__ import annotations

import re
import select
import socket
import time
from ipaddress import ip_address

import pytest

from tests.lab.test_lab_sites import SILENT_S, asked, serve
from warren.errors import UsageError
from warren.lab import Host, Lab
from warren.lab.faults import black_hole, drop, forge_icmp
from warren.lab.icmp import IcmpError, Kind
from warren.lab.site import Internet, Site

pytestmark = pytest.mark.lab


@pytest.fixture
def internet(lab: Lab) -> Internet:
    return Internet(lab)


@pytest.fixture
def server(internet: Internet) -> Host:
    made = internet.server("server")
    serve(made)
    return made


@pytest.fixture
def home(internet: Internet) -> Site:
    return internet.site("home")


def sent(address: str, text: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(text.encode(), (address, 7))


def test_packets_of_one_direction_vanish_until_it_is_mended(internet: Internet, server: Host, home: Site) -> None:
    host = home.host("host")
    address = internet.address("server")
    with drop(home.router, destination=address, protocol="udp") as fault:
        assert host.call(asked, address, "x", 7, SILENT_S) == "TimeoutError"
        host.run(["ping", "-c1", "-W15", address])
        fault.mend()
        assert host.call(asked, address) != "TimeoutError"
    capture = server.capture("eth0")
    with drop(home.router, source=address, protocol="udp", port=None):
        assert host.call(asked, address, "one-way", 7, SILENT_S) == "TimeoutError"
    assert any(b"one-way" in packet for packet in capture.packets())
    with drop(home.router, source=f"{address}/32"), pytest.raises(AssertionError):
        assert host.run(["ping", "-c1", "-W1", address], check=False).returncode == 0
    with pytest.raises(UsageError, match="'x' is no address"):
        drop(home.router, source="x")


@pytest.mark.parametrize("bytes_max", [1400, 600])
def test_large_packets_vanish_without_a_word(
    internet: Internet, server: Host, home: Site, lab: Lab, bytes_max: int
) -> None:
    host = home.host("host")
    lab.switch_off_offloads()
    address = internet.address("server")
    pad = bytes_max - 28
    capture = host.capture("eth0")
    with black_hole(home.router, bytes_max):
        assert host.call(asked, address, "x" * (pad - 20)).endswith("x")
        assert host.call(asked, address, "x" * (pad + 1), 7, SILENT_S) == "TimeoutError"
    assert host.call(asked, address, "x" * (pad + 1)) != "TimeoutError"
    assert not any(packet[23:24] == b"\x01" for packet in capture.packets() if packet[12:14] == b"\x08\x00")
    with pytest.raises(UsageError, match="1 to 65535"):
        black_hole(home.router, 0)


def errno_after(asker: socket.socket) -> int:
    """The error that the kernel has for a connected socket, soon; 0: none."""
    poll = select.poll()
    poll.register(asker, select.POLLIN | select.POLLERR)
    poll.poll(15_000)
    return asker.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize(
    ("kind", "version", "errno_name"),
    [("port-unreachable", 4, "ECONNREFUSED"), ("port-unreachable", 6, "ECONNREFUSED"), ("too-big", 4, "EMSGSIZE")],
)
def test_a_forged_icmp_error_is_believed_by_a_plain_socket(
    internet: Internet, server: Host, kind: Kind, version: int, errno_name: str
) -> None:
    """Which is why Warren must not believe it."""
    import errno

    other = internet.server("other")
    family, v = (socket.AF_INET, 4) if version == 4 else (socket.AF_INET6, 6)
    target = internet.address("server", v)  # type: ignore[arg-type]
    own = internet.address("other", v)  # type: ignore[arg-type]
    with other.socket(family, socket.SOCK_DGRAM) as asker:
        asker.connect((target, 99))
        port = asker.getsockname()[1]
        reporter = internet.access("other").core(v)  # type: ignore[arg-type]
        if kind == "too-big":
            asker.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: a connected socket is told
        message = IcmpError(kind, ip_address(reporter), ip_address(own), port, ip_address(target), 99, mtu=600)
        forge_icmp(internet.core, message)
        assert errno.errorcode[errno_after(asker)] == errno_name


def test_a_router_that_reboots_is_dark_and_has_forgotten(internet: Internet, server: Host, home: Site) -> None:
    host = home.host("host")
    address = internet.address("server")
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(15)
        asker.connect((address, 7))
        asker.send(b"x")
        assert asker.recv(100).decode().removeprefix("::ffff:") == f"{internet.address('home')} x"
        began = time.monotonic()
        new = internet.address("home", 4, 3)
        home.outer.reboot(0.2, interface="wan", address=home.access.at(4, new))
        assert time.monotonic() - began >= 0.2
        asker.send(b"y")
        assert asker.recv(100).decode().removeprefix("::ffff:") == f"{new} y"
    shown = home.outer.run(["ip", "-br", "-4", "address", "show", "wan"]).stdout
    assert re.findall(r"[\d.]+/\d+", shown) == [f"{new}/24"]


def test_udp_is_blocked_for_a_while(internet: Internet, server: Host, home: Site) -> None:
    host = home.host("host")
    address = internet.address("server")
    for how, seen in (("dropped", "TimeoutError"), ("rejected", "OSError")):
        home.router.block_udp(how)  # type: ignore[arg-type]
        within_s = SILENT_S if seen == "TimeoutError" else 15.0
        assert host.call(asked, address, "x", 7, within_s) == seen
        home.router.unblock_udp()
        assert host.call(asked, address) == f"{internet.address('home')} x"
