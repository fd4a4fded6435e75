"""Which backend a stream gets, and why it gets none."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.l4_ends import LIMIT_S, backend, echo, free_port, listening, read_all, say_port, way_to
from warren.errors import OperationFailed
from warren.l4 import connect as module
from warren.l4 import listening as places
from warren.l4.config import Backend, Listen, Way
from warren.l4.connect import Dialler
from warren.l4.host_names import NAME_S
from warren.l4.kinds import Refused
from warren.l4.overlay import HostSockets, OverlaySockets
from warren.model.tunnel import TransportAddress
from warren.proto.proxy_protocol import Header, decode_untrusted

CLIENT = TransportAddress(ip_address("192.0.2.9"), 4321)
LOCAL = TransportAddress(ip_address("192.0.2.1"), 80)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(main: Callable[[Dialler, Clock], Awaitable[None]], overlay: OverlaySockets | None = None) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            clock = Clock()
            await main(Dialler(overlay or HostSockets(), clock), clock)

    asyncio.run(limited())


async def answer(dialler: Dialler, way: Way) -> bytes:
    connected = await dialler.connect(way, CLIENT, LOCAL)
    with connected.sock:
        return await read_all(connected.sock)


async def refusal(dialler: Dialler, way: Way) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        (await dialler.connect(way, CLIENT, LOCAL)).sock.close()
    return refused.value.reason, str(refused.value)


def test_the_best_backend_is_taken() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        async with listening(say_port) as one, listening(say_port) as two:
            for _ in range(5):
                assert await answer(dialler, way_to(one, two)) == str(one).encode()

    run(main)


def test_the_next_one_is_taken_when_the_best_refuses() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        async with listening(say_port) as alive:
            assert await answer(dialler, way_to(free_port(), free_port(), alive)) == str(alive).encode()

    run(main)


def test_who_failed_of_late_comes_last_and_not_for_ever() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        dead = free_port()
        async with listening(say_port) as alive:
            way = way_to(dead, alive)
            assert await answer(dialler, way) == str(alive).encode()
            candidates, _ = await dialler._candidates(way)
            assert [one.backend.port for one in candidates] == [alive, dead]
            clock.now += module.FAILED_S
            candidates, _ = await dialler._candidates(way)
            assert [one.backend.port for one in candidates] == [dead, alive]

    run(main)


class Silent(HostSockets):
    """Of the overlay no socket comes: like a backend that does not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.given_up = 0

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        self.asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1
        raise AssertionError


def test_a_silent_backend_is_not_waited_for_and_is_let_go_once_another_answers() -> None:
    silent = Silent()

    async def main(dialler: Dialler, clock: Clock) -> None:
        async with listening(say_port) as alive:
            silence = Backend(name="s", side="overlay", host="::1", port=1)
            way = Way(backends=(silence, backend(alive)), connect_timeout_s=2 * LIMIT_S)
            assert await answer(dialler, way) == str(alive).encode()
            assert (silent.asked, silent.given_up) == (1, 1)

    run(main, silent)


def test_nobody_is_waited_for_longer_than_the_way_says() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        one = Backend(name="far", side="overlay", host="::1", port=7)
        reason, sentence = await refusal(dialler, Way(backends=(one,), connect_timeout_s=0.02))
        assert (reason, sentence) == ("timeout", "far ([::1]:7) did not answer in 0.02 s")
        reason, _ = await refusal(dialler, Way(backends=(one, one), connect_timeout_s=0.02))
        assert reason == "timeout"

    run(main, Silent())


def test_refused_connections_are_told_with_the_name_of_the_backend() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        port = free_port()
        reason, sentence = await refusal(dialler, way_to(port))
        assert reason == "connect"
        assert sentence == f"b (127.0.0.1:{port}) refuses connections: is the program there running?"

    run(main)


def test_a_refusal_and_no_backend_are_told_at_once() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        assert await refusal(dialler, Way(refusal="the policy of home forbids it", backends=(backend(1),))) == (
            "policy",
            "the policy of home forbids it",
        )
        assert (await refusal(dialler, Way()))[0] == "no-backend"

    run(main, Silent())


def test_names_are_resolved_at_the_host_and_for_a_moment_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        asked = []

        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            return [(socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0)), (socket.AF_INET, 1, 6, "", ("127.0.0.1", port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        async with listening(say_port) as port:  # on IPv4 alone: the first address refuses
            way = Way(backends=(Backend(name="web", side="host", host="web.example", port=port),))
            assert await answer(dialler, way) == str(port).encode()
            assert await answer(dialler, way) == str(port).encode()
            assert asked == ["web.example"]
            clock.now += NAME_S
            await answer(dialler, way)
            assert asked == ["web.example"] * 2

    run(main)


def test_a_name_that_does_not_resolve_is_told_and_the_next_backend_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        unknown = Backend(name="x", side="host", host="no.example", port=1)
        reason, sentence = await refusal(dialler, Way(backends=(unknown,)))
        assert reason == "unresolved"
        assert sentence == (
            "the name no.example cannot be looked up here: Name or service not known: correct the name, or this host's "
            "DNS"
        )
        async with listening(say_port) as port:
            assert await answer(dialler, Way(backends=(unknown, backend(port)))) == str(port).encode()

    run(main)


def test_a_resolver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            await asyncio.Event().wait()
            return []

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        way = Way(backends=(Backend(name="x", side="host", host="slow.example", port=1),), connect_timeout_s=0.02)
        assert (await refusal(dialler, way))[0] == "unresolved"

    run(main)


class NoRoom(HostSockets):
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        raise self._error


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "x"), OperationFailed("the helper has just ended")])
def test_a_host_without_room_is_told_as_such(error: Exception) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        way = Way(backends=(Backend(name="x", side="overlay", host="::1", port=1),))
        assert (await refusal(dialler, way))[0] == "resources"

    run(main, NoRoom(error))


def test_unix_sockets_are_backends_too(tmp_path: Path) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        path = str(tmp_path / "s")
        way = Way(backends=(Backend(name="app", side="host", path=path),))
        reason, sentence = await refusal(dialler, way)
        assert reason == "connect"
        assert f"app (unix:{path})" in sentence
        server = await asyncio.start_unix_server(echo, path)
        connected = await dialler.connect(way, None, None)
        assert connected.sock.family == socket.AF_UNIX
        connected.sock.close()
        server.close()
        await server.wait_closed()

    run(main)


async def first_bytes(dialler: Dialler, way: Way, *, own: bool = False) -> bytes:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def attend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.set_result(await reader.read())

    async with listening(attend) as port:
        one = Backend(name="b", side="host", host="127.0.0.1", port=port, proxy_out=way.backends[0].proxy_out)
        if way.backends[0].connector_port:
            one = Backend(name="b", side="host", host="127.0.0.1", port=1, connector_port=port)
        connected = await dialler.connect(Way(backends=(one,)), CLIENT, LOCAL, own=own)
        connected.sock.close()
        return await got


@pytest.mark.parametrize("told", [{"proxy_out": True}, {"connector_port": 1}])
def test_the_target_is_told_who_the_client_is(told: dict[str, object]) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        data = await first_bytes(dialler, Way(backends=(backend(1, **told),)))
        assert decode_untrusted(data) == (Header(CLIENT, LOCAL), len(data))

    run(main)


def test_a_check_says_that_it_is_one_and_others_say_nothing() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        data = await first_bytes(dialler, Way(backends=(backend(1, proxy_out=True),)), own=True)
        assert decode_untrusted(data) == (Header(None, None, local=True), 16)
        assert await first_bytes(dialler, Way(backends=(backend(1),))) == b""

    run(main)


def test_what_is_remembered_of_failures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
        for _ in range(5):
            await refusal(dialler, way_to(free_port()))
        assert len(dialler._failed) <= 3

    run(main)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", ""])
def test_what_leads_back_to_a_listener_of_this_process_is_refused(address: str) -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        with await places.listen(Listen(address=address), HostSockets()) as listener:
            port = listener.getsockname()[1]
            way = Way(backends=(Backend(name="t", side="host", host=address or "127.0.0.1", port=port),))
            reason, sentence = await refusal(dialler, way)
            assert reason == "connect"
            assert "where Warren itself listens" in sentence
            with pytest.raises(BlockingIOError):
                listener.accept()  # nobody came

    run(main)


def test_services_of_this_node_are_used_by_way_of_the_overlay() -> None:
    async def main(dialler: Dialler, clock: Clock) -> None:
        with await places.listen(Listen(address="127.0.0.1"), HostSockets()) as listener:
            port = listener.getsockname()[1]
            way = Way(backends=(Backend(name="s", side="overlay", host="127.0.0.1", port=port),))
            (await dialler.connect(way, CLIENT, LOCAL)).sock.close()

    run(main)


def test_nothing_is_connected_to_warrens_own_sockets(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            way = Way(backends=(Backend(name="t", side="host", path=str(path)),))
            open_one, closed_one = (Dialler(HostSockets(), Clock(), closed) for closed in ((), (tmp_path,)))
            (await open_one.connect(way, CLIENT, LOCAL)).sock.close()
            listener.accept()[0].close()
            assert "Warren's own" in (await refusal(closed_one, way))[1]
            with pytest.raises(BlockingIOError):
                listener.accept()

    asyncio.run(main())
