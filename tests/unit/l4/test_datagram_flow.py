"""A flow of datagrams: which backend has it, what it holds meanwhile, and when it ends."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from tests.support.l4_tools import FakeTools
from tests.unit.l4.datagram_world import V4, Peer, entry_of, run, running, to
from warren.l4 import held
from warren.l4.config import Backend, Listen, Way
from warren.l4.datagrams import IDLE_S, DatagramEntry


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


# What goes away


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
