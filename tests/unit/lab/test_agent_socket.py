"""Asking an agent on its control socket: what it answers, and what does not pass for an answer."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from warren.errors import OperationFailed
from warren.lab.agent_socket import agent_status

STATUS = {"pid": 7, "networks": []}


@pytest.fixture
def place() -> Iterator[Path]:
    """With a name that is short enough for a socket, seen from outside, too."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def asked(directory: Path, parts: Sequence[bytes], within_s: float = 20.0) -> tuple[dict[str, Any], bytes]:
    """The status that an agent which sends ``parts`` is understood to have, and what it was asked."""
    path = directory / "agent.sock"
    questions: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                questions.append(connection.recv(1 << 16))
                for part in parts:
                    connection.sendall(part)
                if not parts:
                    done.wait(60)

        serving = threading.Thread(target=answer)
        serving.start()
        try:
            return agent_status(os.getpid(), str(path), within_s=within_s), questions[0]
        finally:
            done.set()
            serving.join()


def test_the_status_is_what_the_agent_says_in_however_many_parts(place: Path) -> None:
    said = json.dumps({"parameters": {"status": STATUS}}).encode() + b"\0"
    status, question = asked(place, [said[:9], said[9:]])
    assert status == STATUS
    assert question == b'{"method": "org.warren.Agent.Status"}\0'


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ([b'{"parameters": {'], "closed the connection without an answer"),
        ([b'{"error": "org.warren.Agent.Failed", "parameters": {"message": "too busy"}}\0'], "^too busy$"),
        ([b'{"error": "org.varlink.service.MethodNotFound"}\0'], "^org.varlink.service.MethodNotFound$"),
    ],
)
def test_what_is_no_status_is_told(place: Path, parts: list[bytes], why: str) -> None:
    with pytest.raises(OperationFailed, match=why):
        asked(place, parts)


def test_an_agent_that_is_silent_is_not_waited_for_longer_than_said(place: Path) -> None:
    with pytest.raises(OperationFailed, match="does not answer at"):
        asked(place, [], within_s=0.05)


def test_where_no_agent_runs_nobody_answers(place: Path) -> None:
    with pytest.raises(OperationFailed, match=r"does not answer at .*: No such file"):
        agent_status(os.getpid(), str(place / "agent.sock"), within_s=20.0)
