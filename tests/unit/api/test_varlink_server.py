"""Calls over a Unix socket, and who may make them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.waiting import until
from tests.unit.api.varlink_echo import (
    ECHO,
    ERRORS,
    NAME,
    Number,
    Text,
    call,
    echo,
    raw,
    serving,
)
from warren.api import varlink_server
from warren.api.varlink import REQUEST_BYTES_MAX, VarlinkClient
from warren.api.varlink_agent import Nothing
from warren.api.varlink_server import CONNECTIONS_MAX, Interface, Method, VarlinkServer
from warren.errors import OperationFailed, Unreachable


def test_a_call_is_answered(path: Path) -> None:
    async def run() -> None:
        async with serving(path), await VarlinkClient.connect(path, "the agent") as client:
            for text in ('ä\n\0"', "x" * 100_000):
                assert await client.call(f"{NAME}.Echo", Text(text), Text) == Text(text)
            assert await client.call(f"{NAME}.Nothing", Nothing(), Nothing) == Nothing()

    asyncio.run(run())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_error_arrives_as_what_it_was(path: Path, number: int) -> None:
    async def run() -> None:
        async with serving(path), await VarlinkClient.connect(path, "the agent") as client:
            with pytest.raises(ERRORS[number], match=r"^what, why, what to do$"):
                await client.call(f"{NAME}.Fail", Number(number), Nothing)
            assert await client.call(f"{NAME}.Echo", Text("on"), Text) == Text("on")

    asyncio.run(run())


@pytest.mark.logs_errors
def test_a_bug_in_one_answer_is_told_and_the_service_goes_on(path: Path) -> None:
    async def run() -> None:
        async with serving(path), await VarlinkClient.connect(path, "the agent") as client:
            with pytest.raises(OperationFailed, match="a bug in Warren"):
                await client.call(f"{NAME}.Break", Nothing(), Nothing)
            assert await client.call(f"{NAME}.Echo", Text("on"), Text) == Text("on")

    asyncio.run(run())


SERVICE = "org.varlink.service"
INFO = {"vendor": "Warren", "product": "Warren", "version": "1.2", "url": "", "interfaces": [SERVICE, NAME]}


def error(name: str, **parameters: str) -> object:
    return {"error": f"{SERVICE}.{name}", "parameters": parameters}


@pytest.mark.parametrize(
    ("sent", "reply"),
    [
        (call(f"{NAME}.Sing"), error("MethodNotFound", method=f"{NAME}.Sing")),
        (call("org.example.Other.Echo"), error("InterfaceNotFound", interface="org.example.Other")),
        (call("Echo"), error("InterfaceNotFound", interface="")),
        (call(f"{NAME}.Nothing", upgrade=True), error("InvalidParameter", parameter="upgrade")),
        (call(f"{NAME}.Nothing", more=True), {"parameters": {}}),
        (call(f"{SERVICE}.GetInfo"), {"parameters": INFO}),
        (
            call(f"{SERVICE}.GetInterfaceDescription", parameters={"interface": NAME}),
            {"parameters": {"description": f"interface {NAME}\n"}},
        ),
        (
            call(f"{SERVICE}.GetInterfaceDescription", parameters={"interface": "x"}),
            error("InterfaceNotFound", interface="x"),
        ),
    ],
)
def test_the_protocol_is_varlink(path: Path, sent: bytes, reply: object) -> None:
    async def run() -> None:
        async with serving(path):
            assert await raw(path, sent) == [reply]

    asyncio.run(run())


@pytest.mark.parametrize("parameters", [{}, {"text": 1}, {"text": None}])
def test_wrong_parameters_are_named(path: Path, parameters: object) -> None:
    async def run() -> None:
        async with serving(path):
            (reply,) = await raw(path, call("org.example.Echo.Echo", parameters=parameters))
            assert isinstance(reply, dict)
            assert reply["error"] == "org.varlink.service.InvalidParameter"
            assert "text" in reply["parameters"]["parameter"]

    asyncio.run(run())


def test_calls_that_arrive_together_are_answered_in_order_and_oneway_ones_not_at_all(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            first, second = (call(f"{NAME}.Echo", parameters={"text": text}) for text in "ab")
            silent = call(f"{NAME}.Echo", parameters={"text": "c"}, oneway=True)
            assert await raw(path, first + silent + second) == [
                {"parameters": {"text": "a"}},
                {"parameters": {"text": "b"}},
            ]

    asyncio.run(run())


@pytest.mark.parametrize("sent", [b"\0", b"{\0", b"[]\0", b"null\0", b"[" * 50_000 + b"\0", b"\xff\0", b"{}", b""])
def test_what_is_no_call_ends_the_connection(path: Path, sent: bytes) -> None:
    async def run() -> None:
        async with serving(path):
            assert await raw(path, sent) == []
            assert await raw(path, call(f"{NAME}.Nothing")) == [{"parameters": {}}]

    asyncio.run(run())


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=50), max_size=4))
def test_bytes_of_any_kind_harm_nobody(sent: list[bytes]) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "s"
            async with serving(path):
                await raw(path, *sent)
                assert await raw(path, call(f"{NAME}.Nothing")) == [{"parameters": {}}]

    asyncio.run(run())


def test_a_request_that_is_too_large_is_cut_off_unanswered(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 24)
            with contextlib.suppress(OSError):  # it may be cut off while sending or afterwards
                writer.write(call(f"{NAME}.Echo", parameters={"text": "x" * (REQUEST_BYTES_MAX + 1000)}))
                await writer.drain()
                assert await reader.read() == b""
            writer.transport.abort()

    asyncio.run(run())


def test_a_large_request_within_the_limit_is_taken(path: Path) -> None:
    async def run() -> None:
        async with serving(path), await VarlinkClient.connect(path, "the agent") as client:
            text = Text("x" * (REQUEST_BYTES_MAX - 1000))
            assert await client.call(f"{NAME}.Echo", text, Text) == text

    asyncio.run(run())


def test_a_client_may_be_idle_but_not_slow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"{")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    monkeypatch.setattr(varlink_server, "TRANSFER_S", 0.1)
    asyncio.run(run())


def test_an_idle_client_is_closed_in_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(path):
            reader, writer = await asyncio.open_unix_connection(path)
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    monkeypatch.setattr(varlink_server, "IDLE_S", 0.1)
    asyncio.run(run())


def test_a_client_that_does_not_read_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with serving(path):
            _, writer = await asyncio.open_unix_connection(path, limit=10)
            request = call(f"{NAME}.Echo", parameters={"text": "x" * 900_000})

            async def send_for_ever() -> None:
                for _ in range(100):
                    writer.write(request)
                    await writer.drain()

            with pytest.raises(OSError):  # noqa: PT011 - a reset or a broken pipe
                await send_for_ever()
            writer.transport.abort()

    monkeypatch.setattr(varlink_server, "TRANSFER_S", 0.1)
    asyncio.run(run())


def test_connections_have_a_ceiling(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            clients = [await VarlinkClient.connect(path, "the agent") for _ in range(CONNECTIONS_MAX)]
            for client in clients:
                await client.call(f"{NAME}.Nothing", Nothing(), Nothing)
            async with await VarlinkClient.connect(path, "the agent") as one_more:
                with pytest.raises(Unreachable):
                    await one_more.call(f"{NAME}.Nothing", Nothing(), Nothing)
            for client in clients:
                await client.__aexit__()
            assert await raw(path, call(f"{NAME}.Nothing")) == [{"parameters": {}}]

    asyncio.run(run())


# Who may


def test_the_socket_is_the_owner_s_alone_and_gone_at_the_end(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not path.exists()

    asyncio.run(run())


_ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b'{"method": "org.varlink.service.GetInfo"}\\0')
    sys.stdout.write("answered" if s.recv(100) else "closed")
except OSError:
    sys.stdout.write("closed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize(
    ("uid", "owner", "told"),
    [(65534, 0, "closed"), (65533, 65534, "closed"), (65534, 65534, "answered"), (0, 65534, "answered")],
)
def test_who_is_neither_root_nor_the_owner_is_refused_whatever_the_mode_says(uid: int, owner: int, told: str) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as directory:
            path = Path(directory) / "s"
            Path(directory).chmod(0o755)
            async with serving(path, owner=owner):
                assert path.stat().st_uid == owner
                path.chmod(0o666)
                command = ["/usr/bin/python3", "-c", _ASK, str(path)]
                process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, user=uid, group=uid)
                output, _ = await asyncio.wait_for(process.communicate(), 20)
                assert output.decode() == told

    asyncio.run(run())


def test_a_socket_that_is_served_already_is_left_alone(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            with pytest.raises(OperationFailed, match="another agent runs"):
                await VarlinkServer(path, [ECHO], version="").start()
            assert await raw(path, call(f"{NAME}.Nothing")) == [{"parameters": {}}]

    asyncio.run(run())


def test_a_socket_that_a_killed_process_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))

    async def run() -> None:
        async with serving(path):
            assert await raw(path, call(f"{NAME}.Nothing")) == [{"parameters": {}}]

    asyncio.run(run())


def test_what_is_no_socket_is_not_removed(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(OperationFailed, match="cannot be made"):
        asyncio.run(VarlinkServer(path, [ECHO], version="").start())
    assert path.read_text() == "mine"


def test_a_server_removes_only_its_own_socket(path: Path) -> None:
    async def run() -> None:
        async with serving(path) as first:
            path.unlink()
            async with serving(path):
                await first.close()
                assert path.exists()

    asyncio.run(run())


def test_calls_that_run_end_with_the_server(path: Path) -> None:
    async def run() -> None:
        began = asyncio.Event()

        async def wait(_: Nothing) -> None:
            began.set()
            await asyncio.Event().wait()

        async with (
            serving(path, Interface(NAME, "", {"Wait": Method(Nothing, wait)})) as server,
            await VarlinkClient.connect(path, "the agent") as client,
        ):
            asking = asyncio.ensure_future(client.call(f"{NAME}.Wait", Nothing(), Nothing))
            await began.wait()
            await server.close()
            with pytest.raises(Unreachable, match="without an answer"):
                await asking

    asyncio.run(run())


def holding(entered: list[str], ended: asyncio.Event) -> Interface:
    """A method that lasts."""

    @asynccontextmanager
    async def held(text: Text) -> AsyncIterator[tuple[Text, asyncio.Event]]:
        if text.text == "no":
            raise OperationFailed("what, why, what to do")
        entered.append(text.text)
        try:
            yield text, ended
        finally:
            entered.remove(text.text)

    return Interface(NAME, "interface org.example.Echo\n", {"Hold": Method(Text, echo, held)})


# Calls that last


def test_a_call_that_lasts_ends_with_its_callers_connection_however_that_ends(path: Path) -> None:
    async def run() -> None:
        entered: list[str] = []
        async with serving(path, holding(entered, asyncio.Event())):
            async with await VarlinkClient.connect(path, "the agent") as client:
                answers = client.hold(f"{NAME}.Hold", Text("a"), Text)
                assert await anext(answers) == Text("a")
                assert entered == ["a"]
                await answers.aclose()
            await until(lambda: not entered)
            other = socket.socket(socket.AF_UNIX)
            other.connect(str(path))
            other.sendall(call(f"{NAME}.Hold", parameters={"text": "b"}, more=True))
            await until(lambda: entered)
            other.close()  # as when its process is killed, before it has read anything
            await until(lambda: not entered)

    asyncio.run(run())


def test_a_call_that_lasts_may_be_ended_by_the_service_and_by_its_end(path: Path) -> None:
    async def run() -> None:
        entered: list[str] = []
        ended = asyncio.Event()
        async with serving(path, holding(entered, ended)), await VarlinkClient.connect(path, "the agent") as client:
            answers = client.hold(f"{NAME}.Hold", Text("a"), Text)
            assert await anext(answers) == Text("a")
            ended.set()
            assert [one async for one in answers] == []
            await until(lambda: not entered)
        ended.clear()
        async with serving(path, holding(entered, ended)) as server:
            client = await VarlinkClient.connect(path, "the agent")
            async with client:
                answers = client.hold(f"{NAME}.Hold", Text("a"), Text)
                await anext(answers)
                await server.close()
                assert entered == []
                with pytest.raises(Unreachable):
                    await anext(answers)

    asyncio.run(run())


def test_a_call_that_cannot_last_says_why_and_too_many_are_refused(path: Path) -> None:
    async def run() -> None:
        entered: list[str] = []
        async with serving(path, holding(entered, asyncio.Event())), contextlib.AsyncExitStack() as stack:
            async with await VarlinkClient.connect(path, "the agent") as client:
                with pytest.raises(OperationFailed, match=r"^what, why, what to do$"):
                    await anext(client.hold(f"{NAME}.Hold", Text("no"), Text))
            async with await VarlinkClient.connect(path, "the agent") as client:
                assert await client.call(f"{NAME}.Hold", Text("once"), Text) == Text("once")
            for number in range(varlink_server.HELD_MAX):
                client = await stack.enter_async_context(await VarlinkClient.connect(path, "the agent"))
                answers = client.hold(f"{NAME}.Hold", Text(str(number)), Text)
                await anext(answers)
                stack.push_async_callback(answers.aclose)
            async with await VarlinkClient.connect(path, "the agent") as client:
                with pytest.raises(OperationFailed, match="32 commands hold something here already"):
                    await anext(client.hold(f"{NAME}.Hold", Text("more"), Text))
            assert len(entered) == varlink_server.HELD_MAX

    asyncio.run(run())


def test_more_of_a_method_that_does_not_last_is_one_answer(path: Path) -> None:
    async def run() -> None:
        async with serving(path):
            assert await raw(path, call(f"{NAME}.Echo", parameters={"text": "a"}, more=True)) == [
                {"parameters": {"text": "a"}}
            ]

    asyncio.run(run())
