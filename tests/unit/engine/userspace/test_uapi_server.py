"""The UAPI socket of a data plane: who may speak to it, and how many."""

from __future__ import annotations

import os
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from warren.engine.userspace.uapi_server import UapiServer
from warren.errors import OperationFailed
from warren.linux import peers


class Bench:
    def __init__(self, directory: Path) -> None:
        self.poller = select.epoll()
        self.server = UapiServer("wg0", self.poller, lambda request: request.upper() + b"\n\n", directory)
        self._clients: list[socket.socket] = []

    def ask(self, request: bytes) -> bytes:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._clients.append(client)
        client.settimeout(5)
        client.connect(str(self.server.path))
        try:
            client.send(request)
            for _ in range(3):
                for fd, mask in self.poller.poll(0):
                    self.server.handle(fd, mask)
            return client.recv(100)
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.server.close()
        self.poller.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path / "sockets")
    yield made
    made.close()


def test_it_answers_its_user_in_the_directory_it_was_given(bench: Bench, tmp_path: Path) -> None:
    assert bench.server.path == tmp_path / "sockets" / "wg0.sock"
    assert stat.S_IMODE(bench.server.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(bench.server.path.parent.stat().st_mode) == 0o700
    assert bench.ask(b"get=1\n\n") == b"GET=1\n\n"


def test_root_is_answered_too_and_nobody_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "peer_of", lambda _: peers.Peer(1, 0))
    assert bench.ask(b"get=1\n\n") == b"GET=1\n\n"
    monkeypatch.setattr(peers, "peer_of", lambda _: peers.Peer(1, os.geteuid() + 1))
    assert bench.ask(b"get=1\n\n") == b""


def test_a_second_server_for_an_interface_is_refused(bench: Bench) -> None:
    with pytest.raises(OperationFailed, match="another process runs interface wg0"):
        UapiServer("wg0", bench.poller, lambda request: request, bench.server.path.parent)
