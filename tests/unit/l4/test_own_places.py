"""What no stream may lead to: this process's own listeners, and Warren's own sockets."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from warren.l4 import own_places

LOOPBACK = ip_address("127.0.0.1")
OWN, ANOTHERS = ip_address("192.0.2.1"), ip_address("192.0.2.2")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_listener_is_known_by_kind_port_and_address_until_it_is_closed(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as listener:
        listener.bind(("127.0.0.1", 0))
        own_places.remember(listener)
        port = listener.getsockname()[1]
        other = socket.SOCK_DGRAM if kind == socket.SOCK_STREAM else socket.SOCK_STREAM
        assert own_places.leads_back(kind, LOOPBACK, port)
        assert not own_places.leads_back(other, LOOPBACK, port)
        assert not own_places.leads_back(kind, ip_address("127.0.0.2"), port)
    assert not own_places.leads_back(kind, LOOPBACK, port)


def test_what_listens_everywhere_is_at_all_addresses_of_this_host_and_at_no_others() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as listener:
        listener.bind(("::", 0))
        own_places.remember(listener)
        port = listener.getsockname()[1]
        assert own_places.leads_back(socket.SOCK_STREAM, LOOPBACK, port)
        assert own_places.leads_back(socket.SOCK_STREAM, OWN, port, OWN)
        assert not own_places.leads_back(socket.SOCK_STREAM, ANOTHERS, port, OWN)


def test_a_closed_directory_is_known_by_whatever_way_it_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run" / "warren"
    run.mkdir(parents=True)
    (tmp_path / "link").symlink_to(run)
    closed = [run]
    for path in (run / "agent.sock", run / "sites" / "a.sock", tmp_path / "link" / "agent.sock"):
        assert own_places.is_closed(str(path), closed)
    assert own_places.is_closed(f"{tmp_path}/run/../run/warren/agent.sock", closed)
    assert own_places.is_closed(f"/proc/self/root{run}/agent.sock", closed)
    assert not own_places.is_closed(f"{tmp_path}/run/warren-2/agent.sock", closed)
