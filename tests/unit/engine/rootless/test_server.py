"""The helper's end of its socket: strangers, nonsense, too many at once, and clients that do not listen."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from warren.engine.rootless import messages, server
from warren.engine.rootless import sockets as sockets_module
from warren.engine.rootless.calls import Line
from warren.engine.rootless.messages import LENGTH_BYTES, Request, frame_length_untrusted, unpack_answer_untrusted
from warren.engine.rootless.server import CONNECTIONS_MAX, Server
from warren.engine.rootless.sockets import NestSockets, open_now
from warren.engine.rootless.work import Done, Work
from warren.errors import OperationFailed, Unreachable
from warren.linux import peers

PATIENCE_S = 30.0


class FakeWork(Work):
    """Answers each request with what it was; ``sockets`` are those of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Request] = []
        self.news = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: Exception | None = None

    async def do(self, request: Request) -> Done:
        self.asked.append(request)
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        match request:
            case messages.OpenSockets():
                return await super().do(request)
            case messages.GetSysctl(name):
                return Done(name)
            case messages.RunNft(document):
                return Done(document)
            case _:
                return Done()

    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self.news.wait()
            self.news.clear()
            yield


class Bench:
    def __init__(self, directory: Path, owner: int | None = None) -> None:
        self.path = directory / "run" / "nest.sock"
        self.work = FakeWork()
        self.server = Server(self.path, self.work, os.geteuid() if owner is None else owner)
        self._clients: list[socket.socket] = []

    def client(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._clients.append(made)
        made.setblocking(False)
        made.connect(str(self.path))
        return made

    async def close(self) -> None:
        for client in self._clients:
            client.close()
        await self.server.close()
        await self.work.close()
        self.path.unlink()


def play(directory: Path, scene: Callable[[Bench], Awaitable[None]], owner: int | None = None) -> None:
    async def run() -> None:
        bench = Bench(directory, owner)
        try:
            async with asyncio.timeout(PATIENCE_S * 4):
                await scene(bench)
        finally:
            await bench.close()

    asyncio.run(run())


async def read(client: socket.socket) -> messages.Answer | None:
    """The next answer; None when the server has closed."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            wanted = LENGTH_BYTES
            if len(data) >= LENGTH_BYTES:
                wanted += frame_length_untrusted(data[:LENGTH_BYTES])
            if len(data) == wanted > LENGTH_BYTES:
                return unpack_answer_untrusted(data[LENGTH_BYTES:])
            try:
                more = await loop.sock_recv(client, wanted - len(data))
            except ConnectionResetError:
                return None
            if not more:
                return None
            data += more


async def flood(client: socket.socket, frame: bytes) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(100_000):
        await loop.sock_sendall(client, frame)


async def works(bench: Bench) -> None:
    """Another client is served as ever."""
    line = Line(bench.path)
    try:
        assert await line.ask(messages.GetSysctl("net/x"), str) == "net/x"
    finally:
        line.close()


def test_the_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600
        assert stat.S_IMODE(bench.path.parent.stat().st_mode) == 0o700
        await works(bench)

    play(tmp_path, scene)


def test_a_directory_where_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run").chmod(0o770)
    with pytest.raises(OperationFailed, match="is not this user's alone"):
        server.listen(tmp_path / "run" / "nest.sock")


def test_a_process_of_another_user_is_turned_away_before_it_is_heard(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        client = bench.client()
        client.send(messages.pack_frame(messages.GetSysctl("net/x")))
        assert await read(client) is None
        assert bench.work.asked == []

    play(tmp_path, scene, owner=os.geteuid() + 1)


def test_a_helper_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write to the directory could listen there."""

    async def scene(bench: Bench) -> None:
        monkeypatch.setattr(peers, "peer_of", lambda _: peers.Peer(1, os.geteuid() + 1))
        line = Line(bench.path)
        with pytest.raises(Unreachable):
            await line.ask(messages.GetSysctl("net/x"), str)
        with pytest.raises(Unreachable):
            open_now(bench.path, socket.AF_INET, socket.SOCK_STREAM)

    play(tmp_path, scene)


def test_the_place_of_a_helper_that_serves_is_not_taken_and_that_of_a_dead_one_is(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        with pytest.raises(OperationFailed, match="is served already"):
            server.listen(bench.path)

    play(tmp_path, scene)
    path = tmp_path / "run" / "nest.sock"
    server.listen(path).close()
    assert path.is_socket()
    server.listen(path).close()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x05hello",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x0e\x81\xa4type\xa7Unknown",
        messages.pack_frame(messages.Answer(refused="I am no request")),
    ],
)
def test_nonsense_is_refused_and_costs_nobody_else_anything(tmp_path: Path, nonsense: bytes) -> None:
    async def scene(bench: Bench) -> None:
        client = bench.client()
        client.send(nonsense)
        answer = await read(client)
        assert answer is not None
        assert answer.refused
        assert await read(client) is None
        assert bench.work.asked == []
        await works(bench)

    play(tmp_path, scene)


def test_a_request_that_cannot_be_carried_out_is_refused_and_the_next_is_served(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        line = Line(bench.path)
        for error in (OperationFailed("not today"), OSError(errno.EPERM, "no"), ValueError("too large"), KeyError(7)):
            bench.work.fails = error
            with pytest.raises(OperationFailed, match="not today" if "not" in str(error) else "cannot do that"):
                await line.ask(messages.GetSysctl("net/x"), str)
        bench.work.fails = None
        assert await line.ask(messages.GetSysctl("net/y"), str) == "net/y"
        line.close()

    play(tmp_path, scene)


def test_a_long_request_and_a_long_answer_travel_whole(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        document = [{"add": {"rule": {"comment": "x" * 1000, "handle": number}}} for number in range(3000)]
        line = Line(bench.path)
        assert await line.ask(messages.RunNft(document), list) == document
        line.close()

    play(tmp_path, scene)


def test_one_that_stops_in_the_middle_of_a_request_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TRANSFER_S", 0.05)

    async def scene(bench: Bench) -> None:
        client = bench.client()
        client.send(messages.pack_frame(messages.GetSysctl("net/x"))[:-1])
        assert await read(client) is None
        assert bench.work.asked == []

    play(tmp_path, scene)


def test_one_that_does_not_take_its_answers_is_let_go_and_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TRANSFER_S", 0.2)

    async def scene(bench: Bench) -> None:
        client = bench.client()
        frame = messages.pack_frame(messages.OpenSockets(socket.AF_INET, socket.SOCK_STREAM, 0, 4))
        flooding = asyncio.create_task(flood(client, frame))
        await works(bench)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await flooding
        await works(bench)

    play(tmp_path, scene)


def test_beyond_the_ceiling_the_one_that_was_idle_longest_goes(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        clients = [bench.client() for _ in range(CONNECTIONS_MAX)]
        frame = messages.pack_frame(messages.GetSysctl("net/x"))
        for client in clients:
            client.send(frame)
            assert await read(client)
        clients[0].send(frame)  # it is no longer the one that was idle longest
        assert await read(clients[0])
        await works(bench)
        assert await read(clients[1]) is None
        clients[0].send(frame)
        assert await read(clients[0])

    play(tmp_path, scene)


def test_without_descriptors_it_waits_and_then_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_ACCEPT_AGAIN_S", 0.01)

    async def scene(bench: Bench) -> None:
        door = bench.server._door
        refusals = [OSError(errno.EMFILE, "Too many open files")] * 3

        class Full:
            def __getattr__(self, name: str) -> object:
                return getattr(door, name)

            def accept(self) -> tuple[socket.socket, object]:
                if refusals:
                    raise refusals.pop()
                return door.accept()

        monkeypatch.setattr(bench.server, "_door", Full())
        await works(bench)
        assert refusals == []
        monkeypatch.undo()

    play(tmp_path, scene)


def test_who_watches_hears_of_changes_and_ends_with_its_connection(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        client = bench.client()
        client.send(messages.pack_frame(messages.Watch()))
        assert await read(client) == messages.Answer()
        for _ in range(3):
            bench.work.news.set()
            assert await read(client) == messages.Answer()
        client.close()
        await works(bench)

    play(tmp_path, scene)


def test_sockets_that_are_asked_for_at_once_are_asked_for_in_few_messages(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        sockets = NestSockets(bench.path)
        made = await asyncio.gather(
            *(sockets.open(socket.AF_INET, socket.SOCK_STREAM) for _ in range(100)),
            *(sockets.open(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) for _ in range(5)),
        )
        kinds = {(sock.family, sock.type) for sock in made}
        assert kinds == {(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM)}
        assert all(not sock.getblocking() and not sock.get_inheritable() for sock in made)
        assert len(bench.work.asked) == 5
        for sock in made:
            sock.close()
        await sockets.close()

    play(tmp_path, scene)


def test_a_socket_of_a_kind_that_there_is_not_is_refused(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        sockets = NestSockets(bench.path)
        for sort in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, 99), (-1, 1), (2**40, 1)):
            with pytest.raises(OperationFailed):
                await sockets.open(*sort)
        (await sockets.open(socket.AF_INET, socket.SOCK_STREAM)).close()
        await sockets.close()

    play(tmp_path, scene)


def test_who_gives_up_waiting_for_a_socket_leaves_none_behind(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        sockets = NestSockets(bench.path)
        bench.work.gate.clear()
        patient = asyncio.create_task(sockets.open(socket.AF_INET, socket.SOCK_STREAM))
        while not bench.work.asked:
            await asyncio.sleep(0)
        impatient = asyncio.create_task(sockets.open(socket.AF_INET, socket.SOCK_STREAM))
        await asyncio.sleep(0)
        impatient.cancel()
        patient.cancel()
        await asyncio.gather(patient, impatient, return_exceptions=True)
        bench.work.gate.set()
        (await sockets.open(socket.AF_INET, socket.SOCK_STREAM)).close()
        await sockets.close()
        await asyncio.sleep(0)
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: PTH208 - the server's end closes a moment later
            await asyncio.sleep(0)

    play(tmp_path, scene)


def test_a_line_finds_the_helper_that_took_the_place_of_another(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        line = Line(bench.path)
        assert await line.ask(messages.GetSysctl("net/x"), str) == "net/x"
        await bench.server.close()
        with pytest.raises(Unreachable, match="no rootless engine answers"):
            await line.ask(messages.GetSysctl("net/x"), str)
        bench.server = Server(bench.path, bench.work, os.geteuid())
        assert await line.ask(messages.GetSysctl("net/y"), str) == "net/y"
        await bench.server.close()
        bench.server = Server(bench.path, bench.work, os.geteuid())
        assert await line.ask(messages.GetSysctl("net/z"), str) == "net/z", "between two requests nothing is noticed"
        line.close()

    play(tmp_path, scene)


def test_who_wants_a_socket_waits_for_the_next_helper_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(bench: Bench) -> None:
        sockets = NestSockets(bench.path)
        (await sockets.open(socket.AF_INET, socket.SOCK_STREAM)).close()
        await bench.server.close()
        waiting = asyncio.create_task(sockets.open(socket.AF_INET, socket.SOCK_STREAM))
        await asyncio.sleep(0)
        bench.server = Server(bench.path, bench.work, os.geteuid())
        (await waiting).close()
        await bench.server.close()
        monkeypatch.setattr(sockets_module, "HEALING_S", 0.0)
        with pytest.raises(OperationFailed, match="no rootless engine answers"):
            await sockets.open(socket.AF_INET, socket.SOCK_STREAM)
        await sockets.close()

    play(tmp_path, scene)


def test_an_answer_after_a_cancelled_question_is_not_taken_for_the_next(tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        line = Line(bench.path)
        bench.work.gate.clear()
        asking = asyncio.create_task(line.ask(messages.GetSysctl("net/first"), str))
        while not bench.work.asked:
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        bench.work.gate.set()
        assert await line.ask(messages.GetSysctl("net/second"), str) == "net/second"
        line.close()

    play(tmp_path, scene)
