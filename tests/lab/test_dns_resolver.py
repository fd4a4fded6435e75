"""The resolver on a host of its own: asked by dnspython, dig and the C library, by the host itself and by others."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import pytest

from tests.support.name_servers import NameServer, ask, output_of, records, response_to
from tests.support.policy_node import STRANGER, Tun, address, member, network
from tests.support.probes import UDP, ip_packet, udp
from warren.dns import names
from warren.dns import resolver as resolver_module
from warren.dns.resolv_conf import ResolvConf, State
from warren.dns.resolver import CONNECTIONS_MAX, Resolver, is_own_address
from warren.dns.split import choose, recover
from warren.dns.upstream import Server
from warren.errors import OperationFailed
from warren.lab import Lab

ME = {version: address(1, version) for version in (4, 6)}
ZONE = names.records(network(()), [member(1, "me"), member(2, "laptop")])
UPSTREAMS = ("127.1.0.1", "127.1.0.2", "127.1.0.3")
LISTEN = [ip_address(own) for own in ME.values()]

Check = Callable[[Resolver, Tun], Coroutine[Any, Any, None]]


def _with_resolver(check: Check) -> None:
    overlay = Tun("home")
    for command in (
        f"address add {ME[6]}/128 dev home",
        f"address add {ME[4]}/32 dev home",
        "link set home up",
        "route add fd11:2233:4455::/48 dev home",
        "route add 10.7.0.0/24 dev home",
    ):
        subprocess.run(["ip", *command.split()], check=True)

    async def run() -> None:
        resolver = Resolver()
        try:
            resolver.serve({"home": ZONE})
            await resolver.listen(LISTEN)
            async with asyncio.timeout(90):
                await check(resolver, overlay)
        finally:
            await resolver.close()

    asyncio.run(run())


async def _it_answers_on_every_address_over_udp_and_tcp(resolver: Resolver, _: Tun) -> None:
    for server in ME.values():
        for tcp in (False, True):
            assert records(await ask(server, "laptop.home.internal", tcp=tcp)) == [address(2, 6)]
            assert records(await ask(server, "LAPTOP.home.internal", "A", tcp=tcp)) == [address(2, 4)]
            assert records(await ask(server, "2.0.7.10.in-addr.arpa", "PTR", tcp=tcp)) == ["laptop.home.internal."]
            assert (await ask(server, "ghost.home.internal", tcp=tcp)).rcode() == dns.rcode.NXDOMAIN
            assert (await ask(server, "example.org", tcp=tcp)).rcode() == dns.rcode.REFUSED
    if shutil.which("dig"):
        answer = await output_of("dig", f"@{ME[6]}", "laptop.home.internal", "AAAA", "+short")
        assert answer == f"{address(2, 6)}\n"
        assert await output_of("dig", f"@{ME[4]}", "-x", address(2, 6), "+short", "+tcp") == "laptop.home.internal.\n"
        answer = await output_of("dig", f"@{ME[4]}", "ghost.home.internal")
        assert "status: NXDOMAIN" in answer
        assert "flags: qr aa rd;" in answer


async def _a_zone_is_replaced_as_a_whole(resolver: Resolver, _: Tun) -> None:
    resolver.serve({"home": names.records(network(()), [member(3, "laptop")]), "other": names.Zone("other.internal")})
    assert records(await ask(ME[6], "laptop.home.internal")) == [address(3, 6)]
    assert (await ask(ME[6], "me.home.internal")).rcode() == dns.rcode.NXDOMAIN
    assert (await ask(ME[6], "me.other.internal")).rcode() == dns.rcode.NXDOMAIN
    resolver.serve({})
    assert (await ask(ME[6], "laptop.home.internal")).rcode() == dns.rcode.REFUSED


async def _where_it_listens_can_be_changed(resolver: Resolver, _: Tun) -> None:
    later = "10.7.0.77"
    await resolver.listen([ip_address(ME[4]), ip_address(later)])
    assert resolver.addresses == {ip_address(ME[4]), ip_address(later)}
    subprocess.run(["ip", "address", "add", f"{later}/32", "dev", "home"], check=True)
    assert records(await ask(later, "laptop.home.internal")) == [address(2, 6)]
    for tcp in (False, True):
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await _raw(b"?", tcp=tcp, server=ME[6])


async def _a_taken_port_is_named(resolver: Resolver, _: Tun) -> None:
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.99", 53))
            if kind == socket.SOCK_STREAM:
                other.listen()
            with pytest.raises(OperationFailed, match=r"port 53 of 127\.0\.0\.99 \(Address already in use\); end the"):
                await resolver.listen([*LISTEN, ip_address("127.0.0.99")])
    assert resolver.addresses == set(LISTEN)
    assert records(await ask(ME[6], "laptop.home.internal")) == [address(2, 6)]
    await resolver.listen([*LISTEN, ip_address("127.0.0.99")])
    assert records(await ask("127.0.0.99", "laptop.home.internal")) == [address(2, 6)]


async def _a_source_elsewhere_is_refused(resolver: Resolver, overlay: Tun) -> None:
    """With no more bytes than it sent, and nothing else of what it asked for."""
    async with NameServer(UPSTREAMS[0], lambda query: [response_to(query, "192.0.2.1")]) as upstream:
        resolver.forward_to([Server(ip_address(UPSTREAMS[0]))])
        for version, name in ((4, "laptop.home.internal"), (6, "laptop.home.internal"), (6, "example.org")):
            query = dns.message.make_query(name, "A").to_wire()
            source, me = address(2, version), ME[version]
            overlay.sent()
            overlay.inject(ip_packet(source, me, UDP, udp(source, me, 53, data=query)))
            await ask(me, "laptop.home.internal")  # our own question comes after it
            (answer,) = (packet for packet in overlay.sent() if packet[9 if version == 4 else 6] == UDP)
            payload = answer[28:] if version == 4 else answer[48:]
            assert payload[:2] == query[:2]
            assert payload[3] & 0xF == dns.rcode.REFUSED
            assert len(payload) == 12 < len(query)
            overlay.inject(ip_packet(source, me, UDP, udp(source, me, 53, data=payload)))
            await ask(me, "laptop.home.internal")
            assert not [packet for packet in overlay.sent() if packet[9 if version == 4 else 6] == UDP], "a response"
        assert not upstream.asked


async def _a_connection_from_elsewhere_is_closed(resolver: Resolver, _: Tun) -> None:
    await resolver.close()
    stranger = Resolver(own=lambda source: source != ip_address("127.0.0.9"))
    stranger.serve({"home": ZONE})
    await stranger.listen(LISTEN)
    query = dns.message.make_query("laptop.home.internal", "A").to_wire()
    for source, answered in (("127.0.0.9", False), ("127.0.0.8", True)):
        reader, writer = await asyncio.open_connection(ME[4], 53, local_addr=(source, 0))
        writer.write(len(query).to_bytes(2, "big") + query)
        assert bool(await _read(reader, 2)) == answered
        writer.close()
    await stranger.close()


async def _read(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _own_addresses_are_known(_: Resolver, __: Tun) -> None:
    Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1")
    Path("/proc/sys/net/ipv6/ip_nonlocal_bind").write_text("1")
    own = [*ME.values(), "127.0.0.1", "127.9.9.9", "::1"]
    others = [address(2, 4), address(2, 6), *STRANGER.values(), "::", "224.0.0.1", "ff02::1", "fe80::1"]
    assert [is_own_address(ip_address(one)) for one in own] == [True] * len(own)
    assert [is_own_address(ip_address(one)) for one in others] == [False] * len(others)


async def _connections_are_limited(resolver: Resolver, _: Tun) -> None:
    query = dns.message.make_query("laptop.home.internal", "A").to_wire()
    framed = len(query).to_bytes(2, "big") + query
    connections = []
    for _number in range(CONNECTIONS_MAX):
        reader, writer = await asyncio.open_connection(ME[4], 53)
        connections.append((reader, writer))
        writer.write(framed)
        assert await _read(reader, 2)
    reader, one_too_many = await asyncio.open_connection(ME[4], 53)
    one_too_many.write(framed)
    assert await _read(reader, 1) == b""
    assert records(await ask(ME[4], "laptop.home.internal")) == [address(2, 6)], "UDP goes on"
    for _reader, writer in connections[:2]:
        writer.close()
        await writer.wait_closed()
    while resolver._connections > CONNECTIONS_MAX - 2:
        await asyncio.sleep(0)
    reader, again = await asyncio.open_connection(ME[4], 53)
    again.write(framed * 3)
    length = int.from_bytes(await reader.readexactly(2), "big")
    await reader.readexactly(length + 2 * (2 + length))
    for writer in (one_too_many, again, *(writer for _, writer in connections)):
        writer.close()


async def _bad_connections_are_closed(resolver: Resolver, _: Tun) -> None:
    resolver_module.IDLE_S = 0.05
    for sent in (
        b"",
        b"\0",
        b"\0\x20short",
        b"\xff\xff" + bytes(100),
        b"\x20\0" + bytes(0x2000),
        b"\0\x03abc",
        b"\0\0",
    ):
        reader, writer = await asyncio.open_connection(ME[6], 53)
        writer.write(sent)
        assert await _read(reader, 1) == b"", sent
        writer.close()
        await writer.wait_closed()
    malformed = bytes.fromhex("0007010000010000000000000177")
    for tcp in (False, True):
        code = await _raw(malformed, tcp=tcp)
        assert code[:2] == b"\0\7"
        assert code[3] & 0xF == dns.rcode.FORMERR
    assert records(await ask(ME[6], "laptop.home.internal")) == [address(2, 6)]


async def _raw(query: bytes, *, tcp: bool, server: str = ME[4]) -> bytes:
    if tcp:
        reader, writer = await asyncio.open_connection(server, 53)
        writer.write(len(query).to_bytes(2, "big") + query)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        writer.close()
        await writer.wait_closed()
        return response
    with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server, 53))
        sock.send(query)
        return await asyncio.get_running_loop().sock_recv(sock, 4096)


async def _other_names_pass_through_unchanged(resolver: Resolver, _: Tun) -> None:
    async with NameServer(UPSTREAMS[1], lambda query: [response_to(query, "192.0.2.1")]) as upstream:
        # Nobody is at the first address; the second is ours, as is the address that is left out.
        resolver.forward_to([Server(one) for one in map(ip_address, (UPSTREAMS[0], ME[4], UPSTREAMS[1]))])
        for tcp in (False, True):
            query = dns.message.make_query("www.Example.org", "A", use_edns=0, payload=4000).to_wire()
            response = await _raw(query, tcp=tcp)
            assert response[:2] == query[:2]
            assert response[2:] == upstream.answered[-1][2:]
            assert upstream.asked[-1][2:] == query[2:]
        assert set(upstream.names) == {"www.Example.org."}
        asked = len(upstream.asked)
        await ask(ME[6], "laptop.home.internal")
        await ask(ME[6], "ghost.home.internal")
        await ask(ME[6], "9.0.7.10.in-addr.arpa", "PTR")
        assert len(upstream.asked) == asked, "our names are nobody else's business"
    assert (await ask(ME[4], "www.example.org")).rcode() == dns.rcode.SERVFAIL
    assert (await ask(ME[4], "www.example.org", tcp=True)).rcode() == dns.rcode.SERVFAIL
    later = "127.1.0.9"
    resolver.forward_to([Server(ip_address(later)), Server(ip_address(ME[6]))])
    assert (await ask(ME[4], "www.example.org")).rcode() == dns.rcode.SERVFAIL
    await resolver.listen([*LISTEN, ip_address(later)])
    assert (await ask(ME[4], "www.example.org")).rcode() == dns.rcode.REFUSED, "there is nobody but ourselves"
    resolver.forward_to([])
    assert (await ask(ME[4], "www.example.org")).rcode() == dns.rcode.REFUSED


async def _resolv_conf_is_borrowed(resolver: Resolver, _: Tun) -> None:
    """The lab mounts the file, as containers do; programs of the C library ask by it."""
    file = Path("/etc/resolv.conf")
    original = f"nameserver {UPSTREAMS[0]}\noptions timeout:1 attempts:1\n"
    file.write_text(original)
    split = await choose(resolver.forward_to)
    assert (
        split.description
        == "/etc/resolv.conf, kept and restored, since there is no systemd-resolved on the system's D-Bus"
    )
    async with NameServer(UPSTREAMS[0], lambda query: [response_to(query, "192.0.2.1")]) as upstream:
        assert (await output_of("getent", "ahostsv4", "laptop.home.internal")).split()[0] == "192.0.2.1", "not ours yet"
        upstream.asked.clear()
        await split.engage("home", ip_address(ME[6]), ZONE.domains)
        assert Path("/run/warren/resolv.conf.before-warren").read_text() == original, "/etc is not this host's alone"
        assert not Path("/etc/resolv.conf.before-warren").exists()
        assert (await output_of("getent", "ahostsv6", "laptop.home.internal")).split()[0] == address(2, 6)
        assert (await output_of("getent", "ahostsv4", "laptop.home.internal")).split()[0] == address(2, 4)
        assert (await output_of("getent", "hosts", address(2, 4))).split() == [address(2, 4), "laptop.home.internal"]
        assert not upstream.asked
        assert (await output_of("getent", "ahostsv4", "www.example.org")).split()[0] == "192.0.2.1"
        assert set(upstream.names) == {"www.example.org."}
        await resolver.listen([])
        assert (await output_of("getent", "ahostsv4", "www.example.org")).split()[0] == "192.0.2.1", "nobody at ours"
        await resolver.listen(LISTEN)
        assert await recover() == "/etc/resolv.conf is what it was before an agent was killed"
        assert file.read_text() == original
        assert await recover() is None
        await split.check()
        assert ResolvConf().state() is State.INTACT
        file.write_text(f"nameserver {UPSTREAMS[2]}\n")
        await split.check()
        async with NameServer(UPSTREAMS[2], lambda query: [response_to(query, "192.0.2.3")]):
            assert (await output_of("getent", "ahostsv4", "www.example.org")).split()[0] == "192.0.2.3"
    await split.engage("other", ip_address(ME[4]), ("other.internal",))
    await split.disengage("home")
    assert f"nameserver {ME[4]}\n" in file.read_text()
    await split.disengage("other")
    assert file.read_text() == f"nameserver {UPSTREAMS[2]}\n"
    assert not ResolvConf().has_traces()
    assert (await ask(ME[4], "www.example.org")).rcode() == dns.rcode.REFUSED, "nobody asks us any more"
    await split.restore()


async def _an_edit_after_a_kill_stays(resolver: Resolver, _: Tun) -> None:
    file = Path("/etc/resolv.conf")
    file.write_text(f"nameserver {UPSTREAMS[0]}\n")
    await (await choose(resolver.forward_to)).engage("home", ip_address(ME[6]), ZONE.domains)
    file.write_text(f"nameserver {UPSTREAMS[1]}\n")
    assert await recover() == "/etc/resolv.conf has been changed since an agent was killed, and stays as it is"
    assert file.read_text() == f"nameserver {UPSTREAMS[1]}\n"
    assert await recover() is None


async def _a_file_that_cannot_be_changed_is_a_task_that_failed(resolver: Resolver, _: Tun) -> None:
    Path("/etc/resolv.conf").write_text(f"nameserver {UPSTREAMS[0]}\n")
    subprocess.run(["mount", "-o", "remount,bind,ro", "/etc/resolv.conf"], check=True)
    split = await choose(resolver.forward_to)
    with pytest.raises(OperationFailed, match=r"^/etc/resolv.conf cannot be changed: Read-only file system; let fd11"):
        await split.engage("home", ip_address(ME[6]), ZONE.domains)
    assert (await ask(ME[6], "www.example.org")).rcode() == dns.rcode.REFUSED, "nobody asks us for that"
    await split.restore()


@pytest.mark.parametrize(
    "check",
    [
        _it_answers_on_every_address_over_udp_and_tcp,
        _a_zone_is_replaced_as_a_whole,
        _where_it_listens_can_be_changed,
        _a_taken_port_is_named,
        _a_source_elsewhere_is_refused,
        _a_connection_from_elsewhere_is_closed,
        _own_addresses_are_known,
        _connections_are_limited,
        _bad_connections_are_closed,
        _other_names_pass_through_unchanged,
        _resolv_conf_is_borrowed,
        _an_edit_after_a_kill_stays,
        _a_file_that_cannot_be_changed_is_a_task_that_failed,
    ],
    ids=lambda check: check.__name__.strip("_"),
)
def test_the_resolver(lab: Lab, check: Check) -> None:
    lab.host("h").call(_with_resolver, check, timeout=100)
