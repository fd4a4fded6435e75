"""Sites of a small Internet: what their hosts reach, and how they are seen."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from warren.lab import Host, Lab
from warren.lab.site import Internet, Site

pytestmark = pytest.mark.lab

PORT = 443
SILENT_S = 1.0


@pytest.fixture
def internet(lab: Lab) -> Internet:
    return Internet(lab)


def echo(service: socket.socket) -> None:
    """Tells each sender its address as it is seen here."""
    while True:
        data, sender = service.recvfrom(2048)
        service.sendto(f"{sender[0]} {data.decode()}".encode(), sender)


def serve(host: Host, port: int = 7) -> None:
    with host.socket(socket.AF_INET6, socket.SOCK_DGRAM) as service:
        service.bind(("::", port))
        host.begin(echo, service)


def serve_tcp(host: Host, *ports: int) -> None:
    for port in ports:
        with host.socket(socket.AF_INET6) as listener:
            listener.bind(("::", port))
            listener.listen()
            host.begin(greet, listener)


def greet(listener: socket.socket) -> None:
    while True:
        connection, peer = listener.accept()
        with connection:
            connection.sendall(str(peer[0]).encode())


def asked(address: str, text: str = "x", port: int = 7, within_s: float = 15.0) -> str:
    """The answer of :func:`echo`, or the name of the error. SILENT_S is enough where there will be none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(within_s)
        try:
            asker.connect((address, port))
            asker.send(text.encode())
            return asker.recv(2048).decode().removeprefix("::ffff:")
        except OSError as error:
            return type(error).__name__


def connected(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), 15) as connection:
            return connection.recv(100).decode().removeprefix("::ffff:")
    except OSError as error:
        return type(error).__name__


def test_hosts_of_two_homes_with_the_same_private_addresses_are_seen_under_those_of_their_routers(
    internet: Internet,
) -> None:
    server = internet.server("server")
    serve(server)
    for name in ("one", "two"):
        site = internet.site(name)
        host = site.host(f"{name}-host")
        assert host.run(["hostname", "-I"]).stdout.split() == ["192.168.1.10"]
        assert host.call(asked, internet.address("server")) == f"{internet.address(name)} x"


def test_a_site_without_nat_has_public_addresses(internet: Internet) -> None:
    host = internet.site("campus", "open").host("host")
    serve(host)
    address = host.run(["hostname", "-I"]).stdout.strip()
    assert internet.server("server").call(asked, address) == f"{internet.address('server')} x"


def test_a_host_behind_its_provider_is_seen_under_the_address_of_the_outer_nat(internet: Internet) -> None:
    server = internet.server("server")
    serve(server)
    site = internet.site("home", "cgn")
    host = site.host("host")
    assert host.call(asked, internet.address("server")) == f"{internet.address('home')} x"
    assert "100.64.0.2" in site.router.run(["hostname", "-I"]).stdout


@pytest.mark.parametrize(
    ("kind", "udp"), [("udp-blocked", "TimeoutError"), ("udp-rejected", "OSError"), ("only-443", "TimeoutError")]
)
def test_udp_is_blocked_and_tcp_is_not(internet: Internet, kind: str, udp: str) -> None:
    server = internet.server("server")
    serve(server)
    serve_tcp(server, 443, 8443)
    host = internet.site("office", kind).host("host")
    address = internet.address("server")
    within_s = SILENT_S if udp == "TimeoutError" else 15.0
    assert host.call(asked, address, "x", 7, within_s) == udp
    assert host.call(connected, address, 443) == internet.address("office")
    other = "ConnectionRefusedError" if kind == "only-443" else internet.address("office")
    assert host.call(connected, address, 8443) == other


@pytest.mark.skipif(not shutil.which("squid"), reason="not installed: squid")
def test_the_only_way_out_is_an_http_proxy(internet: Internet) -> None:
    server = internet.server("server")
    serve_tcp(server, 443, 8443)
    site = internet.site("office", "http-proxy")
    host = site.host("host")
    address = internet.address("server")
    assert host.call(connected, address, 443) == "ConnectionRefusedError"
    assert site.proxy == "http://192.168.1.1:3128"
    assert host.call(by_proxy, f"{address}:443") == f"200 {internet.address('office')}"
    assert host.call(by_proxy, f"{address}:8443") == "403"
    assert not list(Path("/dev/shm").glob("squid*"))
    another = internet.site("branch", "http-proxy").host("other")
    assert another.call(by_proxy, f"{address}:443") == f"200 {internet.address('branch')}"


def by_proxy(target: str) -> str:
    with socket.create_connection(("192.168.1.1", 3128), 20) as connection:
        connection.settimeout(20)
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = connection.recv(4096).decode(errors="replace")
        if answer.startswith("HTTP/1.1 200 "):
            return (
                f"200 {(answer.partition(chr(13))[2].strip() or connection.recv(100).decode()).removeprefix('::ffff:')}"
            )
    return answer.split()[1]


def test_ipv6_from_outside_passes_only_where_no_firewall_is(internet: Internet) -> None:
    server = internet.server("server")
    serve(server)
    for kind, seen in (("ipv6-open", f"{internet.address('server', 6)} x"), ("ipv6-firewalled", "TimeoutError")):
        site = internet.site(kind, kind)
        host = site.host(f"{kind}-host")
        serve(host)
        assert site.prefix6 is not None
        address = str(site.prefix6[10])
        assert host.call(asked, internet.address("server", 6)) == f"{address} x"
        within_s = SILENT_S if seen == "TimeoutError" else 15.0
        assert server.call(asked, address, "x", 7, within_s) == seen


@pytest.mark.skipif(not (shutil.which("tayga") and shutil.which("dnsmasq")), reason="not installed: tayga, dnsmasq")
def test_a_host_with_ipv6_only_reaches_ipv4_through_the_nat64_of_its_site(internet: Internet) -> None:
    server = internet.server("server", families="4")
    serve(server)
    host = internet.site("mobile", "ipv6-only").host("host")
    address = f"64:ff9b::{internet.address('server')}"
    host.wait_for(lambda: host.call(asked, address, "x", 7, SILENT_S) == f"{internet.address('mobile')} x")
    assert host.call(asked, internet.address("server")) == "OSError"


def test_a_host_with_two_uplinks_uses_the_better_one_and_the_other_when_its_cable_is_pulled(internet: Internet) -> None:
    server = internet.server("server")
    serve(server)
    cable, mobile = internet.site("cable"), internet.site("mobile", lan="10.1.0.0/24")
    host = internet.lab.host("laptop")
    link = cable.attach(host)
    mobile.attach(host, interface="eth1", metric=600)
    assert host.call(asked, internet.address("server")) == f"{internet.address('cable')} x"
    link.down()
    assert host.call(asked, internet.address("server")) == f"{internet.address('mobile')} x"
    link.up()
    assert host.call(asked, internet.address("server")) == f"{internet.address('cable')} x"


def test_a_site_gets_another_public_address(internet: Internet) -> None:
    server = internet.server("server")
    serve(server)
    site: Site = internet.site("home")
    host = site.host("host")
    before = host.call(asked, internet.address("server"))
    new = site.change_address(1)
    assert before != f"{new} x"
    assert host.call(asked, internet.address("server")) == f"{new} x"
