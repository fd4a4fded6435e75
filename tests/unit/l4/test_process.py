"""The stream process and the agent's end of it: both in one loop over a real socket, and as processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.l4_ends import LIMIT_S, LOOPBACK, client, echo, listening, port_of, until, way_to
from warren import __version__
from warren.errors import OperationFailed, Unreachable
from warren.l4 import control as control_module
from warren.l4 import process as process_module
from warren.l4.config import Config, Entry, Listen, Status, Way
from warren.l4.control import VERSION, Control, Hello
from warren.l4.kinds import Goal, Refused, Unanswered
from warren.l4.overlay import HostSockets
from warren.l4.process import StreamProcess
from warren.l4.serve import Server
from warren.model.tunnel import IPAddress

HELLO = Hello(version=VERSION, release=__version__, nest="")
FORWARD = Entry(id="forward x", listen=(LOOPBACK,), way=Way(refusal="nobody is there"))


@asynccontextmanager
async def control_at(path: Path, *, stop: Callable[[], None] = lambda: None) -> AsyncIterator[Control]:
    control = Control(path, HELLO, stop)
    await control.open()
    control.server = Server(HostSockets(), control.resolve, control.changed)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield control
    finally:
        await control.close()
        await control.server.close()


async def attached(path: Path) -> StreamProcess:
    found = await StreamProcess._attach(path, None)
    assert found is not None
    return found[0]


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S * 2):
            await main()

    asyncio.run(limited())


def test_a_configuration_is_taken_up_and_its_state_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s"):
            agent = await attached(tmp_path / "s")
            status = await agent.configure(Config(entries=(FORWARD,)))
            assert status.entries[0].state == "listening"
            assert (await agent.status()) == status
            await agent.detach()

    run(main)


def test_the_agent_is_told_when_a_state_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            agent = await attached(tmp_path / "s")
            control.changed()
            control.changed()
            await agent.changed.wait()
            await agent.detach()

    run(main)


def test_names_are_asked_of_the_agent(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            with pytest.raises(Refused, match="the agent does not run"):
                await control.resolve("web")
            agent = await attached(tmp_path / "s")
            await until(lambda: control._agent is not None)
            agent.resolver = {"web": ("fd00::1", "10.0.0.1"), "nobody": ()}.__getitem__
            assert await control.resolve("web") == (ip_address("fd00::1"), ip_address("10.0.0.1"))
            with pytest.raises(Refused, match="no member or service nobody"):
                await control.resolve("nobody")

            def fails(name: str) -> tuple[str, ...]:
                raise OperationFailed(f"{name} is in two networks")

            agent.resolver = fails
            with pytest.raises(Refused, match="web is in two networks") as refused:
                await control.resolve("web")
            assert refused.value.reason == "unresolved"
            await agent.detach()

    run(main)


def test_the_agent_says_where_the_policy_lets_one_go(tmp_path: Path) -> None:
    def judge(address: IPAddress, protocol: str, port: int) -> tuple[str, str] | None:
        if address == ip_address("fd00::9"):
            return "unresolved", "nobody has it"
        return ("policy", f"{protocol}/{port} of {address} is denied") if port == 25 and address.version == 6 else None

    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            agent = await attached(tmp_path / "s")
            await until(lambda: control._agent is not None)
            agent.resolver = {"web": ("fd00::1", "10.0.0.1"), "six": ("fd00::1",), "nobody": ()}.__getitem__
            agent.judge = judge
            six, four = ip_address("fd00::1"), ip_address("10.0.0.1")
            assert await control.resolve("web", Goal("tcp", 80)) == (six, four)
            assert await control.resolve("web", Goal("tcp", 25)) == (four,)
            assert await control.resolve("web") == (six, four)
            assert await control.resolve("fd00::1", Goal("udp", 80)) == (six,)
            for place, reason, sentence in (
                ("six", "policy", "udp/25 of fd00::1 is denied"),
                ("fd00::1", "policy", "udp/25 of fd00::1 is denied"),
                ("fd00::9", "unresolved", "nobody has it"),
                ("nobody", "unresolved", "no member or service nobody"),
            ):
                with pytest.raises(Refused, match=sentence) as refused:
                    await control.resolve(place, Goal("udp", 25))
                assert refused.value.reason == reason
                assert not isinstance(refused.value, Unanswered)
            await agent.detach()

    run(main)


def test_without_an_agent_addresses_are_left_to_the_firewalls_and_names_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "ANSWER_S", 0.02)

    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            for connected in (False, True):  # the second does not answer
                if connected:
                    sock = await control_module.connect(tmp_path / "s")
                    await until(lambda: control._agent is not None)
                for address in ("fd00::1", "10.0.0.1"):
                    assert await control.resolve(address, Goal("tcp", 25)) == (ip_address(address),)
                with pytest.raises(Unanswered):
                    await control.resolve("web", Goal("tcp", 25))
            sock.close()

    run(main)


def test_an_agent_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_S", 0.02)

    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            sock = await control_module.connect(tmp_path / "s")
            await until(lambda: control._agent is not None)
            with pytest.raises(Refused, match="does not answer"):
                await control.resolve("web")
            asked = asyncio.ensure_future(control.resolve("web"))
            await asyncio.sleep(0)
            sock.close()
            with pytest.raises(Refused):
                await asked

    run(main)


def test_a_newer_agent_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s"):
            older = await attached(tmp_path / "s")
            await older.configure(Config(entries=(FORWARD,)))
            newer = await attached(tmp_path / "s")
            await older.wait_closed()
            with pytest.raises(Unreachable):
                await older.status()
            assert len((await newer.status()).entries) == 1
            await older.detach()
            await newer.detach()

    run(main)


def test_other_users_are_not_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "peer_of", lambda _: (1, os.geteuid() + 1))

    async def main() -> None:
        async with control_at(tmp_path / "s") as control:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            with pytest.raises(OperationFailed, match="answers on"):
                await StreamProcess._attach(tmp_path / "s", None)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            assert await reader.read() == b""
            assert control._agent is None
            writer.close()

    run(main)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2{}"])
def test_garbage_ends_the_connection_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(data)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(1 << 20)
            writer.close()
            agent = await attached(tmp_path / "s")
            assert await agent.status() == Status()
            await agent.detach()

    run(main)


def test_what_is_no_stream_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "HELLO_S", 0.02)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "streams.sock"))
            silent.listen()
            with pytest.raises(OperationFailed, match="not as a stream process does"):
                await StreamProcess.attach_or_start(tmp_path, nest=None)

    run(main)


def test_it_outlives_its_agent_with_its_streams_and_the_next_one_attaches(tmp_path: Path) -> None:
    async def main() -> None:
        async with listening(echo) as target:
            first = await StreamProcess.attach_or_start(tmp_path, nest=None)
            try:
                entry = Entry(id="forward x", listen=(LOOPBACK,), way=way_to(target))
                port = port_of(await first.configure(Config(entries=(entry,))))
                async with client(port) as sock:
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(sock, b"a")
                    assert await loop.sock_recv(sock, 1) == b"a"
                    await first.detach()
                    await loop.sock_sendall(sock, b"b")
                    assert await loop.sock_recv(sock, 1) == b"b"
                    second = await StreamProcess.attach_or_start(tmp_path, nest=None)
                    assert second.pid == first.pid
                    status = await second.configure(Config(entries=(entry,)))
                    assert (port_of(status), status.entries[0].open) == (port, 1)
                    await second.detach()
                    # One with another nest cannot be used: it is ended, and another is started.
                    third = await StreamProcess.attach_or_start(tmp_path, nest=tmp_path / "nest.sock")
                    assert third.pid != first.pid
                    assert await third.status() == Status()
                    with pytest.raises(ConnectionResetError):
                        await loop.sock_recv(sock, 1)
                await third.close()
                assert list(tmp_path.iterdir()) == []
                with pytest.raises(Unreachable):
                    await third.status()
            finally:
                await first.close()

    run(main)


def test_its_death_is_noticed_and_another_is_started(tmp_path: Path) -> None:
    async def main() -> None:
        one = await StreamProcess.attach_or_start(tmp_path, nest=None)
        asked = asyncio.ensure_future(one.wait_closed())
        os.kill(one.pid, signal.SIGKILL)
        await asked
        with pytest.raises(Unreachable):
            await one.configure(Config())
        other = await StreamProcess.attach_or_start(tmp_path, nest=None)
        assert other.pid != one.pid
        await one.close()
        await other.close()

    run(main)


def test_a_place_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "streams.sock").write_text("")
        with pytest.raises(OperationFailed, match=r"streams\.sock is there and is no socket"):
            await StreamProcess.attach_or_start(tmp_path, nest=None)

    run(main)


def test_listening_places_are_told_as_the_kernel_chose_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with control_at(tmp_path / "s"):
            agent = await attached(tmp_path / "s")
            everywhere = Entry(id="a", listen=(Listen(),), way=Way())
            status = await agent.configure(Config(entries=(everywhere, FORWARD)))
            assert [one.id for one in status.entries] == ["a", "forward x"]
            assert status.entries[0].places[0].startswith("*:")
            await agent.detach()

    run(main)
