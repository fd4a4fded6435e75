"""Unix sockets by which processes of one user speak to each other."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from warren.linux.unix_sockets import answers, listen


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_a_socket_is_its_owners_alone_whatever_the_umask_says(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "sock"
    before = os.umask(0)
    try:
        with listen(path, 1, kind) as listener:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert not listener.getblocking()
    finally:
        os.umask(before)


def test_whether_somebody_listens_is_known(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    assert not answers(path)
    with listen(path, 1):
        assert answers(path)
    assert path.is_socket()
    assert not answers(path)


def test_what_is_there_already_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with listen(path, 1), pytest.raises(OSError, match="in use"):
        listen(path, 1)
