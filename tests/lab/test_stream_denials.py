"""A policy that comes to deny: what it forbids ends at both ends, what it permits goes on, and SOCKS says so."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import ip_address

import pytest

from tests.support.overlay import Underlay
from tests.support.stream_world import agent_status
from warren.api.rest import AdminClient
from warren.lab import Host, Lab
from warren.lab.network import environment, warren_command
from warren.model.documents import Rule
from warren.model.tickets import read_access
from warren.model.tunnel import TransportAddress
from warren.proto import socks
from warren.proto.control.desired_state import ApplyRequest, DesiredState, MemberState

pytestmark = pytest.mark.timeout(300)
DENIED, PERMITTED, INSIDE, BEHIND = 7000, 7001, 7002, 7003
ROUTED = "192.0.2.77"
SOCKS = 1080
PATIENCE_S = 40.0
CHANGES = 12
INNER = f"""
import socket
with socket.create_server(("::", {INSIDE}), family=socket.AF_INET6) as listener:
    stream, _ = listener.accept()
    try:
        while data := stream.recv(100):
            stream.sendall(data)
    except OSError as error:
        print("ended:", type(error).__name__, flush=True)
"""


def denying(*ports: int) -> tuple[Rule, ...]:
    """Everything is allowed but TCP and UDP to these ports of anybody."""
    texts = tuple(map(str, ports))
    who = {"sources": ("members",), "destinations": ("members", f"{ROUTED}/32")}
    denied = (
        Rule(action="deny", protocol="tcp", ports=texts, **who),
        Rule(action="deny", protocol="udp", ports=texts, **who),
    )
    return (*(denied if ports else ()), Rule(action="allow", **who))


def apply(access: str, *policies: tuple[Rule, ...]) -> None:
    """Have the network those policies, one after the other."""

    async def run() -> None:
        async with AdminClient(read_access(access)) as client:
            for policy in policies:
                state = DesiredState(members={"alice": MemberState(routes=(f"{ROUTED}/32",))}, policy=policy)
                await client.apply("home", ApplyRequest(state=state))

    asyncio.run(run())


class Ends:
    """A stream's two ends, which are real sockets of programs."""

    def __init__(self, name: str, near: socket.socket, far: socket.socket) -> None:
        self.name, self.near, self.far = name, near, far

    def goes_on(self) -> bool:
        """Whether bytes come through both ways."""
        for one, other in ((self.near, self.far), (self.far, self.near)):
            one.sendall(b"12345")
            heard = b""
            while len(heard) < 5:
                piece = other.recv(5)
                if not piece:
                    return False
                heard += piece
        return True

    def ended(self) -> str:
        """How, at the near and at the far end."""
        return f"{self.name}: {_end_of(self.near)}, {_end_of(self.far)}"


def is_refused(sock: socket.socket) -> bool:
    """Whether this end is told that it may not send."""
    try:
        sock.send(b"!")
    except PermissionError:
        return True
    return False


def _end_of(sock: socket.socket) -> str:
    try:
        return "more" if sock.recv(1) else "end"
    except TimeoutError:
        return "open"
    except ConnectionError as error:
        return type(error).__name__


def asked(sock: socket.socket, to: str, port: int, command: int = socks.CONNECT) -> int:
    """What a SOCKS server answers."""
    name = to.encode()
    sock.connect(("127.0.0.1", SOCKS))
    sock.sendall(b"\5\1\0" + bytes((5, command, 0, 3, len(name))) + name + port.to_bytes(2))
    heard = b""
    while len(heard) < 2 + 10:
        heard += sock.recv(2 + 22 - len(heard))
    return heard[3]


class World:
    """Alice, who is rootless, and carol make forwards and have a SOCKS server; programs on bob answer."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        underlay = Underlay(lab)
        self.stack = stack
        self.network = underlay.network()
        self.network.start()
        self.alice, self.bob, self.carol = hosts = [underlay.host(name) for name in ("alice", "bob", "carol")]
        ticket = self.network.ticket("--uses", "3")
        for host in hosts:
            options = ("--engine", "rootless") if host is self.alice else ()
            self.network.join(host, *options, ticket=ticket, wait=False)
        for host in hosts:
            self.network.wait_up(host)
        for host in hosts:
            others = [one for one in hosts if one is not host]
            host.wait_for(lambda host=host, others=others: self.network.knows(host, others), 60)
        self.alice.run(["ip", "address", "add", f"{ROUTED}/32", "dev", "lo"])
        self.apply(denying())
        self.listeners = {port: self.listener(self.bob, port) for port in (DENIED, PERMITTED)}
        self.listeners[BEHIND] = self.listener(self.alice, BEHIND)
        for host in (self.alice, self.carol):
            for port in (DENIED, PERMITTED):
                self.network.warren(host, "forward", f"{port + 100}", f"bob:{port}", "--keep")
            self.network.warren(host, "forward", "--socks", f"{SOCKS}", "--keep")

    def listener(self, host: Host, port: int) -> socket.socket:
        """An ordinary program."""
        sock = self.socket(host, socket.AF_INET6)
        sock.bind(("::", port))
        sock.listen(100)
        return sock

    def socket(self, host: Host, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = self.stack.enter_context(host.socket(family, kind))
        sock.settimeout(PATIENCE_S)
        return sock

    def ends(self, name: str, near: socket.socket, port: int) -> Ends:
        """Of the stream that was just opened; of two attempts by two addresses one is given up."""
        near.sendall(b"!")
        while True:
            far = self.stack.enter_context(self.listeners[port].accept()[0])
            far.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionError):
                if far.recv(1) == b"!":
                    return Ends(name, near, far)

    def streams(self, port: int) -> list[Ends]:
        """To that port of bob: by forwards, by SOCKS with a name and an address, and by a program itself."""
        made = []
        for host in (self.alice, self.carol):
            near = self.socket(host)
            near.connect(("127.0.0.1", port + 100))
            made.append(self.ends(f"forward of {host.name}", near, port))
            for to in ("bob.home", self.network.address(self.bob, 4)):
                near = self.socket(host)
                assert asked(near, to, port) == socks.GRANTED
                made.append(self.ends(f"SOCKS of {host.name} to {to}", near, port))
        near = self.socket(self.carol, socket.AF_INET6)
        near.connect((self.network.address(self.bob), port))
        return [*made, self.ends("program", near, port)]

    def behind(self) -> Ends:
        """To an address behind alice, whose stream process goes on from there."""
        return self.ends("program behind", self.connected(self.carol, ROUTED, BEHIND), BEHIND)

    def connected(self, host: Host, address: str, port: int) -> socket.socket:
        """As soon as that works: each attempt is a connection of its own, since one that was lost is not made good."""
        found: list[socket.socket] = []

        def attempt() -> bool:
            near = self.socket(host, socket.AF_INET6 if ":" in address else socket.AF_INET)
            near.settimeout(15.0)
            with contextlib.suppress(OSError):
                near.connect((address, port))
                near.settimeout(PATIENCE_S)
                found.append(near)
            return bool(found)

        host.wait_for(attempt, 60)
        return found[0]

    def datagrams(self) -> tuple[socket.socket, socket.socket]:
        """Carol's end and bob's of a flow of datagrams that carol has opened, to the denied port."""
        near, far = (self.socket(host, socket.AF_INET6, socket.SOCK_DGRAM) for host in (self.carol, self.bob))
        far.bind((self.network.address(self.bob), DENIED))
        near.bind((self.network.address(self.carol), 0))
        near.connect(far.getsockname()[:2])
        far.connect(near.getsockname()[:2])
        for one, other in ((near, far), (far, near), (near, far)):
            one.send(b"!")
            assert other.recv(1) == b"!"
        return near, far

    def apply(self, *policies: tuple[Rule, ...]) -> None:
        self.network.server.call(apply, self.network.access, *policies)

    def is_known(self, *ports: int) -> bool:
        """Whether alice and carol know that these ports are denied, and no others."""
        return all(
            one["state"] == ("failed" if int(one["id"].rpartition(":")[2]) - 100 in ports else "listening")
            for host in (self.alice, self.carol)
            for one in agent_status(host)["streams"]
            if one["id"].startswith("forward")
        )


def test_what_is_denied_ends_at_both_ends_and_what_is_permitted_outlives_many_changes(lab: Lab) -> None:
    with contextlib.ExitStack() as stack:
        world = World(lab, stack)
        alice, carol, network = world.alice, world.carol, world.network
        inner = alice.start([*warren_command(), "exec", "python3", "-c", INNER], name="inner", env=environment(alice))
        denied, permitted = [*world.streams(DENIED), world.behind()], world.streams(PERMITTED)
        back = world.connected(carol, network.address(alice), INSIDE)
        back.sendall(b"x")
        assert back.recv(1) == b"x"
        assert all(one.goes_on() for one in (*denied, *permitted))
        datagrams = world.datagrams()

        world.apply(denying(DENIED, INSIDE, BEHIND))
        ended = [one.ended() for one in denied]
        assert not [one for one in ended if "open" in one or "more" in one], ended
        assert _end_of(back) in {"ConnectionAbortedError", "ConnectionResetError"}
        alice.wait_for(lambda: "ended: ConnectionAbortedError" in inner.output(), PATIENCE_S)
        assert all(one.goes_on() for one in permitted)
        for host, one in zip((carol, world.bob), datagrams, strict=True):
            host.wait_for(lambda one=one: is_refused(one), PATIENCE_S)

        # What is denied is refused at once, and counted.
        alice.wait_for(lambda: world.is_known(DENIED), 60)
        for host in (alice, carol):
            before = refused_by_policy(host)
            for to in ("bob.home", network.address(world.bob, 4), network.address(world.bob)):
                assert asked(world.socket(host), to, DENIED) == socks.NOT_ALLOWED
            assert refused_by_policy(host) == before + 3
            assert datagram_is_refused(world, host)

        # Twenty changes, and bytes on every stream between them.
        others = [*permitted, *world.streams(PERMITTED)]
        for number in range(CHANGES):
            world.apply(denying() if number % 2 else denying(DENIED, 8000 + number))
            assert all(one.goes_on() for one in others)
        alice.wait_for(world.is_known, 60)
        assert all(one.goes_on() for one in (*others, *world.streams(DENIED)))
        said = [network.nodes[host.name].process.output() for host in (alice, world.bob, carol)]

        # Whoever is no member any more speaks to nobody.
        network.warren(network.server, "network", "revoke", "home", "alice", "--yes")
        hers = [one for one in others if "alice" in one.name]
        ended = [one.ended() for one in hers]
        assert not [one for one in ended if "open" in one or "more" in one], ended
        assert all(one.goes_on() for one in others if one not in hers)
        assert any("connections ended that its policy does not permit" in one for one in said)  # who is first ends both


def refused_by_policy(host: Host) -> int:
    (found,) = [one for one in agent_status(host)["streams"] if one["id"].startswith("socks")]
    assert "does not let this node reach" in found["last_refusal"] or not found["refused"]
    return int(found["refused"].get("policy", 0))


def datagram_is_refused(world: World, host: Host) -> bool:
    """By UDP ASSOCIATE, whoever sends; and it is counted."""
    control, sock = world.socket(host), world.socket(host, kind=socket.SOCK_DGRAM)
    control.connect(("127.0.0.1", SOCKS))
    control.sendall(b"\5\1\0\5\3\0\1" + bytes(6))
    heard = b""
    while len(heard) < 12:
        heard += control.recv(12 - len(heard))
    assert heard[3] == socks.GRANTED
    before = refused_by_policy(host)
    to = socks.datagram_header(TransportAddress(ip_address(world.network.address(world.bob)), DENIED))
    sock.sendto(to + b"?", ("127.0.0.1", int.from_bytes(heard[-2:])))
    host.wait_for(lambda: refused_by_policy(host) == before + 1, PATIENCE_S)
    return True
