"""What every engine must do for a controller that listens, as scenarios that run against any of them."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from tests.support.engine_conformance import Bench, Scenario, key, pair, peer
from tests.support.packets import udp_packet
from warren.engine.base import SOCKETS_MAX, ControlPort, Engine
from warren.errors import OperationFailed, Unreachable
from warren.model.datagrams import (
    DATAGRAM_BYTES_MAX,
    ControlDatagram,
    ControlEvent,
    PathWanted,
    PeerHeard,
)
from warren.model.tunnel import PLAIN, PeerChange, TransportAddress, TunnelChange, Way
from warren.proto.stun.message import Class, Method, encode
from warren.proto.turn.channel import unwrap_train_untrusted, wrap_train

LISTENING_SCENARIOS: list[Scenario] = []
_A4, _B4, _A6, _B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
_A, _B = key("a").public_key(), key("b").public_key()


def _scenario(function: Scenario) -> Scenario:
    LISTENING_SCENARIOS.append(function)
    return function


def stun(number: int, method: int = Method.BINDING, cls: Class = Class.REQUEST, padding: int = 0) -> bytes:
    """A STUN message with that transaction."""
    return encode(method, cls, number.to_bytes(12, "big"), [(0x0026, bytes(padding))] if padding else [])


class Ear:
    """Hears what an engine tells, on ``port``."""

    def __init__(self) -> None:
        self.heard: list[ControlEvent] = []
        self.port: ControlPort

    @classmethod
    async def at(cls, engine: Engine) -> Ear:
        ear = cls()
        ear.port = await engine.listen(ear.heard.append)
        return ear

    def datagrams(self) -> list[ControlDatagram]:
        return [event for event in self.heard if isinstance(event, ControlDatagram)]


@_scenario
async def control_datagrams_travel_between_listeners_and_back_by_their_way(bench: Bench) -> None:
    a, b = await pair(bench)
    at_a, at_b = await Ear.at(a), await Ear.at(b)
    there, back = stun(1, padding=1000), stun(1, cls=Class.SUCCESS)
    at_a.port.send(ControlDatagram(there, await bench.address(b)))
    await bench.until(lambda: len(at_b.heard) == 1)
    (arrived,) = at_b.datagrams()
    assert (arrived.data, arrived.remote) == (there, await bench.address(a))
    assert arrived.way.source == (await bench.address(b)).ip
    assert (arrived.way.channel, arrived.way.socket) == (0, 0)
    at_b.port.send(ControlDatagram(back, arrived.remote, arrived.way))
    await bench.until(lambda: len(at_a.heard) == 1)
    assert [(d.data, d.remote) for d in at_a.datagrams()] == [(back, await bench.address(b))]
    at_a.port.close()
    at_b.port.close()


@_scenario
async def without_a_listener_control_datagrams_are_counted_and_answered_by_nobody(bench: Bench) -> None:
    a, b = await pair(bench)
    at_a = await Ear.at(a)
    at_a.port.send(ControlDatagram(stun(1), await bench.address(b)))
    packet = udp_packet(_A4, _B4, b"after it")
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    assert (await b.statistics())["control_unheard"] == 1
    assert at_a.heard == []
    at_a.port.close()


@_scenario
async def a_new_listener_takes_the_place_of_the_one_before(bench: Bench) -> None:
    a, b = await pair(bench)
    first = await Ear.at(b)
    second = await Ear.at(b)
    await bench.until(first.port.closed.done)
    first.port.close()
    at_a = await Ear.at(a)
    at_a.port.send(ControlDatagram(stun(1), await bench.address(b)))
    await bench.until(lambda: len(second.heard) == 1)
    assert first.heard == []
    assert not second.port.closed.done()
    second.port.close()
    second.port.close()
    assert second.port.closed.done()
    at_a.port.close()


@_scenario
async def a_pinned_peer_stays_where_the_listener_put_it_and_roams_without_one(bench: Bench) -> None:
    a, b = await pair(bench)
    before = await bench.address(a)
    await b.configure(TunnelChange(peers=(PeerChange(_A, endpoint=before, pinned=True),)))
    ear = await Ear.at(b)
    first, second, third = (udp_packet(_A4, _B4, b"%d" % n) for n in range(3))
    await bench.inject(a, first)
    await bench.expect(b, first)
    assert ear.heard == []
    await a.configure(TunnelChange(listen_port=0))
    await bench.inject(a, second)
    await bench.expect(b, second)
    (status,) = (await b.status()).peers
    assert (status.endpoint, status.pinned) == (before, True)
    await bench.until(lambda: len(ear.heard) == 1)
    (news,) = ear.heard
    assert isinstance(news, PeerHeard)
    assert (news.public_key, news.remote) == (_A, await bench.address(a))
    ear.port.close()
    await bench.inject(a, third)
    await bench.expect(b, third)
    assert (await b.status()).peers[0].endpoint == await bench.address(a)


@_scenario
async def a_handshake_of_a_pinned_peer_is_answered_where_it_came_from(bench: Bench) -> None:
    a, b = await pair(bench)
    nowhere = TransportAddress(ip_address("127.0.0.99"), 9)
    await b.configure(TunnelChange(peers=(PeerChange(_A, endpoint=nowhere, pinned=True),)))
    ear = await Ear.at(b)
    packet = udp_packet(_A4, _B4, b"answered")
    await bench.inject(a, packet)
    await bench.expect(b, packet)
    assert (await b.status()).peers[0].endpoint == nowhere
    ear.port.close()


@_scenario
async def packets_for_a_peer_without_an_endpoint_want_a_path_and_leave_once_there_is_one(bench: Bench) -> None:
    a, b = await pair(bench)
    ear = await Ear.at(b)
    packet = udp_packet(_B4, _A4, b"waits")
    await b.configure(TunnelChange(peers=(PeerChange(_A, pinned=True),)))
    await bench.inject(b, packet)
    await bench.until(lambda: len(ear.heard) == 1)
    assert ear.heard == [PathWanted(_A)]
    await b.configure(TunnelChange(peers=(PeerChange(_A, endpoint=await bench.address(a)),)))
    await bench.expect(a, packet)
    ear.port.close()


@_scenario
async def a_path_moves_to_a_socket_handed_over_and_back_within_one_session(bench: Bench) -> None:
    a, b = await pair(bench)
    ear = await Ear.at(a)
    where = await bench.address(b)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("0.0.0.0", 0))  # noqa: S104 - as the data plane's own
        port = sock.getsockname()[1]
        number = ear.port.hand_over(sock)
    assert number >= 1
    for count, way in enumerate((PLAIN, Way(socket=number), PLAIN, Way(socket=number))):
        await a.configure(TunnelChange(peers=(PeerChange(_B, endpoint=where, way=way, pinned=True),)))
        there, back = udp_packet(_A4, _B4, b"there %d" % count), udp_packet(_B4, _A4, b"back %d" % count)
        await bench.inject(a, there)
        await bench.expect(b, there)
        expected = port if way.socket else (await bench.address(a)).port
        seen = (await b.status()).peers[0].endpoint
        assert seen is not None
        assert seen.port == expected
        await bench.inject(b, back)
        await bench.expect(a, back)
        assert (await a.status()).peers[0].way == way
    assert (await a.statistics())["handshakes_completed"] == 1
    # The controller goes: its socket stays, since a peer is reached by it.
    ear.port.close()
    last = udp_packet(_A4, _B4, b"last")
    await bench.inject(a, last)
    await bench.expect(b, last)
    seen = (await b.status()).peers[0].endpoint
    assert seen is not None
    assert seen.port == port


@_scenario
async def only_so_many_sockets_are_taken_over_and_those_given_back_make_room(bench: Bench) -> None:
    a, _ = await pair(bench)
    ear = await Ear.at(a)
    socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS_MAX + 1)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        numbers = [ear.port.hand_over(sock) for sock in socks[:-1]]
        assert sorted(numbers) == list(range(1, SOCKETS_MAX + 1))
        with pytest.raises(OperationFailed, match="take one back"):
            ear.port.hand_over(socks[-1])
        ear.port.take_back(numbers[2])
        assert ear.port.hand_over(socks[-1]) == numbers[2]
        with pytest.raises(OperationFailed, match="UDP"), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            ear.port.hand_over(tcp)
    finally:
        for sock in socks:
            sock.close()
    ear.port.close()


async def relayed_pair(bench: Bench) -> tuple[Engine, Engine, TransportAddress, list[bytes]]:
    """A pair that reaches each other by channels 0x4001 (of a) and 0x4002 (of b) of one relay; the relay, and what it
    is asked.
    """
    a, b = await pair(bench)
    at_a, at_b = await bench.address(a), await bench.address(b)
    ends = {(at_a, 0x4001): (at_b, 0x4002), (at_b, 0x4002): (at_a, 0x4001)}

    def forward(data: bytes, source: TransportAddress) -> list[tuple[bytes, TransportAddress]]:
        buffer = bytearray(data)
        (run,), _ = unwrap_train_untrusted(buffer, len(buffer), len(buffer))
        if run.channel == 0:  # this relay has the channels already
            asked.append(data)
            return []
        destination, channel = ends[source, run.channel]
        return [(wrap_train(buffer[run.at : run.end], run.end - run.at, channel), destination)]

    asked: list[bytes] = []
    relay = await bench.relay(forward)
    await a.configure(TunnelChange(peers=(PeerChange(_B, endpoint=relay, way=Way(channel=0x4001), pinned=True),)))
    return a, b, relay, asked


@_scenario
async def a_pair_talks_through_channels_of_a_relay(bench: Bench) -> None:
    a, b, relay, _ = await relayed_pair(bench)
    await b.configure(TunnelChange(peers=(PeerChange(_A, endpoint=relay, way=Way(channel=0x4002), pinned=True),)))
    for size in (1, 1300):
        there, back = udp_packet(_A4, _B4, b"t" * size), udp_packet(_B6, _A6, b"b" * size)
        await bench.inject(a, there)
        await bench.expect(b, there)
        await bench.inject(b, back)
        await bench.expect(a, back)
    (known,) = (await b.status()).peers
    assert (known.endpoint, known.way) == (relay, Way(channel=0x4002))
    assert (await b.statistics())["roamed"] == 0


@_scenario
async def channel_data_is_taken_from_relays_only(bench: Bench) -> None:
    a, b, relay, asked = await relayed_pair(bench)
    ear, at_a = await Ear.at(b), await Ear.at(a)
    stranger = ControlDatagram(stun(1), await bench.address(b), Way(channel=0x4002))
    at_a.port.send(stranger)  # from a itself, which is no relay of b's
    await bench.inject(a, udp_packet(_A4, _B4, b"lost"))  # by the relay, of which b knows nothing
    direct = TunnelChange(peers=(PeerChange(_B, endpoint=await bench.address(b)),))
    await a.configure(direct)
    lost = (await b.statistics())["channel_data_refused"]
    assert lost >= 1
    assert ear.heard == []
    # b's controller asks the relay for a channel: from then on its ChannelData counts, also for control datagrams.
    ear.port.send(ControlDatagram(stun(2, Method.CHANNEL_BIND), relay))
    await bench.until(lambda: asked == [stun(2, Method.CHANNEL_BIND)])
    through = ControlDatagram(stun(3), relay, Way(channel=0x4001))
    at_a.port.send(through)
    await bench.until(lambda: len(ear.heard) >= 1)
    heard = ear.datagrams()[-1]
    assert (heard.data, heard.remote, heard.way.channel) == (stun(3), relay, 0x4002)
    ear.port.close()
    at_a.port.close()


@_scenario
async def too_long_or_impossible_control_datagrams_are_lost_and_nothing_else(bench: Bench) -> None:
    a, b = await pair(bench)
    at_a, at_b = await Ear.at(a), await Ear.at(b)
    where = await bench.address(b)
    at_a.port.send(ControlDatagram(bytes(DATAGRAM_BYTES_MAX + 1), where))
    at_a.port.send(ControlDatagram(stun(1), where, Way(ip_address("::1"))))
    at_a.port.send(ControlDatagram(stun(2), where, Way(socket=7)))
    at_a.port.send(ControlDatagram(stun(3), where, Way(channel=7)))
    at_a.port.send(ControlDatagram(b"", where, Way(channel=0x4000)))
    at_a.port.send(ControlDatagram(stun(4), where))
    await bench.until(lambda: len(at_b.heard) == 1)
    assert [d.data for d in at_b.datagrams()] == [stun(4)]
    at_a.port.close()
    at_b.port.close()


@_scenario
async def a_way_that_cannot_be_is_refused_and_nothing_changes(bench: Bench) -> None:
    a, b = await pair(bench)
    where, before = await bench.address(b), await a.status()
    for change in (
        PeerChange(_B, endpoint=where, way=Way(ip_address("::1"))),
        PeerChange(_B, endpoint=where, way=Way(channel=7)),
        PeerChange(_B, way=Way(channel=0x4000)),
    ):
        with pytest.raises(OperationFailed):
            await a.configure(TunnelChange(peers=(peer("c", "10.3.0.0/16"), change)))
        assert await a.status() == before


@_scenario
async def a_closed_engine_ends_its_port_and_takes_no_listener(bench: Bench) -> None:
    engine = await bench.engine("a")
    ear = await Ear.at(engine)
    await engine.close()
    await bench.until(ear.port.closed.done)
    ear.port.send(ControlDatagram(stun(1), TransportAddress(ip_address("127.0.0.1"), 9)))
    ear.port.take_back(1)
    ear.port.close()
    with pytest.raises(Unreachable):
        await engine.listen(ear.heard.append)
