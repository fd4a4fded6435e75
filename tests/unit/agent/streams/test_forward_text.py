"""How forwards are written."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warren.agent.streams.forward_text import parse_forward, parse_place, parse_socks


@pytest.mark.parametrize(
    ("listen", "target", "place", "aim"),
    [
        ("8080", "db:80", "127.0.0.1:8080", "db:80"),
        ("[::1]:8080", "db.home:80", "[::1]:8080", "db.home:80"),
        ("*:53", "db:53/udp", "*:53/udp", "db:53"),
        ("8080", "page", "127.0.0.1:8080", "page"),
        ("8080", "page.svc/udp", "127.0.0.1:8080/udp", "page.svc"),
        ("8080", "[fd00::1]:80/tcp", "127.0.0.1:8080", "[fd00::1]:80"),
        ("unix:/run/db.sock", "db:80", "unix:/run/db.sock", "db:80"),
        ("overlay:80", "localhost:8080", "overlay:80", "localhost:8080"),
        ("overlay:80", "unix:/run/web/udp", "overlay:80", "unix:/run/web/udp"),
        ("overlay:53", "192.0.2.7:53/udp", "overlay:53/udp", "192.0.2.7:53"),
    ],
)
def test_what_can_be_said(listen: str, target: str, place: str, aim: str) -> None:
    forward = parse_forward(listen, target)
    assert (forward.place, forward.aim, forward.id) == (place, aim, f"forward {place}")
    assert parse_place(place) == place


@pytest.mark.parametrize(
    ("listen", "target", "sentence"),
    [
        ("0", "db:80", "a port is 1 to 65535"),
        ("db:80", "db:80", "no place to listen"),
        ("8080", "db:80/icmp", "behind the slash goes tcp or udp"),
        ("8080", "http://db:80/", "say HOST:PORT, without http://"),
        ("8080", "10.77.0.2", "say 10.77.0.2:PORT"),
        ("8080", "unix:/run/x", "only a forward that listens in the overlay"),
        ("overlay:unix:/x", "localhost:80", "say overlay:PORT"),
        ("overlay:*:80", "localhost:80", "say overlay:PORT"),
        ("overlay:80", "localhost", "say HOST:PORT"),
        ("unix:/run/x", "db:53/udp", "a Unix socket takes streams only"),
    ],
)
def test_what_cannot_be_said(listen: str, target: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_forward(listen, target)


@pytest.mark.parametrize("text", ["*:1080", "192.0.2.1:1080", "unix:/run/socks", "[::]:1080"])
def test_a_socks_server_without_password_is_for_this_host_alone(text: str) -> None:
    with pytest.raises(ValueError, match="for this host alone"):
        parse_socks(text)


def test_a_socks_server_is_at_a_port_of_loopback() -> None:
    assert parse_socks("1080").place == "127.0.0.1:1080"
    assert parse_socks("[::1]:1080").id == "socks [::1]:1080"


@given(st.text("0123456789abc.:[]/*-udptcunix", max_size=40), st.text("0123456789abc.:[]/*-udptcunix", max_size=40))
def test_whatever_is_said_is_understood_or_refused(listen: str, target: str) -> None:
    with contextlib.suppress(ValueError):
        forward = parse_forward(listen, target)
        assert parse_place(forward.place) == forward.place
