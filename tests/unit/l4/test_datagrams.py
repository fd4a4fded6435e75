"""Forwards of UDP: flows between clients and backends, on this host's loopback."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.l4_parties import Party
from tests.support.l4_tools import FakeTools
from warren.l4 import held, probe
from warren.l4.config import Backend, Entry, Health, Limits, Listen, Way
from warren.l4.datagrams import IDLE_S, DatagramEntry
from warren.l4.kinds import Refused

V4, V6 = "127.0.0.1", "::1"


class Peer(Party):
    """A client or a backend."""

    async def receive(self) -> tuple[bytes, Any]:
        data, source = await self.hear()
        return data, source[:2]

    async def answer(self, data: bytes = b"answer") -> bytes:
        """Answer the next datagram; what was in it."""
        asked, source = await self.receive()
        await self.send(data, source)
        return asked


def to(*peers: Peer, **more: Any) -> Way:
    backends = tuple(Backend(name=f"b{n}", side="host", host=p.place[0], port=p.place[1]) for n, p in enumerate(peers))
    return Way(backends=backends, **more)


def entry_of(way: Way, *, listen: tuple[Listen, ...] = (Listen(protocol="udp", address=V4),), **more: Any) -> Entry:
    return Entry(id="forward", listen=listen, way=way, **more)


class Running:
    def __init__(self, entry: DatagramEntry, tools: FakeTools) -> None:
        self.entry, self.tools = entry, tools

    @property
    def place(self) -> Any:
        return self.at(0)

    def at(self, number: int) -> Any:
        host, _, port = self.entry.state().places[number].rpartition(":")
        return host.strip("[]"), int(port)


@asynccontextmanager
async def running(entry: Entry, tools: FakeTools | None = None) -> AsyncIterator[Running]:
    tools = tools or FakeTools()
    made = DatagramEntry(entry, tools)
    await made.open()
    try:
        yield Running(made, tools)
    finally:
        await made.close()
    assert tools.open == 0
    assert made.room.used == 0
    assert len(made.table) == 0


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        before = set(asyncio.all_tasks())
        await test()
        await asyncio.sleep(0)
        assert set(asyncio.all_tasks()) <= before

    asyncio.run(whole())


@pytest.mark.parametrize("outside", [V4, V6])
@pytest.mark.parametrize("inside", [V4, V6])
def test_datagrams_go_there_and_back_between_all_ip_versions(outside: str, inside: str) -> None:
    async def test() -> None:
        with Peer(inside) as backend, Peer(outside) as client:
            async with running(entry_of(to(backend), listen=(Listen(protocol="udp", address=outside),))) as up:
                for data in (b"one", b"", b"x" * 20_000):
                    await client.send(data, up.place)
                    assert await backend.answer(data[::-1] + b"!") == data
                    assert await client.receive() == (data[::-1] + b"!", up.place)
                assert (up.tools.bytes_in, up.tools.bytes_out) == (20_003, 20_006)
                assert (up.tools.open, up.tools.opened) == (1, 1)

    run(test)


def test_each_client_port_is_a_flow_of_its_own() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as one, Peer() as other:
            async with running(entry_of(to(backend))) as up:
                places = []
                for client in (one, other, one):
                    await client.send(b"hello", up.place)
                    _, place = await backend.receive()
                    places.append(place)
                    await backend.send(str(client.place).encode(), place)
                    assert await client.receive() == (str(client.place).encode(), up.place)
                assert places[0] == places[2] != places[1]
                assert up.tools.opened == 2

    run(test)


def test_a_wildcard_listener_answers_from_the_address_that_was_spoken_to() -> None:
    async def test() -> None:
        with Peer() as backend:
            async with running(entry_of(to(backend), listen=(Listen(protocol="udp"),))) as up:
                port = up.place[1]
                for address, own in ((V4, V4), ("127.0.0.2", "127.0.0.9"), (V6, V6)):
                    with Peer(own) as client:
                        await client.send(b"?", (address, port))
                        await backend.answer()
                        assert await client.receive() == (b"answer", (address, port))
                assert up.tools.opened == 3

    run(test)


def test_answers_of_anybody_but_the_backend_are_dropped() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client, Peer() as same_host, Peer("127.0.0.2") as other_host:
            async with running(entry_of(to(backend))) as up:
                await client.send(b"?", up.place)
                _, flow = await backend.receive()
                for spoofer in (same_host, other_host):
                    await spoofer.send(b"spoofed", flow)
                await backend.send(b"true", flow)
                assert await client.receive() == (b"true", up.place)
                assert client.has_nothing()

    run(test)


def test_nobody_is_answered_more_than_the_backend_says_or_without_having_asked() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client, Peer() as bystander:
            async with running(entry_of(to(backend))) as up:
                for _ in range(20):
                    await client.send(b"x" * 100, up.place)
                for _ in range(20):
                    await backend.receive()
                await client.send(b"last", up.place)
                await backend.answer()
                assert await client.receive() == (b"answer", up.place)
                assert client.has_nothing()
                assert bystander.has_nothing()
                assert up.tools.bytes_out == len("answer")

    run(test)


# Which backend


def test_a_backend_that_is_not_there_is_passed_over_with_nothing_lost() -> None:
    async def test() -> None:
        with Peer() as dead, Peer() as alive, Peer() as client:
            way = to(dead, alive)
            dead.sock.close()
            async with running(entry_of(way)) as up:
                for data in (b"first", b"second"):
                    await client.send(data, up.place)
                asked = {await alive.answer(), await alive.answer()}
                assert asked == {b"first", b"second"}
                assert await client.receive() == (b"answer", up.place)
                with Peer() as later:  # and the next flow does not ask the dead one first
                    await later.send(b"third", up.place)
                    assert await alive.answer() == b"third"
                assert up.tools.reasons == {}

    run(test)


def test_a_flow_moves_on_when_its_backend_dies() -> None:
    async def test() -> None:
        with Peer() as first, Peer() as second, Peer() as client:
            async with running(entry_of(to(first, second))) as up:
                await client.send(b"1", up.place)
                await first.answer()
                await client.receive()
                first.sock.close()
                await client.send(b"2", up.place)  # lost: that nobody is there is known only now
                async with asyncio.timeout(10):
                    while second.has_nothing():
                        await client.send(b"3", up.place)
                        await asyncio.sleep(0)
                assert up.tools.opened == 1

    run(test)


def test_a_backend_that_is_silent_gives_way_to_the_next_and_that_one_gets_all_that_was_asked() -> None:
    async def test() -> None:
        with Peer() as silent, Peer() as talks, Peer() as client:
            async with running(entry_of(to(silent, talks, connect_timeout_s=0.05))) as up:
                await client.send(b"first", up.place)
                async with asyncio.timeout(10):
                    while talks.has_nothing():
                        await client.send(b"again", up.place)
                        await asyncio.sleep(0.01)
                await client.send(b"last", up.place)
                asked, source = await talks.receive()
                while asked != b"last":
                    asked, source = await talks.receive()
                await talks.send(b"here", source)
                assert await client.receive() == (b"here", up.place)

    run(test)


def test_when_all_are_silent_the_best_one_keeps_the_flow() -> None:
    async def test() -> None:
        with Peer() as best, Peer() as other, Peer() as client:
            async with running(entry_of(to(best, other, connect_timeout_s=0.0))) as up:
                for number in range(30):
                    await client.send(b"%d" % number, up.place)
                    await asyncio.sleep(0.002)
                got = {await best.receive()}
                while b"29" not in {data for data, _ in got}:
                    got.add(await best.receive())

    run(test)


def test_one_backend_that_is_not_there_is_counted_and_the_next_datagram_tries_again() -> None:
    async def test() -> None:
        with Peer() as gone, Peer() as client:
            way, place = to(gone), gone.place
            gone.sock.close()
            async with running(entry_of(way)) as up:
                await client.send(b"1", up.place)
                await up.tools.until(lambda: up.tools.reasons["connect"] == 1 and not up.tools.open)
                with Peer(*place) as back:
                    await client.send(b"2", up.place)
                    assert await back.answer() == b"2"
                    assert await client.receive() == (b"answer", up.place)

    run(test)


def test_names_of_the_host_are_resolved_and_each_address_is_tried() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            way = Way(backends=(Backend(name="b", side="host", host="localhost", port=backend.place[1]),))
            async with running(entry_of(way)) as up:
                await client.send(b"?", up.place)
                assert await backend.answer() == b"?"
                assert await client.receive() == (b"answer", up.place)

    run(test)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "bad..name", "x" * 64])
def test_a_name_that_does_not_resolve_is_a_refusal(host: str) -> None:
    async def test() -> None:
        way = Way(backends=(Backend(name="b", side="host", host=host, port=53),))
        async with running(entry_of(way)) as up:
            with Peer() as client:
                await client.send(b"?", up.place)
                await up.tools.until(lambda: up.tools.reasons["unresolved"] == 1)

    run(test)


def test_a_resolver_that_does_not_answer_is_asked_once_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = [], threading.Event()

    def silent(*question: object, **_: object) -> list[Any]:
        asked.append(question)
        answered.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    async def test() -> None:
        way = Way(backends=(Backend(name="b", side="host", host="slow.example", port=53),), connect_timeout_s=0.05)
        async with running(entry_of(way)) as up:
            with Peer() as one, Peer() as other:
                monkeypatch.setattr(socket, "getaddrinfo", silent)
                for client in (one, other):
                    await client.send(b"?", up.place)
                await up.tools.until(lambda: up.tools.reasons["unresolved"] == 2)
                assert str(up.tools.refusals[0]) == "slow.example does not resolve: nobody answers in time"
                assert len(asked) == 1
        answered.set()

    run(test)


@pytest.mark.logs_errors
def test_a_bug_ends_one_flow_alone() -> None:
    async def test() -> None:
        tools = FakeTools()
        with Peer() as client:
            one = Backend(name="b", side="overlay", host=V4, port=9)
            async with running(entry_of(Way(backends=(one,))), tools) as up:
                tools.overlay = None  # type: ignore[assignment]
                await client.send(b"?", up.place)
                await tools.until(lambda: tools.opened == 1 and tools.open == 0)

    run(test)


def test_what_leads_back_to_the_entry_itself_is_refused() -> None:
    async def test() -> None:
        async with running(entry_of(Way(), listen=(Listen(protocol="udp"),))) as up:
            port = up.place[1]
            way = Way(backends=(Backend(name="b", side="host", host=V4, port=port),))
            await up.entry.update(entry_of(way, listen=(Listen(protocol="udp"),)))
            with Peer() as client:
                await client.send(b"?", (V4, port))
                await up.tools.until(lambda: up.tools.reasons["connect"] == 1)
            assert up.tools.opened == 1

    run(test)


# Limits


def test_without_a_backend_and_against_the_policy_nothing_begins() -> None:
    async def test() -> None:
        for way, reason in ((Way(), "no-backend"), (Way(refusal="the policy forbids it"), "policy")):
            async with running(entry_of(way)) as up:
                with Peer() as client:
                    await client.send(b"?", up.place)
                    await up.tools.until(lambda reason=reason, up=up: up.tools.reasons[reason] == 1)  # type: ignore[misc]
                assert up.tools.opened == 0

    run(test)


def test_who_may_not_come_in_is_not_carried() -> None:
    async def test() -> None:
        tools = FakeTools()
        tools.refuse_to_admit = Refused("source", "not in the list")
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend)), tools) as up:
                await client.send(b"?", up.place)
                await tools.until(lambda: tools.reasons["source"] == 1)
                tools.refuse_to_admit = None
                await client.send(b"!", up.place)
                assert await backend.answer() == b"!"
                assert backend.has_nothing()

    run(test)


def test_a_flood_of_flows_stays_below_the_ceiling_and_a_proven_flow_lives() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend), limits=Limits(streams_max=8))) as up:
                for _ in range(2):
                    await client.send(b"mine", up.place)
                    _, place = await backend.receive()
                    await backend.send(b"yours", place)
                    await client.receive()
                for number in range(50):
                    with Peer(f"127.0.1.{number}") as stranger:
                        await stranger.send(b"flood", up.place)
                        await backend.receive()
                    assert up.tools.open <= 8
                await client.send(b"mine", up.place)
                data, again = await backend.receive()
                assert (data, again) == (b"mine", place)

    run(test)


def test_a_flow_that_is_idle_ends_and_what_moves_in_either_direction_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(DatagramEntry, "now", lambda _: clock[0])

    async def test() -> None:
        with Peer() as backend, Peer() as client, Peer() as idle:
            async with running(entry_of(to(backend, idle_s=60.0))) as up:
                for peer in (idle, client):
                    await peer.send(b"begin", up.place)
                    _, place = await backend.receive()
                clock[0] = 50.0
                await backend.send(b"still here", place)
                await client.receive()
                clock[0] = 100.0
                await up.tools.until(lambda: up.tools.open == 1)
                await client.send(b"still here, too", up.place)
                assert (await backend.receive())[1] == place
                clock[0] = 159.0
                for _ in range(10):
                    await asyncio.sleep(0)
                assert up.tools.open == 1
                clock[0] = 160.0
                await up.tools.until(lambda: up.tools.open == 0)
                await idle.send(b"again", up.place)
                await backend.receive()
                assert up.tools.opened == 3

    run(test)


def test_after_a_minute_without_a_word_a_flow_ends_unless_the_way_says_otherwise() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend, idle_s=0.01))) as up:
                await client.send(b"once", up.place)
                await up.tools.until(lambda: up.tools.opened == 1 and up.tools.open == 0)
        assert IDLE_S == 60

    run(test)


@pytest.mark.parametrize(("bytes_max", "kept"), [(held.HELD_BYTES_MAX, 32), (10, 4)])
def test_what_is_held_for_a_backend_that_is_being_asked_for_has_a_ceiling(
    bytes_max: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held, "HELD_BYTES_MAX", bytes_max)

    async def test() -> None:
        tools = FakeTools()
        asked, released = asyncio.Event(), asyncio.Event()

        class Slow:
            async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
                asked.set()
                await released.wait()
                return socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)

        with Peer() as backend, Peer() as client:
            way = to(backend)
            one = Backend(name="b", side="overlay", host=way.backends[0].host, port=way.backends[0].port)
            async with running(entry_of(Way(backends=(one,))), tools) as up:
                tools.overlay = Slow()
                for number in range(60):
                    await client.send(b"x" * (number + 1), up.place)  # ever longer: none joins another
                await asked.wait()
                await tools.until(lambda: tools.bytes_in == sum(range(61)))
                released.set()
                got = [(await backend.receive())[0] for _ in range(kept)]
                assert got == [b"x" * (number + 1) for number in range(kept)]
                await client.send(b"later", up.place)
                assert await backend.answer() == b"later"
                assert up.entry.room.used == 0

    run(test)


# Changes


def test_a_new_way_ends_flows_to_backends_that_are_gone_and_keeps_the_others() -> None:
    async def test() -> None:
        with Peer() as one, Peer() as other, Peer() as client:
            async with running(entry_of(to(one))) as up:
                await client.send(b"1", up.place)
                await one.answer()
                await client.receive()
                place = up.place
                await up.entry.update(entry_of(Way(backends=(*to(other).backends, *to(one).backends))))
                await client.send(b"2", place)
                assert await one.answer() == b"2"
                await up.entry.update(entry_of(to(other)))
                await client.send(b"3", place)
                assert await other.answer() == b"3"
                await up.entry.update(entry_of(Way(backends=to(other).backends, refusal="not any more")))
                assert up.tools.open == 0
                assert up.place == place

    run(test)


def test_flows_end_when_other_places_may_be_gone_to() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend), allowed=("192.0.2.0/24",))) as up:
                await client.send(b"1", up.place)
                await backend.answer()
                await up.entry.update(entry_of(to(backend), allowed=("192.0.2.0/24",)))
                assert up.tools.open == 1
                await up.entry.update(entry_of(to(backend)))
                assert up.tools.open == 0

    run(test)


def test_listeners_come_and_go_and_those_that_stay_are_untouched() -> None:
    async def test() -> None:
        first, second = (Listen(protocol="udp", address=address) for address in (V4, V6))
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend), listen=(first,))) as up:
                await client.send(b"1", up.place)
                await backend.answer()
                place = up.place
                await up.entry.update(entry_of(to(backend), listen=(first, second)))
                assert up.place == place
                with Peer(V6) as other:
                    await other.send(b"2", up.at(1))
                    assert await backend.answer() == b"2"
                    await up.entry.update(entry_of(to(backend), listen=(second,)))
                    assert up.tools.open == 1
                    assert up.place[0] == V6

    run(test)


def test_a_port_in_use_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warren.l4.datagrams.RETRY_S", 0.01)

    async def test() -> None:
        with Peer() as backend, Peer() as client:
            squatter = Peer()
            where = Listen(protocol="udp", address=V4, port=squatter.place[1])
            async with running(entry_of(to(backend), listen=(where,))) as up:
                state = up.entry.state()
                assert (state.state, state.places) == ("failed", ())
                assert "in use by another program" in state.reason
                squatter.sock.close()
                async with asyncio.timeout(10):
                    while up.entry.state().state != "listening":
                        await asyncio.sleep(0.01)
                await client.send(b"1", (V4, where.port))
                assert await backend.answer() == b"1"

    run(test)


def test_datagrams_are_not_taken_from_unix_sockets() -> None:
    async def test() -> None:
        async with running(entry_of(Way(), listen=(Listen(protocol="udp", path="/tmp/x"),))) as up:
            assert "name a port" in up.entry.state().reason

    run(test)


async def until(up: Running, state: str) -> None:
    async with asyncio.timeout(20):
        while up.entry.state().state != state:
            await asyncio.sleep(0.005)


def test_an_entry_that_watches_health_does_not_listen_before_its_backend_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "SILENCE_S", 0.05)

    async def test() -> None:
        with Peer() as backend, Peer() as client:
            place, way = backend.place, to(backend)
            backend.sock.close()
            async with running(entry_of(way, health=Health(every_s=0.05))) as up:
                state = up.entry.state()
                assert (state.state, state.places) == ("unhealthy", ())
                assert state.reason == "b0 takes no datagrams: is the program there running?"
                with Peer(port=place[1]) as again:
                    await until(up, "listening")
                    await client.send(b"1", up.place)
                    while not (data := (await again.receive())[0]):
                        pass  # what it was asked by
                    assert data == b"1"
                await until(up, "unhealthy")
                async with asyncio.timeout(20):
                    while up.entry.state().places:
                        await asyncio.sleep(0.005)

    run(test)


def test_a_flow_that_meets_with_nobody_makes_an_entry_unhealthy_until_the_next_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "SILENCE_S", 0.05)

    async def test() -> None:
        with Peer() as backend, Peer() as client:
            way = to(backend)
            async with running(entry_of(way, health=Health(every_s=3600))) as up:
                assert (await backend.receive())[0] == b""
                await until(up, "listening")
                place = backend.place
                backend.sock.close()
                await client.send(b"1", up.place)
                await up.tools.until(lambda: up.tools.reasons["connect"] == 1)
                assert (up.entry.state().state, up.entry.state().places) == ("unhealthy", ())
                with Peer(port=place[1]):
                    await until(up, "listening")

    run(test)


def test_silence_and_answers_say_nothing_against_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SILENCE_S", 0.05)

    async def test() -> None:
        with Peer() as backend:
            async with running(entry_of(to(backend), health=Health(every_s=0.01))) as up:
                for _ in range(5):
                    assert await backend.answer(b"who are you?") == b""
                    assert up.entry.state().state == "listening"
                for _ in range(5):
                    assert (await backend.receive())[0] == b""
                    assert up.entry.state().state == "listening"
                assert up.tools.opened == 0

    run(test)


def test_with_other_health_to_watch_an_entry_goes_on_as_it_was() -> None:
    async def test() -> None:
        with Peer() as backend:
            way = to(backend)
            async with running(entry_of(way, health=Health(every_s=3600))) as up:
                door = up.place
                await up.entry.update(entry_of(way, health=Health(every_s=1800)))
                assert up.place == door
                backend.sock.close()
                await up.entry.update(entry_of(way, health=Health(every_s=900)))
                await until(up, "unhealthy")
                await up.entry.update(entry_of(way, listen=up.entry.entry.listen))
                assert up.entry.state().state == "listening"

    run(test)


def test_what_is_sent_at_once_is_so_no_more_when_the_backend_has_gone() -> None:
    async def test() -> None:
        with Peer() as gone, Peer() as silent, Peer() as client:
            async with running(entry_of(to(gone, silent))) as up:
                for _ in range(2):
                    await client.send(b"?", up.place)
                    await gone.answer()
                    await client.receive()
                (flow,) = up.entry.table
                assert flow.forward_one(memoryview(b"one"))
                assert (await gone.receive())[0] == b"one"
                gone.sock.close()
                assert flow.forward_one(memoryview(b"two"))
                assert flow.forward_one(memoryview(b"three"))  # the answer to the last is that nobody is there
                assert flow.backend is None
                await client.send(b"four", up.place)
                assert (await silent.receive())[0] == b"four"
                assert not flow.forward_one(memoryview(b"five"))  # it is to be kept until there is an answer

    run(test)


def test_closing_while_a_flow_opens_leaves_nothing_behind() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend))) as up:
                await client.send(b"?", up.place)
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    run(test)


# Many datagrams in one call


def test_trains_arrive_as_the_datagrams_that_were_sent() -> None:
    async def test() -> None:
        with Peer() as backend, Peer() as client:
            async with running(entry_of(to(backend))) as up:
                train = b"".join(bytes((number,)) * 100 for number in range(20)) + b"rest"
                client.sock.sendmsg([train], [(17, 103, struct.pack("=H", 100))], 0, up.place)
                got = [await backend.receive() for _ in range(21)]
                assert [data for data, _ in got] == [train[at : at + 100] for at in range(0, len(train), 100)]
                backend.sock.sendmsg([train], [(17, 103, struct.pack("=H", 100))], 0, got[0][1])
                assert [(await client.receive())[0] for _ in range(21)] == [data for data, _ in got]

    run(test)
