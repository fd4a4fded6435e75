"""A rootless node's ends of layer 4 without agent and tunnel: a nest, a stream process, a link in the tunnel's place.

::

    peer ──wl0════wg0── nest of router ┄stream process┄ router ──eth0── lan
    10.99.0.1  10.99.0.2               192.168.50.1       192.168.50.2
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Final

from warren.engine.rootless.nest import Nest
from warren.errors import OperationFailed
from warren.l4.config import Config, Entry, Listen, Status, Way
from warren.l4.process import StreamProcess
from warren.l4.transparent import transparent_rules
from warren.lab import Host, Lab
from warren.linux.netlink_values import Address

LAN: Final = ("192.168.50.2", "fd50::2")
PEER: Final = ("10.99.0.1", "fd99::1")
NEST: Final = ("10.99.0.2", "fd99::2")
PREFIXES: Final = (ip_network("192.168.50.0/24"), ip_network("fd50::/64"))
OVERLAY: Final = ("10.99.0.0/24", "fd99::/64")
SOCKS_PORT: Final = 1080
PORT: Final = 5172


class NestWorld:
    """The hosts, the nest and its stream process; ``close`` ends the processes."""

    def __init__(self, lab: Lab) -> None:
        self.peer, self.router, self.lan = lab.host("peer"), lab.host("router"), lab.host("lan")
        lab.link(self.router, self.lan, ["192.168.50.1/24", "fd50::1/64"], ["192.168.50.2/24", "fd50::2/64"])
        self.run = self.router.directory / "run"
        self.pid = self.router.call(_start_nest, self.run)
        self.peer.ip(f"link add wl0 type veth peer name wg0 netns {self.pid}")
        self.peer.ip(
            "addr add 10.99.0.1/24 dev wl0",
            "addr add fd99::1/64 dev wl0 nodad",
            "link set wl0 up",
            "route add 192.168.50.0/24 via 10.99.0.2",
        )
        self.router.call(_set_up_nest, self.run)
        self.peer.ip("route add fd50::/64 via fd99::2")

    def configure(self, *entries: Entry) -> Status:
        return self.router.call(_configure, self.run, entries)

    def answer_names(self) -> None:
        """Be the agent whom the stream process asks for names, until something else is asked of it here."""
        ready = self.router.directory / "ready"
        ready.unlink(missing_ok=True)
        self.router.begin(_answer_names, self.run, ready)
        self.router.wait_for(ready.exists)

    def status(self) -> Status:
        return self.router.call(_status, self.run)

    def close(self) -> None:
        self.router.call(_end_streams, self.run)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


def behind(**more: object) -> tuple[Entry, Entry]:
    """The entries of a router for :data:`PREFIXES`, TCP and UDP."""
    listen = transparent_rules("wg0", PREFIXES, PORT).listen
    allowed = tuple(str(prefix) for prefix in PREFIXES)
    tcp, udp = (
        Entry(
            id=f"behind {protocol}",
            kind="transparent",
            listen=tuple(one for one in listen if one.protocol == protocol),
            allowed=allowed,
            way=Way(connect_timeout_s=2.0),
        )
        for protocol in ("tcp", "udp")
    )
    return tcp, udp


def socks_entry(owner_uid: int | None) -> Entry:
    listen = tuple(Listen(address=address, port=SOCKS_PORT) for address in ("127.0.0.1", "::1"))
    return Entry(id="socks", kind="socks", listen=listen, allowed=OVERLAY, owner_uid=owner_uid)


def echo(address: str, port: int) -> None:
    """A server, for ever: says whom it sees and what it was sent, by TCP (to the end of it) and by UDP."""
    asyncio.run(_echo(address, port))


async def _echo(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)
        writer.write(writer.get_extra_info("peername")[0].encode() + b" " + data)
        writer.close()

    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        datagrams.bind((address, port))
        async with await asyncio.start_server(answer, address, port, family=family):
            while True:
                data, source = await loop.sock_recvfrom(datagrams, 65535)
                await loop.sock_sendto(datagrams, source[0].encode() + b" " + data, source)


def ask_tcp(host: Host, address: str, port: int, data: bytes) -> bytes:
    """What a server such as :func:`echo` answers."""
    with host.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(20)
        sock.connect((address, port))
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def ask_udp(sock: socket.socket, address: str, port: int, data: bytes) -> tuple[bytes, tuple[str, int]]:
    """The same by a socket of UDP; with who answered."""
    sock.settimeout(20)
    sock.sendto(data, (address, port))
    answer, source = sock.recvfrom(65535)
    return answer, source[:2]


def _start_nest(run: Path) -> int:
    async def start() -> int:
        nest = await Nest.start(run)
        nest.sysctls.set("net/ipv6/conf/default/accept_dad", "0")
        await nest.let_go()
        return nest.pid

    return asyncio.run(start())


def _set_up_nest(run: Path) -> None:
    async def set_up() -> None:
        nest = await Nest.attach(run)
        try:
            for text in (f"{NEST[0]}/24", f"{NEST[1]}/64"):
                await nest.netlink.add_address(Address("wg0", ip_interface(text)))
            await nest.netlink.set_link("wg0", up=True)
            wanted = transparent_rules("wg0", PREFIXES, PORT)
            nest.nft.run(wanted.document)
            nest.nft.run(wanted.document)  # as often as one likes
            for route in wanted.routes:
                await nest.netlink.add_route(route)
            for rule in wanted.rules:
                await nest.netlink.add_rule(rule)
            assert set(wanted.routes) <= set(await nest.netlink.routes())
            assert set(wanted.rules) <= set(await nest.netlink.rules())
        finally:
            await nest.let_go()

    asyncio.run(set_up())


NAMES: Final = {"peer": PEER, "peer4": PEER[:1], "outside": ("192.168.50.2",)}


def _names(name: str) -> Sequence[str]:
    if name not in NAMES:
        raise OperationFailed(f"nobody in the overlay is called {name}")
    return NAMES[name]


def _configure(run: Path, entries: tuple[Entry, ...]) -> Status:
    async def configure() -> Status:
        process = await StreamProcess.attach_or_start(run, nest=run / "nest.sock")
        process.resolver = _names
        try:
            return await process.configure(Config(entries=entries))
        finally:
            await process.detach()

    return asyncio.run(configure())


def _status(run: Path) -> Status:
    async def status() -> Status:
        process = await StreamProcess.attach_or_start(run, nest=run / "nest.sock")
        try:
            return await process.status()
        finally:
            await process.detach()

    return asyncio.run(status())


def _answer_names(run: Path, ready: Path) -> None:
    async def answer() -> None:
        process = await StreamProcess.attach_or_start(run, nest=run / "nest.sock")
        process.resolver = _names
        ready.touch()
        await process.wait_closed()

    asyncio.run(answer())


def _end_streams(run: Path) -> None:
    async def end() -> None:
        process = await StreamProcess.attach_or_start(run, nest=run / "nest.sock")
        await process.close()

    asyncio.run(end())
