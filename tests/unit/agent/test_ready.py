from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from warren.agent.ready import service_manager


@pytest.mark.parametrize("abstract", [False, True], ids=["by path", "by abstract name"])
def test_the_service_manager_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, abstract: bool) -> None:
    address = f"\0{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind(address)
        monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
        tell_ready = service_manager()
        assert "NOTIFY_SOCKET" not in os.environ, "it is not for child processes"
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        tell_ready()
        assert manager.recv(100) == b"READY=1"
        service_manager()()
        with pytest.raises(BlockingIOError):
            manager.recv(100)


@pytest.mark.parametrize("address", ["", "vsock:2:1", "/nonexistent/notify"])
def test_without_a_service_manager_that_listens_nothing_is_said(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    service_manager()()
