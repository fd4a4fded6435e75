"""Forwards of UDP: flows between clients and backends, on this host's loopback."""

from __future__ import annotations

import asyncio
import struct

import pytest

from tests.support.l4_tools import FakeTools
from tests.unit.l4.datagram_world import V4, V6, Peer, Running, entry_of, run, running, to
from warren.l4 import probe
from warren.l4.config import Health, Limits, Listen, Way
from warren.l4.kinds import Refused


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
