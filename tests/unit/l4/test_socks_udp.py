"""UDP ASSOCIATE: one program's port to the overlay, which nobody else can use."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import Any

import pytest

from tests.support import l4_parties
from tests.support.l4_tools import FakeTools
from warren.l4 import socks as server
from warren.l4 import socks_udp
from warren.l4.config import Entry, Listen
from warren.l4.kinds import Goal, Incoming, Unanswered
from warren.l4.listening import transport_address
from warren.model.tunnel import IPAddress, TransportAddress
from warren.proto import socks

ASSOCIATE = b"\5\1\0" + b"\5\3\0\1" + bytes(6)


class _InOverlay(socket.socket):
    """10.77.0.0/16 is this host's 127.77.0.0/16, so that a test needs no namespace."""

    def sendmsg(self, *args: Any) -> int:
        data, control, flags, (host, *rest) = args
        return super().sendmsg(data, control, flags, (host.replace("10.77.", "127.77."), *rest))

    def recvmsg_into(self, *args: Any) -> Any:
        length, ancillary, flags, source = super().recvmsg_into(*args)
        return length, ancillary, flags, (source[0].replace("127.77.", "10.77."), *source[1:])


class _Overlay:
    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        return _InOverlay(family, kind | socket.SOCK_NONBLOCK, protocol)


class Party(l4_parties.Party):
    """Its place is as those in the overlay see it."""

    @property
    def place(self) -> TransportAddress:
        host, port = super().place
        return TransportAddress(ip_address(host.replace("127.77.", "10.77.")), port)


class Association:
    def __init__(self, tools: FakeTools, control: socket.socket, relay: Any) -> None:
        self.tools, self.control, self.relay = tools, control, relay


def to(party: Party, data: bytes) -> bytes:
    return socks.datagram_header(party.place) + data


def to_name(name: bytes, port: int, data: bytes) -> bytes:
    return bytes((0, 0, 0, 3, len(name))) + name + port.to_bytes(2) + data


@asynccontextmanager
async def associated(said: bytes = ASSOCIATE, host: str = "127.0.0.1", **more: Any) -> AsyncIterator[Association]:
    """A program at ``host`` has what it asked for."""
    tools = more.pop("tools", None) or FakeTools()
    tools.overlay = _Overlay()
    entry = Entry(id="socks", kind="socks", listen=(Listen(),), allowed=("10.77.0.0/16",), **more)
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        control = socket.create_connection(listener.getsockname()[:2])
        accepted, _ = listener.accept()
    control.setblocking(False)
    accepted.setblocking(False)
    ends = transport_address(accepted.getpeername()), transport_address(accepted.getsockname())
    loop = asyncio.get_running_loop()
    serving = loop.create_task(server.handle(Incoming(accepted, *ends, Listen()), entry, tools))
    try:
        await loop.sock_sendall(control, said)
        heard = b""
        async with asyncio.timeout(10):
            while len(heard) < (24 if ":" in host else 12):
                heard += await loop.sock_recv(control, 64)
        assert heard[:5] == b"\5\0\5\0\0"
        bound = heard[6:]
        relay = (str(ip_address(bound[:-2])), int.from_bytes(bound[-2:]))
        assert relay[0] == host
        yield Association(tools, control, relay)
    finally:
        control.close()
        async with asyncio.timeout(10):
            await serving
        assert accepted.fileno() == -1


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_go_there_and_back_with_a_header(host: str) -> None:
    async def test() -> None:
        with Party(host) as program, Party("127.77.0.2") as member, Party("127.77.0.3") as other:
            async with associated(host=host) as up:
                for party in (member, other, member):
                    await program.send(to(party, b"question"), up.relay)
                    data, source = await party.hear()
                    assert data == b"question"
                    await party.send(b"answer", source)
                    data, source = await program.hear()
                    assert data == to(party, b"answer")
                    assert source[:2] == up.relay
                await program.send(to(member, b""), up.relay)
                assert (await member.hear())[0] == b""
                assert up.tools.bytes_in == 4 * 10 + 3 * len(b"question")
                assert up.tools.bytes_out == 3 * len(b"answer")

    run(test)


def test_trains_are_taken_apart() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:
                train = b"".join(to(member, b"%04d" % number) for number in range(20))
                program.sock.sendmsg([train], [(17, 103, struct.pack("=H", 14))], 0, up.relay)
                got = [await member.hear() for _ in range(20)]
                assert [data for data, _ in got] == [b"%04d" % number for number in range(20)]
                member.sock.sendmsg([b"abcdefgh"], [(17, 103, struct.pack("=H", 4))], 0, got[0][1])
                assert [(await program.hear())[0] for _ in "12"] == [to(member, b"abcd"), to(member, b"efgh")]

    run(test)


def test_names_are_resolved_in_the_overlay_and_remembered() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:
                up.tools.names["web.home"] = [ip_address("192.0.2.1"), ip_address("10.77.0.2")]
                up.tools.names["outside"] = [ip_address("192.0.2.1"), ip_address("127.0.0.1")]
                for _ in range(3):
                    await program.send(to_name(b"web.home", member.place.port, b"?"), up.relay)
                    assert (await member.hear())[0] == b"?"
                assert up.tools.asked == ["web.home"]
                for name, reason in ((b"outside", "policy"), (b"localhost", "unresolved")):
                    await program.send(to_name(name, member.place.port, b"?"), up.relay)
                    await up.tools.until(lambda reason=reason: up.tools.reasons[reason] == 1)  # type: ignore[misc]

    run(test)


def test_names_that_are_asked_for_and_remembered_have_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks_udp, "PLACES_MAX", 2)
    monkeypatch.setattr(socks_udp, "WAITING_MAX", 16)
    answer = asyncio.Event()

    class Slow(FakeTools):
        async def resolve(self, name: str) -> Sequence[IPAddress]:
            self.asked.append(name)
            self.changed.set()
            await answer.wait()
            return [ip_address("10.77.0.2")]

    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated(tools=Slow()) as up:
                for number in range(40):
                    await program.send(to_name(b"n%02d" % number, member.place.port, b"?"), up.relay)
                await up.tools.until(lambda: up.tools.bytes_in == 40 * 11)
                await up.tools.until(lambda: len(up.tools.asked) == socks_udp.WAITING_MAX)
                answer.set()
                for _ in range(socks_udp.WAITING_MAX):
                    await member.hear()
                assert member.has_nothing()
                answer.clear()
                for number in range(40):
                    await program.send(to_name(b"other", member.place.port, b"%02d" % number), up.relay)
                await up.tools.until(lambda: up.tools.bytes_in == 40 * 11 + 40 * 14)
                answer.set()
                waited = [(await member.hear())[0] for _ in range(socks_udp.WAITING_MAX)]
                assert waited == [b"%02d" % number for number in range(socks_udp.WAITING_MAX)]
                assert member.has_nothing()
                for name, asked in ((b"other", 0), (b"n15", 0), (b"n14", 1), (b"n15", 1), (b"other", 1)):
                    before = len(up.tools.asked)
                    await program.send(to_name(name, member.place.port, b"?"), up.relay)
                    await member.hear()
                    assert len(up.tools.asked) - before == asked, name

    run(test)


def test_the_policy_is_asked_once_for_each_place_and_what_it_forbids_is_counted() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member, Party("127.77.0.3") as other:
            async with associated() as up:
                up.tools.forbidden = {str(other.place.ip)}
                for _ in range(5):
                    await program.send(to(other, b"!"), up.relay)
                    await program.send(to(member, b"?"), up.relay)
                    assert (await member.hear())[0] == b"?"
                await up.tools.until(lambda: up.tools.reasons == {"policy": 5})
                assert other.has_nothing()
                asked = [(str(one.place.ip), Goal("udp", one.place.port)) for one in (other, member)]
                assert up.tools.goals == asked

    run(test)


def test_it_is_asked_again_after_a_while_and_meanwhile_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks_udp, "PERMITTED_S", 0.0)
    monkeypatch.setattr(socks_udp, "REFUSED_S", 0.0)

    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:

                async def asked_after(data: bytes) -> None:
                    before = len(up.tools.goals)
                    await program.send(to(member, data), up.relay)
                    await up.tools.until(lambda: len(up.tools.goals) > before)

                await asked_after(b"1")
                assert (await member.hear())[0] == b"1"
                up.tools.forbidden = {str(member.place.ip)}
                await asked_after(b"2")  # goes by what was known
                assert (await member.hear())[0] == b"2"
                await asked_after(b"3")
                await up.tools.until(lambda: up.tools.reasons["policy"] == 1)
                up.tools.forbidden = set()
                await asked_after(b"4")  # is refused by what was known
                await up.tools.until(lambda: up.tools.reasons["policy"] == 2)
                await asked_after(b"5")
                assert (await member.hear())[0] == b"5"
                assert member.has_nothing()

    run(test)


def test_what_is_known_outlives_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks_udp, "PERMITTED_S", 0.0)

    class Leaving(FakeTools):
        here = True

        async def permitted(self, place: IPAddress | str, goal: Goal) -> Sequence[IPAddress]:
            found = await super().permitted(place, goal)
            self.changed.set()
            if not self.here:
                raise Unanswered("the agent does not run")
            return found

    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            tools = Leaving()
            tools.names = {"web": [ip_address("10.77.0.2")], "later": [ip_address("10.77.0.2")]}
            async with associated(tools=tools) as up:
                for here in (True, False, False):
                    tools.here = here
                    await program.send(to_name(b"web", member.place.port, b"?"), up.relay)
                    assert (await member.hear())[0] == b"?"
                await program.send(to_name(b"later", member.place.port, b"?"), up.relay)
                await up.tools.until(lambda: up.tools.reasons == {"unresolved": 1})
                assert member.has_nothing()

    run(test)


def test_third_parties_cannot_use_the_port_and_cannot_speak_through_it() -> None:
    async def test() -> None:
        with Party() as program, Party() as thief, Party("127.0.0.2") as far, Party("127.77.0.2") as member:
            async with associated() as up:
                await far.send(to(member, b"stolen"), up.relay)  # before the program has said anything
                await program.send(to(member, b"mine"), up.relay)
                data, source = await member.hear()
                assert data == b"mine"
                await thief.send(to(member, b"stolen"), up.relay)  # the same address, another port
                await program.send(to(member, b"again"), up.relay)
                assert (await member.hear())[0] == b"again"
                await member.send(b"answer", source)
                assert (await program.hear())[0] == to(member, b"answer")
                assert thief.has_nothing()
                assert far.has_nothing()

    run(test)


def test_a_port_that_was_named_is_the_only_one() -> None:
    async def test() -> None:
        with Party() as program, Party() as thief, Party("127.77.0.2") as member:
            said = ASSOCIATE[:-2] + program.place.port.to_bytes(2)
            async with associated(said) as up:
                await thief.send(to(member, b"stolen"), up.relay)
                await program.send(to(member, b"mine"), up.relay)
                assert (await member.hear())[0] == b"mine"

    run(test)


def test_on_loopback_the_first_datagram_must_be_of_the_right_user(monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[int | None] = []

    def owner_of(*ends: object) -> int | None:
        return owners.pop(0) if ends[2:] == ("udp",) else os.getuid()

    monkeypatch.setattr("warren.l4.socks_guard.owner_of", owner_of)

    async def test() -> None:
        with Party() as program, Party() as thief, Party() as ghost, Party("127.77.0.2") as member:
            async with associated(owner_uid=os.getuid()) as up:
                for party, owner in ((thief, os.getuid() + 1), (ghost, None)):
                    owners.append(owner)
                    await party.send(to(member, b"stolen"), up.relay)
                    await up.tools.until(lambda: not owners)
                owners.append(os.getuid())
                await program.send(to(member, b"mine"), up.relay)
                assert (await member.hear())[0] == b"mine"
                assert up.tools.reasons == {"source": 2}

    run(test)


def test_answers_of_those_who_were_not_asked_are_dropped() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member, Party("127.77.0.9") as stranger:
            async with associated() as up:
                await program.send(to(member, b"?"), up.relay)
                _, source = await member.hear()
                await stranger.send(b"spoofed", source)
                await member.send(b"true", source)
                assert (await program.hear())[0] == to(member, b"true")
                assert program.has_nothing()

    run(test)


def test_who_has_been_spoken_to_longest_ago_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks_udp, "HOSTS_MAX", 2)

    async def test() -> None:
        hosts = ("127.77.0.2", "127.77.0.3", "127.77.0.4")
        with Party() as program, ExitStack() as stack:
            first, second, third = (stack.enter_context(Party(host)) for host in hosts)
            async with associated() as up:
                sources = {}
                for party in (first, second, first, third):  # second is the longest ago
                    await program.send(to(party, b"?"), up.relay)
                    _, sources[party] = await party.hear()
                for party in (second, first, third):
                    await party.send(b"!", sources[party])
                assert {(await program.hear())[0] for _ in "12"} == {to(first, b"!"), to(third, b"!")}
                assert program.has_nothing()

    run(test)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"", None),
        (b"\0\0\0", None),
        (b"\0\0\1\1\x0a\x4d\0\2\0\x50fragment", None),
        (b"\0\0\x80\1\x0a\x4d\0\2\0\x50fragment", None),
        (b"\0\1\0\1\x0a\x4d\0\2\0\x50", None),
        (b"\0\0\0\1\x0a\x4d\0\2\0\0port 0", None),
        (b"\0\0\0\1\x7f\0\0\1\0\x50this host", "policy"),
        (b"\0\0\0\1\xc0\0\2\1\0\x50outside", "policy"),
        (b"\0\0\0\4" + bytes(10) + b"\xff\xff\x7f\0\0\1\0\x50mapped", "policy"),
        (b"\0\0\0\1\xff\xff\xff\xff\0\x50everybody", "policy"),
        (os.urandom(2000), None),
    ],
)
def test_garbage_is_dropped_and_the_port_goes_on(garbage: bytes, reason: str | None) -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:
                await program.send(garbage, up.relay)
                await program.send(to(member, b"fine"), up.relay)
                assert (await member.hear())[0] == b"fine"
                assert up.tools.reasons == ({} if reason is None else {reason: 1})
                assert len(up.tools.goals) == 1  # the agent is not asked about what is not of the overlay

    run(test)


def test_what_is_too_long_with_its_header_is_lost_and_the_port_goes_on() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:
                await program.send(to(member, b"x" * 60_000), up.relay)
                data, source = await member.hear()
                assert len(data) == 60_000
                await member.send(b"y" * 65_507, source)
                await member.send(b"fits", source)
                assert (await program.hear())[0] == to(member, b"fits")

    run(test)


def test_the_port_ends_with_the_connection() -> None:
    async def test() -> None:
        with Party() as program, Party("127.77.0.2") as member:
            async with associated() as up:
                await asyncio.get_running_loop().sock_sendall(up.control, b"chatter")
                await program.send(to(member, b"?"), up.relay)
                await member.hear()
            program.sock.connect(up.relay)
            program.sock.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                program.sock.send(b"x")

    run(test)
